"""`memfeat list`: the names that there are to choose from."""

import hashlib
import json
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

import memfeat
from memfeat.cli.options import json_option, print_json
from memfeat.registry import LISTED, unknown_name
from memfeat.storage import user_cache, write_json

PAPER_WIDTH = 1024
LIBRARIES = ("open_clip_torch", "timm", "torch")  # which bring names, and take seconds to import


@click.command("list", epilog="Example: memfeat list aggregators")
@click.argument(
    "what",
    required=False,
    type=click.Choice(LISTED),
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    default=PAPER_WIDTH,
    show_default=True,
    help="Embedding width that parameters are counted at.",
)
@json_option
def list_command(what: str | None, width: int, as_json: bool) -> None:
    """Name encoders, aggregators, heads, label formats and settings.

    Without WHAT, also counts the parameters of each aggregator with each head. Settings are those
    of a pipeline file, by table, each with its default and meaning.
    """
    if what == "settings":
        settings = pipeline_settings()
        print_json(settings) if as_json else click.echo(
            "\n\n".join(map(_as_toml, settings.items()))
        )
        return
    names, parameters = _listed(width)
    if what:
        listed = names[what]
        print_json(listed) if as_json else click.echo("\n".join(listed))
        return
    if as_json:
        print_json({**names, "parameters": parameters, "width": width})
        return
    for kind, listed in names.items():
        shown = f"{len(listed)} names: memfeat list {kind}" if len(listed) > 12 else None
        click.echo(f"{kind:<13} {shown or ', '.join(listed)}")
    click.echo(f"\nparameters at {width}-d")
    for system, count in parameters.items():
        click.echo(f"  {system:<20} {count:>12,}")


def pipeline_settings() -> dict[str, dict[str, dict[str, Any]]]:
    """Return each table's settings by name: whether one is `required`, `default` and `meaning`."""
    from memfeat import config

    kinds: dict[str, type[config.Settings]] = {
        "extract": config.ExtractConfig,
        "finetune": config.FinetuneConfig,
        "train": config.TrainConfig,
        "ablation": config.AblationConfig,
        "transfer": config.TransferConfig,
    }
    return {
        table: {
            name: {
                "required": field.is_required(),
                "default": None
                if field.is_required()
                else field.get_default(call_default_factory=True),
                "meaning": field.description or "",
            }
            for name, field in kind.model_fields.items()
        }
        for table, kind in kinds.items()
    }


def _as_toml(item: tuple[str, dict[str, dict[str, Any]]]) -> str:
    """Return a table's settings as they would be written in a pipeline; those not set commented."""
    lines = [f"[{item[0]}]"]
    for name, field in item[1].items():
        value = json.dumps(field["default"], default=str, ensure_ascii=False)
        value = "..." if field["required"] else "" if field["default"] is None else value
        lines.append(f"{name} = {value}".ljust(34) + f"  # {field['meaning']}".rstrip(" #"))
    return "\n".join(lines)


def check_name(kind: str, name: str) -> None:
    """Refuse an unknown name before torch is imported, if an earlier process cached the names.

    Raises:
        UnknownNameError: no such name; the registry of that kind would raise the same.
    """
    names = _cached(_cache_file()).get("names", {}).get(f"{kind}s")
    if names and name not in names:
        raise unknown_name(kind, name, names)


def _listed(width: int) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Return names by kind, and parameters by system, from the cache file or the registries."""
    file, own = _cache_file(), str(width)
    cached = _cached(file)
    if own in cached.get("parameters", {}):
        return cached["names"], cached["parameters"][own]
    names, parameters = _names(), _parameters(width)
    if file:
        by_width = {**cached.get("parameters", {}), own: parameters}
        with suppress(OSError):  # without a folder to write to, each process asks the registries
            write_json(file, {"key": _key(), "names": names, "parameters": by_width})
    return names, parameters


def _cached(file: Path | None) -> dict[str, Any]:
    """Return what an earlier process cached, if it holds for these sources and libraries."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file else {}
        if content and content["key"] == _key():
            return content
    return {}


def _cache_file() -> Path | None:
    """Return the file; None if torch is imported anyway, and the registries may hold more names."""
    folder = None if "torch" in sys.modules else user_cache()
    return folder and folder / "names.json"


@cache
def _key() -> str:
    """Return a hash of memfeat's sources and of the versions of the libraries that bring names."""
    digest = hashlib.sha256()
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            digest.update(f"{library} {version(library)}\n".encode())
    for path in sorted(Path(memfeat.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _names() -> dict[str, list[str]]:
    from memfeat.datasets import FORMATS
    from memfeat.encoders import encoder_names, text_encoder_names
    from memfeat.models import AGGREGATORS, HEADS
    from memfeat.training.baselines import BASELINES

    return {
        "encoders": list(encoder_names()),
        "text-encoders": [*text_encoder_names(), "sentence/NAME"],
        "aggregators": list(AGGREGATORS),
        "heads": list(HEADS),
        "baselines": list(BASELINES),
        "formats": list(FORMATS),
    }


def _parameters(width: int) -> dict[str, int]:
    from memfeat.models import AGGREGATORS, HEADS, build_regressor, parameter_count

    return {
        f"{aggregator}+{head}": parameter_count(build_regressor(width, aggregator, head))
        for aggregator in AGGREGATORS
        for head in HEADS
    }
