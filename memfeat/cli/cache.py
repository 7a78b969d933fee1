"""`memfeat cache`: look into a cache of embeddings."""

from pathlib import Path

import click

from memfeat.cli.options import json_option, print_json
from memfeat.errors import ExitCode


@click.group("cache", epilog="Example: memfeat cache verify cache/demo/efficientnet-lite0")
def cache_command() -> None:
    """Look into a cache of embeddings."""


@cache_command.command("info", epilog="Example: memfeat cache info cache/demo/efficientnet-lite0")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def info_command(folder: Path, as_json: bool) -> None:
    """Say what a cache holds and what made it."""
    from memfeat.cache import Cache

    summary = Cache.open(folder, damaged_ok=True).summary()
    if as_json:
        print_json(summary)
        return
    spec = summary.pop("spec")
    for name, value in {**summary, **spec}.items():
        counts = isinstance(value, dict) and ", ".join(f"{n} {key}" for key, n in value.items())
        click.echo(f"{name:<17} {value if counts is False else counts or 'none'}")


@cache_command.command(
    "verify", epilog="Example: memfeat cache verify cache/demo/efficientnet-lite0"
)
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def verify_command(folder: Path, as_json: bool) -> int:
    """Read every shard and check checksums, vectors and offsets. Exit code 1: damage found."""
    from memfeat.cache import verify

    problems = {str(path): problem for path, problem in verify(folder).items()}
    if as_json:
        print_json({"folder": str(folder), "problems": problems})
    else:
        for problem in problems.values():
            click.echo(problem)
        click.echo(f"{len(problems)} shards with problems in {folder}", err=True)
    return ExitCode.ERROR if problems else ExitCode.DONE
