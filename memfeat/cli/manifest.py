"""`memfeat manifest`: makes a manifest of videos, or checks one."""

from pathlib import Path

import click

from memfeat.cli.options import (
    LOCAL_PATH,
    LOCATION,
    json_option,
    print_json,
    say,
    settings_options,
    some,
)
from memfeat.config import ConvertConfig
from memfeat.datasets import FORMATS, Conversion, convert
from memfeat.errors import ExitCode
from memfeat.storage import Location


@click.group("manifest", epilog="Example: memfeat manifest check data_manifests/demo.csv")
def manifest_command() -> None:
    """Make a manifest of videos, or check one."""


HELP = """Convert a dataset's own label files, in folder SRC, to a manifest.

Videos are found by their stem, whatever their folder and suffix. Videos without a file, and files
that no label names, are left out and counted. A format without splits gets ours: 14 : 3 : 3, by a
random draw that depends on --seed and names alone, and keeps groups whole.

FORMAT is one of these; its first target is the default:

"""


def _formats() -> str:
    """Describe each format: the files it reads and the scores it has."""
    return "\b\n" + "\n".join(
        f"{name}: {FORMATS.get(name).about}\n    --target {' or '.join(FORMATS.get(name).targets)}"
        for name in FORMATS
    )


@manifest_command.command(
    "from",
    help=HELP + _formats(),
    epilog="Example: memfeat manifest from videomem /data/VideoMem -o data_manifests/videomem.csv",
)
@click.argument("name", metavar="FORMAT")
@click.argument("source", type=LOCAL_PATH, metavar="SRC")
@click.option(
    "-o",
    "--output",
    type=LOCAL_PATH,
    required=True,
    help="The manifest to write: .csv, .tsv or .jsonl.",
)
@settings_options(ConvertConfig)
@json_option
def from_command(
    name: str, source: Path, output: Path, config: ConvertConfig, as_json: bool
) -> int:
    """Convert a dataset's own label files."""
    conversion = convert(name, source, output, config)
    if as_json:
        print_json(conversion)
    else:
        _print_counts(conversion, kept=config.keep_missing)
        click.echo(output)
    return ExitCode.DONE


def _print_counts(conversion: Conversion, *, kept: bool) -> None:
    columns = ("listed", "found", "missing", "unlabelled", "written")
    lines = [f"{'split':<6}" + "".join(f"{column:>12}" for column in columns)]
    for split in conversion.splits:
        counts = (getattr(split, column) for column in columns)
        lines.append(f"{split.split:<6}" + "".join(f"{count:>12}" for count in counts))
    lines.append(f"scores: {conversion.dataset}")
    lines += [f"labels: {path}" for path in conversion.labels]
    if conversion.missing:
        what = "kept" if kept else "left out, unless --keep-missing"
        lines.append(f"missing, {what}: {some(conversion.missing)}")
    if conversion.unlisted:
        lines.append(f"no label names: {some([path.name for path in conversion.unlisted])}")
    lines += [f"note: {note}" for note in conversion.notes]
    say("\n".join(lines))


@manifest_command.command("check", epilog="Example: memfeat manifest check data_manifests/demo.csv")
@click.argument("path", type=LOCATION)
@click.option("--root", type=LOCATION, help="Folder that the paths start from.")
@json_option
def check_command(path: Location, root: Location | None, as_json: bool) -> int:
    """Check a manifest's rows and whether its videos exist. Exit code 1: errors found."""
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
        print_json({"manifest": str(path), "problems": [], **vars(summary)})
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
        say(f"warning: {warning}")
    return ExitCode.DONE
