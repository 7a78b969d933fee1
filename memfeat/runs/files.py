"""Names and formats of a run folder's files."""

import json
from pathlib import Path
from typing import Any

from memfeat.config import TrainConfig
from memfeat.errors import RunError

CONFIG = "config.json"
SPEC = "cache_spec.json"
HISTORY = "history.jsonl"
MODEL = "model.safetensors"
FINETUNED = "i3d.safetensors"  # of a folder of finetuning, which holds no model for a cache
PREDICTIONS = "predictions.csv"
PROVENANCE = "provenance.json"
METRICS = "metrics.json"
STREAMS = "streams"
RECOVER = "restore it, or delete the run folder and train again"


def seed_folder(folder: Path, config: TrainConfig, seed: int) -> Path:
    """Return where `seed` of a run at `folder` lies: `folder` itself if it is the only one."""
    return folder if len(config.seeds) == 1 else folder / f"seed-{seed}"


def is_complete(folder: Path) -> bool:
    """Return whether `folder` holds a finished run."""
    return (folder / METRICS).is_file()


def read_object(path: Path) -> dict[str, Any]:
    """Read one of a run's JSON files.

    Raises:
        RunError: it is missing, damaged, or holds no object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds {text[:40]!r}, not an object; {RECOVER}")
    return value


def read_text(path: Path) -> str:
    """Read one of a run's files as UTF-8, line ends as they are.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; {RECOVER}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
