"""Progress on stderr: a live line on a terminal, its last state in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from memfeat.cli.everywhere import is_quiet

if TYPE_CHECKING:
    from memfeat.ablation import GridProgress
    from memfeat.extraction import Rates, VideoOutcome

WIDE = 120  # columns of a terminal with room for a long bar
SPEED_FROM_SECONDS = 3600.0  # there may be minutes between two epochs, and it takes several


class ProgressLine:
    """A bar with counts, times and a note."""

    def __init__(self, bars: Progress, what: str, total: int | None) -> None:
        self._bars = bars
        self._total = total or 0
        self._task = bars.add_task(what, total=total, note="")

    def restart(self, total: int) -> None:
        """Begin again with another number of steps."""
        self._bars.reset(self._task, total=total)

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count steps and show `note`."""
        self._bars.update(self._task, advance=steps, note=escape(note))

    def show(self, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` steps are done, and `note`."""
        self._bars.update(self._task, completed=done, total=total, note=escape(note))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bars.console.print(escape(line), soft_wrap=True, highlight=False)

    def show_data(self, line: str) -> None:
        """Print a line on stdout; above the bar, if both are on a terminal."""
        console = self._bars.console
        if console.is_terminal and not console.quiet and sys.stdout.isatty():
            self.say(line)
        else:
            click.echo(line)

    def show_grid(self, progress: "GridProgress") -> None:
        """Show how far a grid has come; all is done if an earlier run left nothing to do."""
        done, total = (progress.done, progress.total) if progress.total else (1, 1)
        self.show(done, total, progress.note)

    # For an extraction:

    def start_extraction(self, already_done: int, how: str) -> None:
        """Say `how`, and leave out the videos that are done: they say nothing about the speed."""
        self.say(how)
        self.restart(self._total - already_done)

    def count(self, outcome: "VideoOutcome") -> None:
        """Count one video, and name it if there is something to say about it."""
        self._bars.update(self._task, advance=1)
        if outcome.message:
            kind = "note" if outcome.status == "ok" else outcome.status
            self.say(f"{kind}: {outcome.video_id}: {outcome.message}")

    def measure(self, rates: "Rates") -> None:
        """Show the speed, and what limits it."""
        if rates.wall_seconds:
            speed = f"{rates.decoded / rates.wall_seconds:.1f} frames/s"
            fill = f"queue {rates.queue_fill:.0%} full"
            self._bars.update(self._task, note=f"{speed}, {rates.bottleneck}-bound, {fill}")


@contextmanager
def progress_line(what: str, total: int | None = None) -> Iterator[ProgressLine]:
    """Show steps done of `total`, the time left and a note; in percent if `total` is not known."""
    console = Console(stderr=True, quiet=is_quiet())
    whole = Column(no_wrap=True)
    bars = Progress(
        TextColumn("{task.description}", table_column=whole),
        BarColumn(40 if console.width > WIDE else 10),
        TaskProgressColumn(table_column=whole)
        if total is None
        else MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TextColumn("left", table_column=whole),
        TimeRemainingColumn(table_column=whole),
        # What there is no room for is cut at the end, and no number before it.
        TextColumn(
            "{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
        console=console,
        expand=True,
        speed_estimate_period=SPEED_FROM_SECONDS,
        redirect_stdout=False,  # it would go to stderr
    )
    with bars:
        yield ProgressLine(bars, what, total)
