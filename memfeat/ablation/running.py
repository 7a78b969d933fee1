"""Running a grid, going on where an earlier run left off, and writing its table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memfeat.ablation.grid import Cell
from memfeat.ablation.ledger import CellDone, Ledger
from memfeat.ablation.progress import OnProgress, Tally
from memfeat.ablation.recipes import caches_of, missing_caches
from memfeat.ablation.results import RESULT, table_of
from memfeat.ablation.schedule import Schedule
from memfeat.ablation.seats import seats_for
from memfeat.config import AblationConfig
from memfeat.engines import Engine
from memfeat.storage import write_json


def run_ablation(
    config: AblationConfig,
    cells: Sequence[Cell],
    *,
    on_cell: Callable[[CellDone], None] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train every cell that is not finished yet, and write and return the table.

    A cell that fails is listed and costs the others nothing. Stop it at any time: finished
    cells and seeds are kept.

    Args:
        config: the grid.
        cells: from `plan_cells`.
        on_cell: called as each cell ends.
        on_progress: called as models train.

    Returns:
        What `ablation.json` holds; see `memfeat.ablation.results`.
    """
    without_cache = _without_cache(config, cells)
    for cell in cells:
        if on_cell and cell.name in without_cache:
            on_cell(CellDone(cell, without_cache[cell.name]))
    runnable = [cell for cell in cells if cell.name not in without_cache]
    errors = train_cells(
        runnable,
        config.run,
        config.workers,
        engine=config.engine,
        on_cell=on_cell,
        on_progress=on_progress,
    )
    table = table_of(config, cells, errors, without_cache)
    write_json(config.run / RESULT, table)
    return table


def _without_cache(config: AblationConfig, cells: Sequence[Cell]) -> dict[str, str]:
    """Return the cells of which a cache is not there, each with the commands that make it."""
    caches = caches_of(config, cells)
    errors = {}
    for cell in cells:
        missing = missing_caches(caches[folder] for folder in dict.fromkeys(cell.config.cache))
        if missing:
            errors[cell.name] = missing
    return errors


def train_cells(
    cells: Sequence[Cell],
    folder: Path,
    workers: int,
    *,
    engine: Engine = "local",
    on_cell: Callable[[CellDone], None] | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, str]:
    """Train every cell that is not finished yet, in parallel; return what failed, and why.

    Args:
        cells: their caches are there.
        folder: where tables lie while processes share them.
        workers: how many processes; 0 for as many as the machine, or the cluster, is good for.
        engine: where they are.
        on_cell: called as each cell ends.
        on_progress: called as models train.

    Raises:
        ConfigError: no Ray, where that is the engine.
    """
    errors: dict[str, str] = {}

    def end(done: CellDone) -> None:
        if done.error is not None:
            errors[done.cell.name] = done.error
        if on_cell:
            on_cell(done)

    tally = Tally(cells, on_progress or (lambda _: None))
    with seats_for(engine, cells, workers) as seats:
        Schedule(cells, folder, seats, Ledger(tally, end), tally).run()
    return errors
