"""Running a grid and writing its table; training the seeds of one system in parallel."""

from collections.abc import Sequence
from typing import Any

from memfeat.ablation.grid import Cell
from memfeat.ablation.progress import OnProgress, ProgressCounter, model_folders
from memfeat.ablation.recipes import caches_of, missing_caches
from memfeat.ablation.results import table_of
from memfeat.ablation.scheduler import train_cells
from memfeat.config import AblationConfig, TrainConfig
from memfeat.errors import TrainingError
from memfeat.manifest import read_manifest
from memfeat.runs import ABLATION, Run
from memfeat.storage import write_json
from memfeat.training import read_features, train


def run_ablation(
    config: AblationConfig,
    cells: Sequence[Cell],
    *,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train every cell that is not finished yet, and write and return the table.

    A cell that fails is listed and costs the others nothing. Stop it at any time: finished
    cells and seeds are kept.

    Returns:
        What `ablation.json` holds; see `memfeat.ablation.results`.
    """
    caches = caches_of(config, cells)
    without_cache: dict[str, str] = {}
    for cell in cells:
        missing = missing_caches(caches[folder] for folder in dict.fromkeys(cell.config.cache))
        if missing:
            without_cache[cell.name] = missing
    errors = train_cells(
        [cell for cell in cells if cell.name not in without_cache],
        config.run,
        config.workers,
        engine=config.engine,
        on_progress=on_progress,
    )
    table = table_of(config, cells, errors, without_cache)
    write_json(config.run / ABLATION, table)
    return table


def train_seeds(
    config: TrainConfig, workers: int = 0, *, on_progress: OnProgress | None = None
) -> Run:
    """Train the seeds of one system: one in this process, several in parallel like a grid.

    The run folder gets the same bytes either way, as from `memfeat.training.train`. `workers` is as
    in `train_cells`.

    Raises:
        MemfeatError, OSError: as for `read_features` and `train`; of several seeds a
            `TrainingError` that names the seed. The other seeds are kept.
    """
    cell = Cell(config.system, "model", config)
    if len(config.seeds) > 1:
        errors = train_cells([cell], config.run, workers, on_progress=on_progress)
        if errors:
            raise TrainingError(errors[cell.name])
        return Run.load(config.run)
    features = read_features(read_manifest(config.manifest), config.cache)
    progress = ProgressCounter([cell], on_progress or (lambda _: None))
    (folder,) = model_folders(cell)
    run = train(
        features.tables,
        features.records,
        config,
        on_epoch=lambda report: progress.epoch(folder, report),
    )
    progress.end(folder)
    return run
