"""`memfeat report`: a result as an HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import LOCAL_PATH, say
from memfeat.errors import counted
from memfeat.manifest import SPLITS, Split

if TYPE_CHECKING:
    from memfeat.runs import Run


@click.command("report", epilog="Example: memfeat report runs/demo -o demo.html")
@click.argument("folder", type=LOCAL_PATH)
@click.option("-o", "--output", type=LOCAL_PATH, help="Page to write [FOLDER/report.html].")
@click.option("--split", type=click.Choice(SPLITS), help="Of a grid's tables, this split's.")
def report_command(folder: Path, output: Path | None, split: Split | None) -> None:
    """Write a page of tables and plots.

    FOLDER is that of a run, an ablation or a transfer. The page is one self-contained HTML file:
    tables to sort, filter and compare rows of, plots of truth against prediction whose dots show
    their videos and timelines, and the worst and best predictions. Prints the page's path.
    """
    from memfeat.prediction.explaining import timelines_of
    from memfeat.report import write_report

    def timelines(run: "Run", video_ids: Sequence[str], key: str) -> tuple[dict[str, str], str]:
        say(f"drawing timelines of up to {counted(len(video_ids), 'video')}, perhaps for a minute")
        return timelines_of(run, video_ids, key)

    click.echo(write_report(folder, output, split, timelines))
