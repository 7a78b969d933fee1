"""Which models training has to fit, told without doing it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from memfeat.ablation.grid import Cell, reported_split
from memfeat.ablation.progress import model_folders
from memfeat.ablation.recipes import caches_of
from memfeat.ablation.running import require_same_settings
from memfeat.ablation.scorers import missing_scores
from memfeat.config import AblationConfig, TrainConfig
from memfeat.errors import RunError
from memfeat.manifest import Split, VideoRecord
from memfeat.runs import ABLATION, is_complete
from memfeat.runs.files import fold_folders, table_path
from memfeat.training import differences_in_settings, resolve_options


def plan_training(config: TrainConfig, records: Sequence[VideoRecord]) -> dict[str, Any]:
    """Tell what training a system on these videos would do. Nothing is written.

    Raises:
        RunError: the run folder holds a run of other settings.
    """
    if why := differences_in_settings(resolve_options(config)):
        raise RunError(why)
    splits = Counter(record.split for record in records if record.score is not None)
    return {
        "run": str(config.run),
        "system": config.system,
        "caches": ", ".join(map(str, config.cache)),
        **_videos(splits, config.folds),
        **_models(Cell(config.system, "model", config)),
    }


def plan_grid(config: AblationConfig, cells: Sequence[Cell]) -> dict[str, Any]:
    """Tell what a grid would train. Nothing is written.

    Raises:
        RunError: the folder holds runs of other settings.
    """
    require_same_settings(cells)
    caches = caches_of(config, cells)
    rows = [
        {
            "name": cell.name,
            "missing_caches": [str(at) for at in cell.config.cache if not caches[at].exists],
            **_models(cell),
        }
        for cell in cells
    ]
    split = reported_split(config, cells)
    return {
        "table": str(table_path(config.run, ABLATION, split)),
        "rows": rows,
        "missing_scores": missing_scores(config, cells[0].config.manifest),
    }


def _videos(splits: Mapping[Split, int], folds: int) -> dict[str, int]:
    """Count the scored videos of each split; with folds, train and dev are divided anew."""
    counts = {f"{split}_videos": number for split, number in splits.items()}
    if folds:
        divided = sum(counts.pop(f"{split}_videos", 0) for split in ("train", "dev"))
        counts = {"folds": folds, "videos_in_folds": divided, **counts}
    return counts


def _models(cell: Cell) -> dict[str, int]:
    """Count a row's models: one a seed and fold, or those of a baseline."""
    folders = [part for each in model_folders(cell) for part in fold_folders(each, cell.config)]
    finished = sum(map(is_complete, folders))
    return {"models_finished": finished, "models_to_train": len(folders) - finished}
