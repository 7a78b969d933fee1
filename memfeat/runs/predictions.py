"""Predictions for the videos of a manifest: their file, and their metrics by split."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import RunError, short_repr
from memfeat.manifest import SPLITS, check_id
from memfeat.metrics import Metrics, evaluate
from memfeat.runs.files import RECOVER, read_text
from memfeat.storage import format_rows, parse_number, write_atomically

IN_FOLDS = "folds"  # the split of videos that were predicted by a model of other folds
PREDICTED_SPLITS = (IN_FOLDS, *SPLITS)


def split_in_words(split: str) -> str:
    """Return what a split of predictions is called: the folds' are those between folds."""
    return "between folds" if split == IN_FOLDS else f"{split} split"


class Predictions(NamedTuple):
    """Columns of `predictions.csv`, one entry per video.

    Attributes:
        video_id: as in the manifest.
        split: `train`, `dev` or `test`; or `folds`, see `memfeat.runs.folds`.
        score: the truth, float64 (videos,), NaN where it is withheld.
        prediction: float64 (videos,).
    """

    video_id: tuple[str, ...]
    split: tuple[str, ...]
    score: NDArray[np.float64]
    prediction: NDArray[np.float64]

    def of(self, video_ids: Sequence[str]) -> "Predictions":
        """Return the rows of these videos, in this order."""
        index_of = {video_id: index for index, video_id in enumerate(self.video_id)}
        at = [index_of[video_id] for video_id in video_ids]
        return Predictions(
            tuple(video_ids), tuple(self.split[i] for i in at), self.score[at], self.prediction[at]
        )

    def of_split(self, split: str) -> "Predictions":
        """Return the rows of a split's videos with a score."""
        return self.of([self.video_id[at] for at in np.flatnonzero(self.scored(split))])

    def scored(self, split: str) -> NDArray[np.bool_]:
        """Return which videos are of a split and have a score, bool (videos,)."""
        of_split: NDArray[np.bool_] = np.array(self.split, dtype=object) == split
        return of_split & ~np.isnan(self.score)

    @property
    def held_out(self) -> str:
        """The split to learn a model's usual errors from: `folds` if there are any, or `dev`."""
        return IN_FOLDS if IN_FOLDS in self.split else "dev"

    @property
    def learned(self) -> str:
        """The split of the videos that were learned from: `folds` if there are any, or `train`."""
        return IN_FOLDS if IN_FOLDS in self.split else "train"


def read_predictions(path: Path) -> Predictions:
    """Read a `predictions.csv`.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
    if not rows or tuple(rows[0]) != Predictions._fields:
        header = ",".join(rows[0]) if rows else ""
        raise RunError(
            f"{path} starts with {short_repr(header)}, not {','.join(Predictions._fields)!r}"
        )
    try:
        video_ids, splits, scores, predicted = zip(*rows[1:], strict=True)
        truth = np.array([finite(score) if score else np.nan for score in scores])
        found = Predictions(video_ids, splits, truth, np.array([finite(p) for p in predicted]))
        _check_columns(found)
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
    return found


def finite(text: str) -> float:
    """Return the number that a cell holds.

    Raises:
        ValueError: it is none, or not a finite one.
    """
    number = parse_number(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def _check_columns(found: Predictions) -> None:
    for video_id in found.video_id:
        try:
            check_id(video_id)
        except ValueError as error:
            raise ValueError(f"id {short_repr(video_id)} {error}") from None
    if len(set(found.video_id)) < len(found.video_id):
        raise ValueError("it holds a video twice")
    for split in found.split:
        if split not in PREDICTED_SPLITS:
            allowed = ", ".join(PREDICTED_SPLITS)
            raise ValueError(f"{short_repr(split)} is not a split; allowed are {allowed}")
    if np.any((found.score < 0) | (found.score > 1)):
        raise ValueError("a score is not in [0, 1]")


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a `predictions.csv`, from which numbers are read back exactly.

    Raises:
        OSError: it cannot be written.
    """
    scores = [None if np.isnan(score) else score for score in predictions.score.tolist()]
    columns = (*predictions[:2], scores, predictions.prediction.tolist())
    names = Predictions._fields
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    write_atomically(path, format_rows(path, names, rows))


def split_metrics(
    seeds: Sequence[Predictions], *, bootstrap: int, groups: Sequence[str] = ()
) -> dict[str, Metrics]:
    """Compare predictions with the truth, split by split; splits without scores are left out.

    Args:
        seeds: one or several predictions of the same videos; of several, each metric is the mean
            over seeds.
        bootstrap: resamples per interval.
        groups: each video's group, for intervals over groups; see `evaluate`.
    """
    predicted = np.stack([seed.prediction for seed in seeds])
    metrics: dict[str, Metrics] = {}
    named: NDArray[np.object_] = np.array(groups, dtype=object)
    for split in PREDICTED_SPLITS:
        chosen = seeds[0].scored(split)
        if chosen.any():
            truth = seeds[0].score[chosen]
            own = named[chosen].tolist() if groups else ()
            metrics[split] = evaluate(truth, predicted[:, chosen], bootstrap=bootstrap, groups=own)
    return metrics


def mean_over_seeds(seeds: Sequence[Predictions]) -> Predictions:
    """Average several predictions of the same videos."""
    return seeds[0]._replace(prediction=np.mean([seed.prediction for seed in seeds], axis=0))
