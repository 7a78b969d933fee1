"""`memfeat manifest`: look into a manifest of videos."""

from pathlib import Path

import click

from memfeat.cli.options import json_option, print_json
from memfeat.errors import ExitCode


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
