"""`memfeat run`: look at a run, and hand it on."""

from pathlib import Path

import click

from memfeat.cli.options import LOCAL_PATH, LOCATION, say
from memfeat.storage import Location


@click.group("run", epilog="Example: memfeat run pack runs/mine -o mine-packed")
def run_command() -> None:
    """Look at a run, or hand it on."""


@run_command.command("show", epilog="Example: memfeat run show runs/mine")
@click.argument("folder", type=LOCATION, metavar="RUN")
def show_command(folder: Location) -> None:
    """Print a run's model card: what it is made of, how good it is, how it was trained."""
    from memfeat.runs import Run
    from memfeat.runs.packing import model_card

    click.echo(model_card(Run.load(folder)), nl=False)


@run_command.command("pack", epilog="Example: memfeat run pack runs/mine -o mine.zip")
@click.argument("folder", type=LOCATION, metavar="RUN")
@click.option(
    "-o", "--output", type=LOCAL_PATH, required=True, help="The folder or .zip file to make."
)
@click.option(
    "--predictions",
    is_flag=True,
    help="With predictions.csv, which repeats the dataset's scores: for intervals of new scores.",
)
def pack_command(folder: Location, output: Path, *, predictions: bool) -> None:
    """Copy a run for others: with a model card, without paths and scores.

    The copy is a run folder, or one file if its name ends in .zip. Commands take either as RUN,
    also by URL. Its scores have no intervals and percentiles unless --predictions goes with it,
    which a dataset's licence may forbid.
    """
    from memfeat.runs import Run
    from memfeat.runs.packing import pack_run

    run = Run.load(folder)
    click.echo(pack_run(run, output, predictions=predictions))
    say(f"its model card: memfeat run show {output}")
    if run.baseline == "svr":
        say("note: an SVR holds features of training videos, which a licence may not let you give")
