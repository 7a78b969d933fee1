"""Progress on stderr: a live line on a terminal, its last state in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from memfeat.ablation import GridProgress
    from memfeat.extraction import Rates, VideoOutcome

SPEED_FROM_SECONDS = 3600.0  # there may be minutes between two epochs, and it takes several


class VideoProgress:
    """Counts videos and frames as they are finished, and names those that are not ok."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("videos", total=total, rate="")

    def start(self, already_done: int) -> None:
        """Count the videos that an earlier run finished, without letting them set the pace."""
        total = (self._progress.tasks[self._task].total or 0) - already_done
        self._progress.reset(self._task, total=total, rate="")

    def advance(self, outcome: "VideoOutcome") -> None:
        """Count one video."""
        self._progress.update(self._task, advance=1)
        if outcome.message:
            kind = "note" if outcome.status == "ok" else outcome.status
            line = f"{kind}: {outcome.video_id}: {outcome.message}"
            self._progress.console.print(escape(line), soft_wrap=True, highlight=False)

    def measure(self, rates: "Rates") -> None:
        """Show how fast it goes, and what it waits for."""
        if rates.wall_seconds:
            speed = f"{rates.decoded / rates.wall_seconds:.1f} frames/s"
            fill = f"queue {rates.queue_fill:.0%} full"
            self._progress.update(self._task, rate=f"{speed}, {rates.bottleneck}-bound, {fill}")


@contextmanager
def video_progress(total: int) -> Iterator[VideoProgress]:
    """Show videos done, rate and time left."""
    with _bar(TextColumn("{task.fields[rate]}")) as progress:
        yield VideoProgress(progress, total)


@contextmanager
def step_progress(what: str, total: int) -> Iterator["StepProgress"]:
    """Show steps done of `total`, with time left and a word on the latest."""
    with _bar(TextColumn("{task.fields[note]}")) as progress:
        yield StepProgress(progress, what, total)


class StepProgress:
    """Counts steps such as clips, epochs or cells."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, note="")

    def restart(self, total: int) -> None:
        """Begin again with another number of steps."""
        self._progress.reset(self._task, total=total)

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count steps and show `note`."""
        self._progress.update(self._task, advance=steps, note=escape(note))


@contextmanager
def grid_progress() -> Iterator["Callable[[GridProgress], None]"]:
    """Show how far a grid has come, in percent of the work, and the latest news."""
    with _bar(TextColumn("{task.fields[note]}"), TaskProgressColumn()) as bar:
        task = bar.add_task("grid", total=None, note="")

        def show(progress: "GridProgress") -> None:
            # Where an earlier run left nothing to do, all of it is done.
            done, total = (progress.done, progress.total) if progress.total else (1, 1)
            bar.update(task, completed=done, total=total, note=escape(progress.note))

        yield show


class FinetuneProgress:
    """Shows how far finetuning has come, and names the videos that it leaves out."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("finetune", total=None, note="")

    def show(self, done: int, total: int, note: str) -> None:
        """Show the videos done, over all epochs that there may be, and the latest figures."""
        self._progress.update(self._task, completed=done, total=total, note=escape(note))

    def say(self, note: str) -> None:
        """Print a line above."""
        self._progress.console.print(escape(note), soft_wrap=True, highlight=False)


@contextmanager
def finetune_progress() -> Iterator[FinetuneProgress]:
    """Show how far finetuning has come, in percent of all epochs that there may be."""
    with _bar(TextColumn("{task.fields[note]}"), TaskProgressColumn()) as progress:
        yield FinetuneProgress(progress)


def _bar(last: TextColumn, count: ProgressColumn | None = None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        count or MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        last,
        console=Console(stderr=True),
        speed_estimate_period=SPEED_FROM_SECONDS,
    )
