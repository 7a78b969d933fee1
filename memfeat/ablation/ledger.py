"""What became of each cell of a grid: which of its models it waits for, and what went wrong."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from memfeat.ablation.grid import Cell
from memfeat.ablation.progress import Tally, model_folders
from memfeat.ablation.tasks import Task
from memfeat.config import TrainConfig


@dataclass(frozen=True)
class CellDone:
    """A cell that is finished, or that failed with `error`."""

    cell: Cell
    error: str | None = None


@dataclass(eq=False)
class _Entry:
    """A cell at work.

    Attributes:
        cell: the cell.
        summary: what is left to do when all of its models are finished, if anything.
        waiting: run folders that are not settled.
        errors: what went wrong, by run folder.
    """

    cell: Cell
    summary: Task | None
    waiting: set[Path]
    errors: dict[Path, str] = field(default_factory=dict)


class Ledger:
    """Cells at work, each known by the run folders that it waits for.

    Args:
        tally: told as each model ends.
        on_cell: called as each cell ends.
    """

    def __init__(self, tally: Tally, on_cell: Callable[[CellDone], None]) -> None:
        self._tally, self._on_cell = tally, on_cell
        self._entries: dict[Path, _Entry] = {}

    def open(self, cell: Cell, left: Iterable[TrainConfig], summary: Task | None) -> None:
        """Enter a cell.

        Args:
            cell: the cell.
            left: those of its models that are to be trained, each as a run of its own; the others
                are finished.
            summary: to be done after them, if anything is.
        """
        folders = {own.run for own in left}
        for folder in set(model_folders(cell)) - folders:
            self._tally.keep(folder)
        entry = _Entry(cell, summary, folders)
        self._entries |= dict.fromkeys(folders, entry)
        if not folders:
            self._on_cell(CellDone(cell))

    def fail(self, cell: Cell, reason: str) -> None:
        """Note that a cell cannot be begun."""
        for folder in model_folders(cell):
            self._tally.end(folder)
        self._on_cell(CellDone(cell, reason))

    def awaits(self, run: TrainConfig) -> bool:
        """Return whether it is not known yet what became of a run."""
        return run.run in self._entries

    def settle(self, folder: Path, error: str | None) -> Task | None:
        """Note what became of a run, unless that is known; return the summary due with it."""
        entry = self._entries.pop(folder, None)
        if entry is None:
            return None
        if folder in model_folders(entry.cell):
            self._tally.end(folder)
        if error is not None:
            entry.errors[folder] = error
        entry.waiting.discard(folder)
        if entry.waiting:
            return None
        due, entry.summary = entry.summary, None
        if due is None or entry.errors:
            self._on_cell(CellDone(entry.cell, _reason(entry.cell, entry.errors)))
            return None
        entry.waiting = {entry.cell.config.run}
        self._entries[entry.cell.config.run] = entry
        return due


def _reason(cell: Cell, errors: Mapping[Path, str]) -> str | None:
    """Say what went wrong with a cell, and with which of its seeds if not with all alike."""
    folders = model_folders(cell)
    if len(errors) == len(folders) and len(set(errors.values())) == 1:
        return next(iter(errors.values()))
    seeds = dict(zip(folders, cell.config.seeds, strict=False))
    told = []
    for folder, error in sorted(errors.items(), key=lambda each: seeds.get(each[0], -1)):
        names_seed = folder not in seeds or error.startswith(f"seed {seeds[folder]} ")
        told.append(error if names_seed else f"seed {seeds[folder]}: {error}")
    return "; ".join(told) or None
