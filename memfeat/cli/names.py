"""`memfeat list`: the names that there are to choose from."""

import hashlib
import json
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

import memfeat
from memfeat.cli.options import json_option, print_json
from memfeat.storage import user_cache, write_json

PAPER_WIDTH = 1024
LIBRARIES = ("open_clip_torch", "timm", "torch")  # which bring names, and take seconds to import


@click.command("list", epilog="Example: memfeat list aggregators")
@click.argument(
    "what",
    required=False,
    type=click.Choice(["encoders", "aggregators", "heads", "baselines", "formats"]),
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
    """Name encoders, aggregators, heads, and formats of labels.

    Without WHAT, also counts the parameters of each aggregator with each head.
    """
    names, parameters = _cached(width)
    if what:
        listed = names[what]
        print_json(listed) if as_json else click.echo("\n".join(listed))
        return
    if as_json:
        print_json({**names, "parameters": parameters, "width": width})
        return
    for kind, listed in names.items():
        shown = f"{len(listed)} names: memfeat list encoders" if len(listed) > 12 else None
        click.echo(f"{kind:<12} {shown or ', '.join(listed)}")
    click.echo(f"\nparameters at {width}-d")
    for system, count in parameters.items():
        click.echo(f"  {system:<20} {count:>12,}")


def _cached(width: int) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Return names by kind, and parameters by system, without importing torch if it can be done.

    The answer of an earlier process is kept in the user's cache folder. It holds for the same
    sources of memfeat, versions of the libraries, and width.
    """
    folder = user_cache()
    if folder is None or "torch" in sys.modules:
        return _names(), _parameters(width)
    file, key = folder / "names.json", _key(width)
    with suppress(OSError, ValueError, TypeError, KeyError):
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if content["key"] == key:
            return content["names"], content["parameters"]
    names, parameters = _names(), _parameters(width)
    with suppress(OSError):  # without a folder that can be written to, each process asks anew
        write_json(file, {"key": key, "names": names, "parameters": parameters})
    return names, parameters


def _key(width: int) -> str:
    digest = hashlib.sha256(str(width).encode())
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            digest.update(f"{library} {version(library)}\n".encode())
    for path in sorted(Path(memfeat.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _names() -> dict[str, list[str]]:
    from memfeat.baselines import BASELINES
    from memfeat.datasets import FORMATS
    from memfeat.encoders import encoder_names
    from memfeat.models import AGGREGATORS, HEADS

    return {
        "encoders": list(encoder_names()),
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
