"""The run folder: the result of one training, written and read back.

====================  ==============================================================================
file                  content
====================  ==============================================================================
config.json           the `TrainConfig` used, with all options of the model
cache_spec.json       the `CacheSpec` of the features; of several caches, a list under `streams`
familiar.safetensors  what the training videos are like, see `FamiliarVideos`
history.jsonl         a line per epoch
model.safetensors     the best epoch's weights
predictions.csv       video_id, split, score (empty if withheld), prediction
provenance.json       versions, commit, data, time taken; all other files repeat byte for byte
metrics.json          metrics by split; written last, so a folder with it is complete
====================  ==============================================================================

Several seeds are several such folders, `seed-0` and so on, in one without history and model: its
predictions are the mean over seeds, its metrics their mean and standard deviation. So are folds,
`fold-1` and so on, in a seed's folder; see `memfeat.runs.folds`.
"""

from memfeat.runs.calibration import Calibration
from memfeat.runs.familiar import FamiliarVideos, shown_seconds
from memfeat.runs.files import (
    ABLATION,
    FAMILIAR,
    FINETUNED,
    METRICS,
    MODEL,
    NO_SOURCE,
    PREDICTIONS,
    PROVENANCE,
    TRANSFER,
    is_complete,
    pair_folder,
    read_object,
    seed_folders,
)
from memfeat.runs.folds import Folds, pooled, read_folds
from memfeat.runs.predictions import (
    IN_FOLDS,
    Predictions,
    mean_over_seeds,
    read_predictions,
    split_in_words,
    split_metrics,
    write_predictions,
)
from memfeat.runs.run import Run
from memfeat.runs.writing import begin_run, finish_seed, write_pooled, write_scores

__all__ = [
    "ABLATION",
    "FAMILIAR",
    "FINETUNED",
    "IN_FOLDS",
    "METRICS",
    "MODEL",
    "NO_SOURCE",
    "PREDICTIONS",
    "PROVENANCE",
    "TRANSFER",
    "Calibration",
    "FamiliarVideos",
    "Folds",
    "Predictions",
    "Run",
    "begin_run",
    "finish_seed",
    "is_complete",
    "mean_over_seeds",
    "pair_folder",
    "pooled",
    "read_folds",
    "read_object",
    "read_predictions",
    "seed_folders",
    "shown_seconds",
    "split_in_words",
    "split_metrics",
    "write_pooled",
    "write_predictions",
    "write_scores",
]
