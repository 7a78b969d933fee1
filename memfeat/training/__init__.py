"""Stage 2: a table of features and scored records to a trained run."""

from memfeat.training.batches import FrameBank, Stream, Videos
from memfeat.training.data import Examples, Features, Tables, read_features, select_records
from memfeat.training.epochs import BestEpoch, DevResult, EpochReport, learning_rate
from memfeat.training.fitting import Fitted, fit
from memfeat.training.scoring import score
from memfeat.training.seeds import (
    evaluate_run,
    finish,
    git_commit,
    predict_run,
    resolve_options,
    train,
    train_seed,
    unfinished,
    versions,
)

__all__ = [
    "BestEpoch",
    "DevResult",
    "EpochReport",
    "Examples",
    "Features",
    "Fitted",
    "FrameBank",
    "Stream",
    "Tables",
    "Videos",
    "evaluate_run",
    "finish",
    "fit",
    "git_commit",
    "learning_rate",
    "predict_run",
    "read_features",
    "resolve_options",
    "score",
    "select_records",
    "train",
    "train_seed",
    "unfinished",
    "versions",
]
