"""The commands that repeat what a page shows."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memfeat.config import TrainConfig
from memfeat.models import AGGREGATORS, HEADS, Aggregator, Head, resolve_model_options
from memfeat.registry import Registry
from memfeat.runs import Run

_FIRST = ("manifest", "cache", "aggregator", "head", "seeds")
_ELSEWHERE = ("run", "aggregators", "heads", "device", "threads")  # or not said at all
OPTIONS = "options.toml"


def commands(runs: Sequence[Run]) -> list[str]:
    """Return the commands that make each cache and train each run, each once."""
    return list(dict.fromkeys(line for run in runs for line in _commands(run)))


def option_files(runs: Sequence[Run]) -> dict[str, str]:
    """Return the pipeline files that `commands` names: options of models that have no flag."""
    written = {run.config.system: _options(run.config) for run in runs if not run.baseline}
    return {_file(system): text for system, text in written.items() if text}


def _commands(run: Run) -> Iterator[str]:
    config = run.config
    manifest = shlex.quote(str(config.manifest))
    for spec, cache in zip(run.specs, config.cache, strict=True):
        where = f"--manifest {manifest} --cache {shlex.quote(str(cache))}"
        if not spec.is_imported:
            yield f"memfeat extract {where} {spec.flags}"
    if not run.baseline:
        file = [_file(config.system)] if _options(config) else []
        named = [f"--run {shlex.quote(str(config.run))}"]
        yield " ".join(["memfeat train", *file, *_flags(config), *named])


def _flags(config: TrainConfig) -> Iterator[str]:
    """Yield the flags of settings that have none of their usual values."""
    values = config.model_dump(mode="json")
    for name, field in TrainConfig.model_fields.items():
        value = values[name]
        usual = field.get_default(call_default_factory=True)
        if name in _ELSEWHERE or (name not in _FIRST and value == usual):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield flag if value else f"--no-{flag[2:]}"
        elif name == "seeds":
            yield f"{flag} {','.join(map(str, value))}"
        else:
            several = value if isinstance(value, list) else [value]
            yield from (f"{flag} {shlex.quote(str(each))}" for each in several)


def _options(config: TrainConfig) -> str:
    """Return the options that models have beside their usual ones, as a pipeline file."""
    lines: list[str] = []
    for name in dict.fromkeys(config.aggregator):
        given = config.aggregators.get(name, {})
        lines += _changed(f"aggregators.{name}", *_resolved(AGGREGATORS, name, given))
    given = config.heads.get(config.head, {})
    lines += _changed(f"heads.{config.head}", *_resolved(HEADS, config.head, given))
    return "\n".join(lines)


def _resolved(
    registry: Registry[type[Aggregator]] | Registry[type[Head]], name: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    own, usual = (resolve_model_options(registry, name, each) for each in (given, {}))
    return own.model_dump(mode="json"), usual.model_dump(mode="json")


def _changed(table: str, own: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    changed = {key: value for key, value in own.items() if value != usual[key]}
    return [f"[train.{table}]", *map(_toml, changed.items())] if changed else []


def _toml(item: tuple[str, Any]) -> str:
    name, value = item
    shown = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    return f"{name} = {shown}"


def _file(system: str) -> str:
    return f"{system.replace(',', '-')}-{OPTIONS}"
