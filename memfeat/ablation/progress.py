"""How far a grid has come, told as its models train."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from memfeat.ablation.grid import Cell
from memfeat.ablation.planning import weight
from memfeat.runs import seed_folder
from memfeat.training import EpochReport


@dataclass(frozen=True)
class Progress:
    """How far a grid has come.

    Attributes:
        done: of `total`; never falls, and equals it at the end.
        total: all epochs that all models may take, each weighted by its cost. What an earlier run
            finished is taken off when it is found.
        note: how many models have ended, and the latest news.
    """

    done: int
    total: int
    note: str


OnProgress = Callable[[Progress], None]


class Tally:
    """Counts the epochs of all models, each known by its run folder.

    Args:
        cells: those that can be run.
        tell: called at every change.
    """

    def __init__(self, cells: Iterable[Cell], tell: OnProgress) -> None:
        self._tell = tell
        self._cells = {folder: cell for cell in cells for folder in model_folders(cell)}
        self._totals = {folder: weight(cell.config) for folder, cell in self._cells.items()}
        self._done = dict.fromkeys(self._cells, 0)
        self._ended: set[Path] = set()
        self._news = ""

    def news(self, news: str) -> None:
        """Tell something that is shown beside the count."""
        self._news = news
        count = f"{len(self._ended)} of {len(self._cells)} models"
        note = f"{count}; {news}" if news else count
        self._tell(Progress(sum(self._done.values()), sum(self._totals.values()), note))

    def keep(self, folder: Path) -> None:
        """Take off a model that an earlier run finished."""
        self._totals[folder] = 0
        self.end(folder)

    def epoch(self, folder: Path, report: EpochReport) -> None:
        """Count an epoch; of a model that starts again, those beyond where it was."""
        cell = self._cells[folder]
        done = weight(cell.config) * (report.epoch + 1) // cell.config.max_epochs
        self._done[folder] = max(done, self._done[folder])
        seed = f" seed {report.seed}" if len(cell.config.seeds) > 1 else ""
        self.news(f"{cell.name}{seed}: dev L1 {report.dev_l1:.4f}")

    def end(self, folder: Path) -> None:
        """Count a model as done, whatever became of it."""
        self._done[folder] = self._totals[folder]
        self._ended.add(folder)
        self.news(self._news)


def model_folders(cell: Cell) -> list[Path]:
    """Return the run folders of a cell's models: of each seed, or of the baseline."""
    config = cell.config
    if cell.kind == "baseline":
        return [config.run]
    return [seed_folder(config.run, config, seed) for seed in config.seeds]
