"""Progress of a grid while its models train."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from memfeat.ablation.grid import Cell
from memfeat.config import TrainConfig
from memfeat.models import AGGREGATORS
from memfeat.runs import seed_folders
from memfeat.training import EpochReport


@dataclass(frozen=True)
class GridProgress:
    """How far a grid has come.

    Attributes:
        done: of `total`; never falls, and equals it at the end.
        total: the most epochs that all models may take, each weighted by the model's cost, without
            models that an earlier run finished.
        note: how many models have ended, and the latest news.
        run: if the news is that an epoch has ended, that model's run folder.
        epoch: what was reported of it then.
    """

    done: int
    total: int
    note: str
    run: Path | None = None
    epoch: EpochReport | None = None


OnProgress = Callable[[GridProgress], None]


class ProgressCounter:
    """Counts the epochs of all models, each identified by its run folder."""

    def __init__(self, cells: Iterable[Cell], on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._cells = {folder: cell for cell in cells for folder in model_folders(cell)}
        self._totals = {folder: cost(cell.config) for folder, cell in self._cells.items()}
        self._done = dict.fromkeys(self._cells, 0)
        self._ended: set[Path] = set()
        self._news = ""

    def report(self, news: str, run: Path | None = None, epoch: EpochReport | None = None) -> None:
        """Report `news` beside the count, perhaps of a run's epoch."""
        self._news = news
        count = f"{len(self._ended)} of {len(self._cells)} models"
        note = f"{count}; {news}" if news else count
        self._on_progress(
            GridProgress(sum(self._done.values()), sum(self._totals.values()), note, run, epoch)
        )

    def exclude(self, folder: Path) -> None:
        """Take a model that an earlier run finished out of the total."""
        self._totals[folder] = 0
        self.end(folder)

    def epoch(self, folder: Path, report: EpochReport) -> None:
        """Count an epoch; a model that starts again counts once it is past where it was."""
        cell = self._cells[folder]
        most = cell.config.max_epochs
        epochs = ((report.fold or 1) - 1) * most + report.epoch + 1
        done = cost(cell.config) * epochs // (most * max(1, cell.config.folds))
        self._done[folder] = max(done, self._done[folder])
        seed = f" seed {report.seed}" if len(cell.config.seeds) > 1 else ""
        seed += f" fold {report.fold}" if report.fold else ""
        srocc = "-" if report.dev_srocc is None else f"{report.dev_srocc:.3f}"
        self.report(f"{cell.name}{seed}: dev L1 {report.dev_l1:.4f}, SROCC {srocc}", folder, report)

    def end(self, folder: Path) -> None:
        """Count a model as done, whether it succeeded or failed."""
        self._done[folder] = self._totals[folder]
        self._ended.add(folder)
        self.report(self._news)


def cost(config: TrainConfig) -> int:
    """Return the most time that one seed may take, with all its folds, in epochs of the average.

    A baseline counts as an average.
    """
    each = sum(AGGREGATORS.get(name).cost for name in config.aggregator) * config.max_epochs
    return each * max(1, config.folds)


def model_folders(cell: Cell) -> list[Path]:
    """Return the run folders of a cell's models: of each seed, or of the baseline."""
    own = cell.config
    return [own.run] if cell.kind == "baseline" else seed_folders(own.run, own)
