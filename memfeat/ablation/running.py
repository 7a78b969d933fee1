"""Training a grid's cells in several processes, going on where an earlier run left off."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from memfeat.ablation.grid import Cell
from memfeat.ablation.results import RESULT, table_of
from memfeat.baselines import run_baseline
from memfeat.cache import Cache, FeatureTable
from memfeat.config import AblationConfig
from memfeat.devices import cpu_cores
from memfeat.errors import MemfeatError
from memfeat.files import write_json
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.models import AGGREGATORS
from memfeat.processes import end_with_parent, interrupts_ignored
from memfeat.training import select_records, train


@dataclass(frozen=True)
class CellDone:
    """A cell that is finished, or that failed with `error`."""

    cell: Cell
    error: str | None = None


def run_ablation(
    config: AblationConfig,
    cells: Sequence[Cell],
    *,
    on_cell: Callable[[CellDone], None] | None = None,
) -> dict[str, Any]:
    """Train every cell that is not finished yet, and write and return the table.

    A cell that fails is listed and costs the others nothing. Stop it at any time: finished
    cells and seeds are kept.

    Args:
        config: the grid.
        cells: from `plan_cells`.
        on_cell: called as each cell ends.

    Returns:
        What `ablation.json` holds; see `memfeat.ablation.results`.
    """
    without_cache = _without_cache(cells)
    errors: dict[str, str] = {}
    runnable = [cell for cell in cells if cell.name not in without_cache]
    if on_cell:
        for cell in cells:
            if cell.name in without_cache:
                on_cell(CellDone(cell, without_cache[cell.name]))
    for done in _run_cells(runnable, config.workers):
        if done.error is not None:
            errors[done.cell.name] = done.error
        if on_cell:
            on_cell(done)
    table = table_of(config, cells, errors, without_cache)
    write_json(config.run / RESULT, table)
    return table


def _without_cache(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the cells whose cache is not there, each with the command that makes it."""
    errors = {}
    for cell in cells:
        manifest, cache = cell.config.manifest, cell.config.cache
        if not any(cache.glob("shard-*.h5")):
            errors[cell.name] = (
                f"there is no cache {cache}; make it with `memfeat extract --manifest {manifest} "
                f"--encoder {cache.name} --cache {cache}`"
            )
    return errors


def _run_cells(cells: Sequence[Cell], workers: int) -> Iterator[CellDone]:
    """Run cells in processes of their own, the costliest first, and yield each as it ends.

    Where a process dies, the cells it leaves unfinished are run again, each in a process to
    itself, so that only the one whose own process dies is blamed.
    """
    unfinished = sorted(cells, key=lambda cell: -_cost(cell))
    with _pool(workers or default_workers(cells)) as pool:
        with interrupts_ignored():
            futures = {pool.submit(_run_cell, cell): cell for cell in unfinished}
        for future in as_completed(futures):
            with suppress(BrokenProcessPool):
                done = CellDone(futures[future], future.result())
                unfinished.remove(done.cell)
                yield done
    for cell in unfinished:
        with _pool(1) as pool:
            try:
                yield CellDone(cell, pool.submit(_run_cell, cell).result())
            except BrokenProcessPool:
                yield CellDone(
                    cell,
                    "its process died, perhaps for want of memory; run the same command again, "
                    "with fewer --workers if it dies again",
                )


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes that an error or interrupt here ends at once."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def default_workers(cells: Iterable[Cell]) -> int:
    """Return one worker per CPU core this process may use, or one in all if a GPU trains."""
    if torch.cuda.is_available() and any(cell.config.device != "cpu" for cell in cells):
        return 1
    return cpu_cores()


def _cost(cell: Cell) -> int:
    """Rank cells by how long they take: a recurrence dwarfs everything else."""
    return AGGREGATORS.get(cell.config.aggregator).cost if cell.kind != "baseline" else 0


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


def _run_cell(cell: Cell) -> str | None:
    """Train one cell in a worker process; return what went wrong, if it did."""
    try:
        table, records = _data(cell.config.manifest, cell.config.cache)
        if cell.kind == "baseline":
            run_baseline(cell.config.head, table, records, cell.config)
        else:
            train(table, records, cell.config)
    except (MemfeatError, OSError) as error:
        return str(error)
    except Exception as error:
        # A bug in one cell must not cost the others theirs.
        return f"{type(error).__name__}: {error}"
    return None


@lru_cache(maxsize=1)
def _data(manifest_path: Path, cache: Path) -> tuple[FeatureTable, tuple[VideoRecord, ...]]:
    """Load what cells of one cache share, once per worker."""
    manifest = read_manifest(manifest_path)
    opened = Cache.open(cache)
    records = select_records(manifest, opened).records
    return opened.load([record.video_id for record in records]), records
