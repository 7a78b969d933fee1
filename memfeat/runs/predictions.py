"""Predictions of a whole manifest: their file, and how well they agree with the truth."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import RunError
from memfeat.manifest import SPLITS
from memfeat.metrics import Metrics, evaluate
from memfeat.runs.files import RECOVER, read_text


class Predictions(NamedTuple):
    """Columns of `predictions.csv`, one entry per video.

    Attributes:
        video_id: as in the manifest.
        split: `train`, `dev` or `test`.
        score: the truth, float64 (videos,), NaN where it is withheld.
        prediction: float64 (videos,).
    """

    video_id: tuple[str, ...]
    split: tuple[str, ...]
    score: NDArray[np.float64]
    prediction: NDArray[np.float64]


def read_predictions(path: Path) -> Predictions:
    """Read a `predictions.csv`.

    Raises:
        RunError: it is missing or damaged.
    """
    rows = list(csv.reader(io.StringIO(read_text(path), newline="")))
    if not rows or tuple(rows[0]) != Predictions._fields:
        header = ",".join(rows[0]) if rows else ""
        raise RunError(f"{path} starts with {header!r}, not {','.join(Predictions._fields)!r}")
    try:
        video_ids, splits, scores, predicted = zip(*rows[1:], strict=True)
        truth = np.array([float(score) if score else np.nan for score in scores])
        return Predictions(video_ids, splits, truth, np.array([float(p) for p in predicted]))
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error


def format_predictions(predictions: Predictions) -> bytes:
    """Return the content of a `predictions.csv`; its numbers read back exactly."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Predictions._fields)
    for video_id, split, score, prediction in zip(*predictions, strict=True):
        truth = "" if np.isnan(score) else repr(float(score))
        writer.writerow([video_id, split, truth, repr(float(prediction))])
    return text.getvalue().encode()


def split_metrics(seeds: Sequence[Predictions], *, bootstrap: int) -> dict[str, Metrics]:
    """Compare predictions with the truth, split by split; a split without scores is left out.

    Args:
        seeds: one or several predictions of the same videos. Of several, each metric is the mean
            over seeds.
        bootstrap: resamples per interval.
    """
    truth, splits = seeds[0].score, np.array(seeds[0].split, dtype=object)
    predicted = np.stack([seed.prediction for seed in seeds])
    metrics: dict[str, Metrics] = {}
    for split in SPLITS:
        chosen = (splits == split) & ~np.isnan(truth)
        if chosen.any():
            metrics[split] = evaluate(truth[chosen], predicted[:, chosen], bootstrap=bootstrap)
    return metrics


def mean_over_seeds(seeds: Sequence[Predictions]) -> Predictions:
    """Return one prediction per video: the mean of several of the same videos."""
    prediction = np.mean([seed.prediction for seed in seeds], axis=0)
    return seeds[0]._replace(prediction=prediction)
