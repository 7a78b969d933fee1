"""Folds: which videos are held out together, and predictions put together from all folds' models.

A run with folds holds a run for each, `fold-1` and so on, whose model saw neither the fold's videos
nor any of their groups. The run's own predictions are those: each video's by the model that did not
see it, under the split `folds`. Videos in no fold, such as a test set's, get the mean over models.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import RunError
from memfeat.metrics import evaluate, group_indices
from memfeat.runs.files import FOLDS, RECOVER, read_text
from memfeat.runs.predictions import IN_FOLDS, Predictions, split_metrics
from memfeat.storage import format_rows, write_atomically


class Folds(NamedTuple):
    """Columns of `folds.csv`, one entry per video.

    Attributes:
        video_id: as in the manifest.
        fold: int64 (videos,), counted from 1; 0 for a video that is in none.
        group: what stays together; empty for a video by itself.
    """

    video_id: tuple[str, ...]
    fold: NDArray[np.int64]
    group: tuple[str, ...]

    def of(self, video_ids: Sequence[str]) -> "Folds":
        """Return the rows of these videos; one that is not listed is in no fold and no group."""
        rows = zip(self.fold.tolist(), self.group, strict=True)
        known = dict(zip(self.video_id, rows, strict=True))
        found = [known.get(video_id, (0, "")) for video_id in video_ids]
        fold = np.array([number for number, _ in found], np.int64)
        return Folds(tuple(video_ids), fold, tuple(group for _, group in found))

    @property
    def held_out(self) -> "Folds":
        """The rows of the videos that are in a fold."""
        return self.of([self.video_id[at] for at in np.flatnonzero(self.fold)])

    @property
    def num_groups(self) -> int | None:
        """How many groups there are, videos by themselves included; None if no two share one."""
        count = len(set(group_indices(self.group).tolist()))
        return count if count < len(self.group) else None


def write_folds(folder: Path, folds: Folds) -> None:
    """Write the `folds.csv` of a run folder.

    Raises:
        OSError: it cannot be written.
    """
    columns = (folds.video_id, [number or None for number in folds.fold.tolist()], folds.group)
    rows = (dict(zip(Folds._fields, row, strict=True)) for row in zip(*columns, strict=True))
    write_atomically(folder / FOLDS, format_rows(folder / FOLDS, Folds._fields, rows))


def read_folds(folder: Path) -> Folds:
    """Read the `folds.csv` of a run folder.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / FOLDS
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path), newline=""))
        if tuple(header) != Folds._fields:
            raise ValueError(f"it starts with {','.join(header)}, not {','.join(Folds._fields)}")
        video_ids, numbers, groups = zip(*rows, strict=True)
        fold = np.array([int(number or 0) for number in numbers], np.int64)
    except (csv.Error, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
    return Folds(video_ids, fold, groups)


def pooled(parts: Sequence[Predictions], folds: Folds) -> Predictions:
    """Put the predictions of all folds' models together.

    Args:
        parts: of the same videos, by each fold's model, the first fold's first.
        folds: which fold a video is in.
    """
    fold = folds.of(parts[0].video_id).fold
    stacked = np.stack([part.prediction for part in parts])
    own = stacked[np.maximum(fold - 1, 0), np.arange(len(fold))]
    splits = zip(fold.tolist(), parts[0].split, strict=True)
    return parts[0]._replace(
        split=tuple(IN_FOLDS if number else split for number, split in splits),
        prediction=np.where(fold > 0, own, stacked.mean(axis=0)),
    )


def fold_metrics(
    seeds: Sequence[Predictions], folds: Folds, *, bootstrap: int
) -> dict[str, dict[str, Any]]:
    """Compare pooled predictions with the truth, as `metrics.json` has it.

    Intervals are over groups. Of all folds together it also tells how many `groups` there are, if
    videos share any, and the figures `per_fold`, in order.

    Args:
        seeds: one or several pooled predictions of the same videos.
        folds: which fold and group a video is in.
        bootstrap: resamples per interval.
    """
    own = folds.of(seeds[0].video_id)
    found = split_metrics(seeds, bootstrap=bootstrap, groups=own.group)
    metrics = {split: values.as_dict() for split, values in found.items()}
    chosen = seeds[0].scored(IN_FOLDS)
    metrics[IN_FOLDS]["groups"] = own.held_out.num_groups
    metrics[IN_FOLDS]["per_fold"] = [
        {"fold": number} | _figures(seeds, chosen & (own.fold == number))
        for number in range(1, folds.fold.max() + 1)
    ]
    return metrics


def _figures(seeds: Sequence[Predictions], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    predicted = np.stack([seed.prediction[chosen] for seed in seeds])
    values = evaluate(seeds[0].score[chosen], predicted, bootstrap=0).as_dict()
    return {name: values[name] for name in ("n", "plcc", "srocc", "mse")}
