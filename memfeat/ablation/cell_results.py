"""The predictions of a grid's cells for the split that its table reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from memfeat.ablation.grid import Cell, cell_folder
from memfeat.cache import Cache, CacheSpec
from memfeat.config import AblationConfig, Ensemble
from memfeat.errors import RunError
from memfeat.metrics import Difference, Metrics, evaluate, paired_difference
from memfeat.runs import (
    PREDICTIONS,
    PROVENANCE,
    Folds,
    Predictions,
    format_predictions,
    read_folds,
    read_object,
    read_predictions,
    seed_folder,
)
from memfeat.storage import Location, write_atomically


@dataclass(frozen=True)
class CellResult:
    """A finished cell's predictions for the table's split."""

    cell: Cell
    specs: tuple[CacheSpec, ...]
    frames_kept: float
    video_ids: tuple[str, ...]
    truth: NDArray[np.float64]  # (videos,)
    predictions: NDArray[np.float64]  # (seeds, videos)
    provenance: Mapping[str, Any]
    folds: Folds | None  # of these videos

    def of(self, video_ids: Sequence[str]) -> "CellResult":
        """Return the result for these videos, in this order."""
        index_of = {video_id: index for index, video_id in enumerate(self.video_ids)}
        chosen = [index_of[video_id] for video_id in video_ids]
        return replace(
            self,
            video_ids=tuple(video_ids),
            truth=self.truth[chosen],
            predictions=self.predictions[:, chosen],
            folds=self.folds and self.folds.of(video_ids),
        )

    @property
    def groups(self) -> Sequence[str]:
        """Each video's group, for intervals over groups; empty without folds."""
        return self.folds.group if self.folds else ()

    @cached_property
    def metrics(self) -> Metrics:
        """The means over seeds, their spread, and their intervals over videos or groups."""
        bootstrap = self.cell.config.bootstrap
        return evaluate(self.truth, self.predictions, bootstrap=bootstrap, groups=self.groups)

    def minus(self, other: "CellResult") -> Difference:
        """Return the paired difference in SROCC from another result on the same videos."""
        return paired_difference(
            self.truth,
            self.predictions,
            other.predictions,
            bootstrap=self.cell.config.bootstrap,
            groups=self.groups,
        )

    def per_fold(self) -> list[float | None]:
        """Return each fold's SROCC, the mean over seeds."""
        fold = self.folds.fold if self.folds else np.empty(0, np.int64)
        chosen = (fold == number for number in range(1, self.cell.config.folds + 1))
        return [
            evaluate(self.truth[own], self.predictions[:, own], bootstrap=0).srocc for own in chosen
        ]


def average_cells(
    config: AblationConfig, split: str, ensemble: Ensemble, results: Sequence[CellResult]
) -> CellResult:
    """Average rows, write the predictions for all videos that all of them have, and return it."""
    named = {result.cell.name: result for result in results}
    members = [named[name] for name in ensemble.members]
    columns = [_predictions(member.cell) for member in members]
    in_all = set(columns[0].video_id).intersection(*(each.video_id for each in columns))
    ids = [video_id for video_id in columns[0].video_id if video_id in in_all]
    every = [each.of(ids) for each in columns]
    stacked = np.stack([each.prediction for each in every])
    weights = np.full(len(members), 1 / len(members))
    if ensemble.weights == "dev":
        dev = every[0].scored("dev")
        fitted, _ = nnls(stacked[:, dev].T, every[0].score[dev])
        weights = fitted / fitted.sum() if fitted.sum() else weights
    predictions = every[0]._replace(prediction=weights @ stacked)
    run = members[0].cell.config.model_copy(update={"run": cell_folder(config, ensemble.name)})
    write_atomically(run.run / PREDICTIONS, format_predictions(predictions))
    chosen = predictions.scored(split)
    kept = tuple(np.array(ids, dtype=object)[chosen])
    return CellResult(
        Cell(ensemble.name, "ensemble", run),
        tuple(dict.fromkeys(spec for member in members for spec in member.specs)),
        min(member.frames_kept for member in members),
        kept,
        predictions.score[chosen],
        predictions.prediction[None, chosen],
        {"members": dict(zip(ensemble.members, weights.round(3).tolist(), strict=True))},
        _folds(members[0].cell, kept),
    )


def _predictions(cell: Cell) -> Predictions:
    """Read a finished cell's predictions of all videos, the mean over seeds."""
    return read_predictions(cell.config.run / PREDICTIONS)


def _folds(cell: Cell, video_ids: Sequence[str]) -> Folds | None:
    """Read which fold and group videos are in, of a cell that has folds."""
    return read_folds(cell.config.run).of(video_ids) if cell.config.folds else None


def read_cell(split: str, cell: Cell, open_cache: Callable[[Location], Cache]) -> CellResult:
    """Read a finished cell's predictions for a split.

    Raises:
        MemfeatError: its run folder or cache cannot be read, or its seeds do not fit each other.
    """
    run = cell.config
    is_baseline = cell.kind == "baseline"
    folders = [run.run] if is_baseline else [seed_folder(run.run, run, s) for s in run.seeds]
    columns = [read_predictions(folder / PREDICTIONS) for folder in folders]
    first = columns[0]
    for folder, each in zip(folders, columns, strict=True):
        if each.video_id != first.video_id:
            raise RunError(f"{folder} predicts other videos than {folders[0]}; train again")
    chosen = first.scored(split)
    kept = tuple(np.array(first.video_id, dtype=object)[chosen])
    caches = [open_cache(folder) for folder in run.cache]
    return CellResult(
        cell,
        tuple(cache.spec for cache in caches),
        _share_kept(caches),
        kept,
        first.score[chosen],
        np.stack([each.prediction[chosen] for each in columns]),
        read_object(run.run / PROVENANCE),
        _folds(cell, kept),
    )


def _share_kept(caches: Sequence[Cache]) -> float:
    """Return the share of all frames that is cached; a cached frame may stand for several."""
    entries = [entry for cache in caches for entry in cache.entries.values()]
    covered = sum(entry.num_covered for entry in entries)
    return sum(entry.num_frames for entry in entries) / covered if covered else 1.0
