"""Running a grid and writing its table; training the seeds of one system in parallel."""

from collections.abc import Mapping, Sequence
from typing import Any

from memfeat.ablation.grid import Cell, reported_split
from memfeat.ablation.progress import OnProgress, ProgressCounter, model_folders
from memfeat.ablation.recipes import caches_of, missing_caches
from memfeat.ablation.results import table_of
from memfeat.ablation.scheduler import train_cells
from memfeat.ablation.scorers import missing_scores
from memfeat.config import AblationConfig, TrainConfig
from memfeat.errors import ConfigError, RunError, TrainingError
from memfeat.manifest import read_manifest
from memfeat.runs import ABLATION, IN_FOLDS, Run
from memfeat.runs.files import path_for_table
from memfeat.storage import Location, write_json
from memfeat.training import differences_in_settings, read_features, resolve_options, train
from memfeat.training.folds import NOTHING


def run_ablation(
    config: AblationConfig,
    cells: Sequence[Cell],
    *,
    broken: Mapping[Location, str] = NOTHING,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train every cell that is not finished yet, and write and return the table.

    A cell that fails is listed and costs the others nothing. Stop it at any time: finished
    cells and seeds are kept. The table goes to `path_for_table`. `broken` are caches that could
    not be completed, and why: their cells fail.

    Returns:
        What `ablation.json` holds; see `memfeat.ablation.results`.

    Raises:
        ConfigError: no video of the table's split has a score.
        RunError: the folder holds runs of other settings.
    """
    _require_scores(config, cells)
    require_same_settings(cells)
    caches = caches_of(config, cells)
    errors: dict[str, str] = {}
    without_cache: dict[str, str] = {}
    for cell in cells:
        folders = dict.fromkeys(cell.config.cache)
        why = "; ".join(f"{folder}: {broken[folder]}" for folder in folders if folder in broken)
        missing = missing_caches(caches[folder] for folder in folders)
        if why:
            errors[cell.name] = why
        elif missing:
            without_cache[cell.name] = missing
    without_cache |= missing_scores(config, cells[0].config.manifest)
    errors |= train_cells(
        [cell for cell in cells if cell.name not in errors.keys() | without_cache.keys()],
        config.run,
        config.workers,
        engine=config.engine,
        on_progress=on_progress,
    )
    table = table_of(config, cells, errors, without_cache)
    write_json(path_for_table(config.run, ABLATION, table), table)
    return table


def _require_scores(config: AblationConfig, cells: Sequence[Cell]) -> None:
    manifest = read_manifest(cells[0].config.manifest)
    records = manifest.of_split(config.split)
    if reported_split(config, cells) == IN_FOLDS:
        return  # whether there are scores to divide shows before a model is trained
    if not any(record.score is not None for record in records):
        raise ConfigError(
            f"split {config.split!r} of {manifest.path} has {len(records)} videos and no score to "
            "compare predictions with; choose another with --split"
        )


def require_same_settings(cells: Sequence[Cell]) -> None:
    """Refuse cells whose run folders hold runs of other settings, before anything is changed.

    Raises:
        RunError: names the first difference, and how many cells differ.
    """
    models = [cell for cell in cells if cell.kind != "baseline"]
    found = {cell.name: differences_in_settings(resolve_options(cell.config)) for cell in models}
    differing = {name: why for name, why in found.items() if why}
    if differing:
        name, why = next(iter(differing.items()))
        raise RunError(
            f"{len(differing)} of {len(cells)} rows do not fit what is there, so nothing was "
            f"trained or written; {name!r} first: {why}"
        )


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
    manifest = read_manifest(config.manifest)
    features = read_features(manifest, config.cache, missing=config.missing)
    progress = ProgressCounter([cell], on_progress or (lambda _: None))
    (folder,) = model_folders(cell)
    run = train(
        features.tables,
        manifest.records,
        config,
        on_epoch=lambda report: progress.epoch(folder, report),
    )
    progress.end(folder)
    return run
