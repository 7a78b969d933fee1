"""Stage 2: a table of features and scored records to a trained run."""

from memfeat.training.data import Examples, Selection, select_records
from memfeat.training.fitting import DevResult, EpochReport, OnEpoch, learning_rate
from memfeat.training.scoring import score
from memfeat.training.seeds import evaluate_run, predict_run, resolve_options, train, versions

__all__ = [
    "DevResult",
    "EpochReport",
    "Examples",
    "OnEpoch",
    "Selection",
    "evaluate_run",
    "learning_rate",
    "predict_run",
    "resolve_options",
    "score",
    "select_records",
    "train",
    "versions",
]
