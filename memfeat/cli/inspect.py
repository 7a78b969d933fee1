"""`memfeat cache`, `manifest` and `list`: look at what there is."""

from pathlib import Path

import click

from memfeat.cli.options import json_option, print_json
from memfeat.errors import ExitCode

PAPER_WIDTH = 1024


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


@click.group("manifest", epilog="Example: memfeat manifest check data_manifests/demo.csv")
def manifest_command() -> None:
    """Look into a manifest of videos."""


@manifest_command.command("check", epilog="Example: memfeat manifest check data_manifests/demo.csv")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Folder that the paths start from.")
@json_option
def check_command(path: Path, root: Path | None, as_json: bool) -> int:
    """Check a manifest's rows and look whether its videos are there. Exit code 1: errors found."""
    from dataclasses import asdict

    from memfeat.manifest import find_problems, read_manifest

    problems = find_problems(path, root)
    if problems:
        if as_json:
            print_json({"manifest": str(path), "problems": problems})
        else:
            for problem in problems:
                click.echo(problem)
        return ExitCode.ERROR
    summary = read_manifest(path, root).summary()
    if as_json:
        print_json({"manifest": str(path), "problems": [], **asdict(summary)})
        return ExitCode.DONE
    for split in summary.splits:
        mean = "-" if split.mean_score is None else f"{split.mean_score:.3f}"
        click.echo(
            f"{split.split:<6} {split.videos:>6} videos  {split.with_score:>6} scored  "
            f"{split.withheld:>6} withheld  {split.missing_files:>6} files missing  mean {mean}"
        )
    for dataset in summary.datasets:
        click.echo(f"scores: {dataset}")
    for warning in summary.warnings:
        click.echo(f"warning: {warning}", err=True)
    return ExitCode.DONE


@click.command("list", epilog="Example: memfeat list aggregators")
@click.argument(
    "what", required=False, type=click.Choice(["encoders", "aggregators", "heads", "baselines"])
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
    """Name encoders, aggregators and heads.

    Without WHAT, also counts the parameters of each aggregator with each head.
    """
    from memfeat.baselines import BASELINES
    from memfeat.encoders import encoder_names
    from memfeat.models import AGGREGATORS, HEADS, build_regressor, parameter_count

    names = {
        "encoders": list(encoder_names()),
        "aggregators": list(AGGREGATORS),
        "heads": list(HEADS),
        "baselines": list(BASELINES),
    }
    if what:
        listed = names[what]
        print_json(listed) if as_json else click.echo("\n".join(listed))
        return
    parameters = {
        f"{aggregator}+{head}": parameter_count(build_regressor(width, aggregator, head))
        for aggregator in AGGREGATORS
        for head in HEADS
    }
    if as_json:
        print_json({**names, "parameters": parameters, "width": width})
        return
    for kind, listed in names.items():
        shown = f"{len(listed)} names: memfeat list encoders" if len(listed) > 12 else None
        click.echo(f"{kind:<12} {shown or ', '.join(listed)}")
    click.echo(f"\nparameters at {width}-d")
    for system, count in parameters.items():
        click.echo(f"  {system:<20} {count:>12,}")
