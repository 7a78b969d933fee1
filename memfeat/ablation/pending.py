"""Which models training has to fit, told without doing it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from memfeat.ablation.grid import Cell
from memfeat.ablation.progress import model_folders
from memfeat.ablation.recipes import caches_of
from memfeat.ablation.running import require_same_settings
from memfeat.config import AblationConfig, TrainConfig
from memfeat.errors import RunError
from memfeat.manifest import VideoRecord
from memfeat.runs import ABLATION, is_complete
from memfeat.runs.files import table_path
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
        **{f"{split}_videos": number for split, number in splits.items()},
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
    return {"table": str(table_path(config.run, ABLATION, config.split)), "rows": rows}


def _models(cell: Cell) -> dict[str, int]:
    """Count a row's models: one a seed, or the one of a baseline."""
    folders = model_folders(cell)
    finished = sum(map(is_complete, folders))
    return {"models_finished": finished, "models_to_train": len(folders) - finished}
