"""The settings behind a result, and which of them are our choices rather than the paper's."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfeat.cache import CacheSpec
from memfeat.config import ExtractConfig, Settings, TrainConfig
from memfeat.errors import listed
from memfeat.models import AGGREGATORS, HEADS, resolve_model_options
from memfeat.runs import Run

_OURS = re.compile(r"\s*\(ours\)")
_SPEC = {
    "interpolation": "how frames reach the encoder's size; the paper names the size alone",
    "mean": "subtracted from pixels in [0, 1]; the encoder's own",
    "std": "pixels are divided by; the encoder's own",
}
MOST_LISTED = 12
_PER_RUN = {"run", "aggregator", "head", "aggregators", "heads", "shuffle_labels"}


@dataclass(frozen=True)
class Choice:
    """A setting, its value as text, and its meaning."""

    setting: str
    value: str
    meaning: str


def our_choices(runs: Sequence[Run]) -> list[Choice]:
    """List the runs' choices on which the paper is silent, each once."""
    return list(dict.fromkeys(choice for run in runs for choice in _choices_of(run)))


def training_settings(runs: Sequence[Run]) -> list[Choice]:
    """List the training settings of the runs; `varies` where they differ."""
    runs = [run for run in runs if not run.baseline]
    return [
        Choice(name, _shared(getattr(run.config, name) for run in runs), field.description or "")
        for name, field in TrainConfig.model_fields.items()
        if runs and (len(runs) == 1 or name not in _PER_RUN)
    ]


def feature_settings(runs: Sequence[Run]) -> list[tuple[str, list[Choice]]]:
    """List the distinct specs of the caches that the runs were trained on, and those caches."""
    caches: dict[CacheSpec, dict[str, None]] = {}
    for run in runs:
        for spec, cache in zip(run.specs, run.config.cache, strict=True):
            caches.setdefault(spec, {})[in_words(cache)] = None
    return [
        (
            ", ".join(folders),
            [Choice(name, in_words(value), "") for name, value in spec.model_dump().items()],
        )
        for spec, folders in caches.items()
    ]


def _choices_of(run: Run) -> Iterator[Choice]:
    config = run.config
    for spec in run.specs:
        for name, meaning in _SPEC.items():
            yield Choice(f"features: {name}", in_words(getattr(spec, name)), meaning)
        for name, why in _marked(ExtractConfig):
            if hasattr(spec, name):
                yield Choice(f"features: {name}", in_words(getattr(spec, name)), why)
    if run.baseline:
        return
    for name, why in _marked(TrainConfig):
        yield Choice(f"training: {name}", in_words(getattr(config, name)), why)
    for name in config.aggregator:
        options = resolve_model_options(AGGREGATORS, name, config.aggregators.get(name, {}))
        yield from _model_choices(name, AGGREGATORS.get(name), options)
    options = resolve_model_options(HEADS, config.head, config.heads.get(config.head, {}))
    yield from _model_choices(config.head, HEADS.get(config.head), options)


def _model_choices(name: str, model: type, options: Settings) -> Iterator[Choice]:
    """Yield options marked as ours, or all options of a model whose sizes are ours."""
    marked = dict(_marked(type(options)))
    if "ours" in (type(options).__doc__ or "").lower():
        marked = {
            option: field.description or "" for option, field in type(options).model_fields.items()
        }
    for option, why in marked.items():
        yield Choice(f"{name}: {option}", in_words(getattr(options, option)), why)
    summary = (model.__doc__ or "").splitlines()[:1]
    if not marked and summary and "ours" in summary[0].lower():
        yield Choice(name, "its definition", summary[0])


def _marked(settings: type[Settings]) -> Iterator[tuple[str, str]]:
    for name, field in settings.model_fields.items():
        if field.description and _OURS.search(field.description):
            yield name, _OURS.sub("", field.description)


def _shared(values: Iterable[Any]) -> str:
    distinct = list(dict.fromkeys(in_words(value) for value in values))
    return distinct[0] if len(distinct) == 1 else "varies"


def in_words(value: Any) -> str:
    """Return a setting's value as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {in_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return listed([in_words(inner) for inner in value], MOST_LISTED)
    return f"{value:g}" if isinstance(value, float) else str(value)
