"""The predictions of a grid's cells for the split that its table reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from memfeat.ablation.grid import Cell, cell_folder
from memfeat.ablation.progress import model_folders
from memfeat.cache import Cache, CacheSpec
from memfeat.config import AblationConfig, Ensemble
from memfeat.errors import RunError
from memfeat.metrics import Difference, Metrics, evaluate, paired_difference
from memfeat.runs import (
    PREDICTIONS,
    PROVENANCE,
    Folds,
    Predictions,
    read_folds,
    read_object,
    read_predictions,
    write_predictions,
)
from memfeat.storage import Location
from memfeat.training.folds import NOTHING


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

    @classmethod
    def of_predictions(
        cls,
        cell: Cell,
        split: str,
        seeds: Sequence[Predictions],
        folds: Folds | None,
        *,
        specs: tuple[CacheSpec, ...] = (),
        frames_kept: float = 1.0,
        provenance: Mapping[str, Any] = NOTHING,
    ) -> Self:
        """Take the scored videos of a split from each seed's predictions, of the same videos."""
        own = [each.of_split(split) for each in seeds]
        ids, _, truth, _ = own[0]
        predicted = np.stack([each.prediction for each in own])
        of_these = folds and folds.of(ids)
        return cls(cell, specs, frames_kept, ids, truth, predicted, provenance, of_these)

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
    columns = [predictions_of(member.cell) for member in members]
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
    write_predictions(run.run / PREDICTIONS, predictions)
    shares = dict(zip(ensemble.members, weights.round(3).tolist(), strict=True))
    return CellResult.of_predictions(
        Cell(ensemble.name, "ensemble", run),
        split,
        [predictions],
        members[0].folds,
        specs=tuple(dict.fromkeys(spec for member in members for spec in member.specs)),
        frames_kept=min(member.frames_kept for member in members),
        provenance={"members": shares},
    )


def predictions_of(cell: Cell) -> Predictions:
    """Read a finished cell's predictions of all videos, the mean over seeds."""
    return read_predictions(cell.config.run / PREDICTIONS)


def read_cell(split: str, cell: Cell, open_cache: Callable[[Location], Cache]) -> CellResult:
    """Read a finished cell's predictions for a split.

    Raises:
        MemfeatError: its run folder or cache cannot be read, or its seeds do not fit each other.
    """
    run = cell.config
    folders = model_folders(cell)
    seeds = [read_predictions(folder / PREDICTIONS) for folder in folders]
    for folder, each in zip(folders, seeds, strict=True):
        if each.video_id != seeds[0].video_id:
            raise RunError(f"{folder} predicts other videos than {folders[0]}; train again")
    caches = [open_cache(folder) for folder in run.cache]
    return CellResult.of_predictions(
        cell,
        split,
        seeds,
        read_folds(run.run) if run.folds else None,
        specs=tuple(cache.spec for cache in caches),
        frames_kept=_share_kept(caches),
        provenance=read_object(run.run / PROVENANCE),
    )


def _share_kept(caches: Sequence[Cache]) -> float:
    """Return the share of all frames that is cached; a cached frame may stand for several."""
    entries = [entry for cache in caches for entry in cache.entries.values()]
    covered = sum(entry.num_covered for entry in entries)
    return sum(entry.num_frames for entry in entries) / covered if covered else 1.0
