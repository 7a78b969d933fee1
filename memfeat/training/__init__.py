"""Stage 2: a table of features and scored records to a trained run."""

from memfeat.training.batches import Stream, Videos
from memfeat.training.evaluation import evaluate_run, predict_run
from memfeat.training.examples import Examples, Tables
from memfeat.training.fitting import (
    BestEpoch,
    DevResult,
    EpochReport,
    Fitted,
    fit,
    learning_rate,
    score,
)
from memfeat.training.reading import Features, read_features, select_records
from memfeat.training.seeds import (
    differences_in_settings,
    finish,
    require_trainable,
    resolve_options,
    train,
    train_seed,
    training_device,
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
    "Stream",
    "Tables",
    "Videos",
    "differences_in_settings",
    "evaluate_run",
    "finish",
    "fit",
    "learning_rate",
    "predict_run",
    "read_features",
    "require_trainable",
    "resolve_options",
    "score",
    "select_records",
    "train",
    "train_seed",
    "training_device",
    "unfinished",
    "versions",
]
