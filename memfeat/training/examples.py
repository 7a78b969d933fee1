"""What is trained on: records joined with their features."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import CacheSpec, FeatureTable
from memfeat.config import Split
from memfeat.errors import TrainingError
from memfeat.manifest import Manifest, VideoRecord
from memfeat.models import AGGREGATORS
from memfeat.runs import FamiliarVideos, Predictions, shown_seconds
from memfeat.training.batches import Stream, Videos
from memfeat.training.familiar import sum_up
from memfeat.training.reading import require_splits, scores_of

LABELS = 0x1ABE15  # keeps the permutation of scores apart from other uses of the same seed

Tables = FeatureTable | Sequence[FeatureTable]


@dataclass(frozen=True)
class Examples:
    """The videos that have both a record and features in every cache, in the records' order.

    Attributes:
        tables: the features, one table for each cache, those of other videos included.
        records: one per video.
        positions: for each table int64 (videos,), each video's index in it.
        splits: each video's split: the record's, or another role; see `divided`.
        listed: all records, those without features included.
    """

    tables: tuple[FeatureTable, ...]
    records: tuple[VideoRecord, ...]
    positions: tuple[NDArray[np.int64], ...]
    splits: tuple[str, ...]
    listed: tuple[VideoRecord, ...]

    @classmethod
    def join(
        cls,
        tables: Tables,
        records: Sequence[VideoRecord],
        facts: Mapping[str, Any] | None = None,
    ) -> Self:
        """Keep the records that have features; `select_records` tells about the others.

        Given what `facts` was when they were joined before, no feature is read again.

        Raises:
            CacheError: features that are damaged, such as NaN.
        """
        several = (tables,) if isinstance(tables, FeatureTable) else tuple(tables)
        indices = [{name: i for i, name in enumerate(table.video_ids)} for table in several]
        kept = tuple(r for r in records if all(r.video_id in index for index in indices))
        positions = [np.array([index[r.video_id] for r in kept], np.int64) for index in indices]
        splits = tuple(record.split for record in kept)
        joined = cls(several, kept, tuple(positions), splits, tuple(records))
        if facts is not None:
            joined.__dict__["facts"] = dict(facts)
            return joined
        for table in several:
            table.require_sound()
        return joined

    def divided(self, splits: Sequence[str]) -> Self:
        """Return the same videos in other splits, (videos,); no feature is read again."""
        facts, parts = dict(self.facts), [splits[at] for at in self._learnt]
        for name, own in (("data_sha256", list(splits)), ("training_sha256", parts)):
            facts[name] = hashlib.sha256(json.dumps([facts[name], own]).encode()).hexdigest()
        divided = replace(self, splits=tuple(splits))
        # Where a cached_property keeps its value.
        divided.__dict__.update(means=self.means, facts=facts)
        return divided

    @property
    def specs(self) -> tuple[CacheSpec, ...]:
        """What made each cache's features."""
        return tuple(table.spec for table in self.tables)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Each video's score, (videos,), NaN where it is withheld."""
        return scores_of(self.records)

    @property
    def datasets(self) -> list[str]:
        """Where the scores come from: the distinct names, in order."""
        return list(Manifest(Path(), self.records).datasets)

    @cached_property
    def means(self) -> tuple[NDArray[np.float64], ...]:
        """For each cache, each video's mean over time of its class tokens, (videos, dim)."""
        return tuple(
            np.stack([_mean_frame(table, position) for position in positions.tolist()])
            for table, positions in zip(self.tables, self.positions, strict=True)
        )

    @cached_property
    def familiar(self) -> FamiliarVideos:
        """What the scored videos of the train split are like, to tell others from them."""
        train, dev = self.labelled("train"), self.labelled("dev")
        features = np.hstack(self.means)
        seconds, frames = np.array([self._length(video) for video in train.tolist()]).T
        frames *= self.specs[self._shown].clip_frames
        rates = np.divide(frames, seconds, out=np.zeros_like(frames), where=seconds > 0)
        sizes = self.tables[self._shown].frame_sizes[self.positions[self._shown][train]]
        width, height = sizes.astype(np.float64).T
        aspects = np.divide(width, height, out=np.zeros_like(width), where=height > 0)
        return sum_up(features[train], features[dev], seconds, rates, aspects)

    @property
    def _shown(self) -> int:
        """The first cache of frames; the first of all if there is none."""
        return next((i for i, spec in enumerate(self.specs) if not spec.is_text), 0)

    def _length(self, video: int) -> tuple[float, float]:
        """Return how many seconds a video lasts, and its frames, or clips; of texts neither."""
        table, position = self.tables[self._shown], int(self.positions[self._shown][video])
        if table.spec.is_text:
            return 0.0, 0.0
        covers = _covers(table, position)
        rows = slice(table.offsets[position], table.offsets[position + 1])
        return shown_seconds(table.pts_seconds[rows], covers), float(covers.sum())

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Where the scores come from, and SHA-256s of what a run's files depend on but settings.

        `data_sha256` is of all videos, `training_sha256` of those that training sees: in train and
        dev, with a score. Every value of the table is read for it; but of videos that were
        `divided`, both follow from those of before and the new splits.
        """
        return {
            "datasets": self.datasets,
            "manifest_sha256": Manifest(Path(), self.records).digest,
            "data_sha256": self._digest(np.arange(len(self.records))),
            "training_sha256": self._digest(self._learnt),
        }

    @property
    def _learnt(self) -> NDArray[np.int64]:
        """The indices of the videos that training sees."""
        return np.concatenate([self.labelled("train"), self.labelled("dev")])

    def _digest(self, videos: NDArray[np.int64]) -> str:
        """Return the SHA-256 of ids, splits, scores and features of videos, given by index."""
        chosen = [(self.records[index], self.splits[index]) for index in videos]
        labels = [[record.video_id, split, record.score] for record, split in chosen]
        content = hashlib.sha256(json.dumps(labels).encode())
        for table, every in zip(self.tables, self.positions, strict=True):
            positions = every[videos]
            content.update(table.lengths[positions].tobytes())
            for position in positions.tolist():
                content.update(np.ascontiguousarray(table.frames(position)).data)
            if (table.covers != 1).any():
                for position in positions.tolist():
                    content.update(_covers(table, position).tobytes())
        return content.hexdigest()

    def videos(
        self, device: torch.device, aggregators: Sequence[str], *, averaged: bool = False
    ) -> Videos:
        """Return each video's frames in each cache, for batches to be made on a device.

        Args:
            device: where.
            aggregators: what each cache's frames are for.
            averaged: whether a video's mean frame is to stand for its frames where an aggregator
                needs no more.
        """
        pools = [AGGREGATORS.get(name) for name in aggregators]
        return Videos(
            tuple(
                self._mean_frames(stream, device)
                if averaged and pool.of_the_mean
                else self._frames(stream, device, of_tokens=pool.of_tokens)
                for stream, pool in enumerate(pools)
            )
        )

    def _frames(self, stream: int, device: torch.device, *, of_tokens: bool) -> Stream:
        table = self.tables[stream]
        columns = None if of_tokens else table.spec.dim
        whole = Stream.of_table(table.values, table.offsets, table.covers, device, columns)
        return whole.of(self.positions[stream])

    def _mean_frames(self, stream: int, device: torch.device) -> Stream:
        means = self.means[stream].astype(np.float32)
        once = np.ones(len(means), np.int32)
        return Stream.of_table(means, np.arange(len(means) + 1), once, device)

    def labelled(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of a split's videos with a score, in order."""
        pairs = zip(self.records, self.splits, strict=True)
        return np.flatnonzero([own == split and r.score is not None for r, own in pairs])

    def require_splits(self) -> None:
        """Refuse to train without scored videos in train and dev; see `require_splits`."""
        require_splits(self.records, "videos with features", self.splits)

    def annotation_weights(self, videos: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how many answers each of some videos has, given by index, over their mean.

        Raises:
            TrainingError: the manifest does not say for all of them.
        """
        counts = np.array([self.records[index].n_annotations or 0 for index in videos], np.float64)
        if not counts.all():
            raise TrainingError(
                f"{np.sum(counts == 0)} of {len(counts)} training videos have no n_annotations in "
                "the manifest to be weighted by; add them, or leave weight_by_annotations out"
            )
        weights: NDArray[np.float64] = counts / counts.mean()
        return weights

    def shuffled_scores(self, seed: int) -> NDArray[np.float64]:
        """Return the scores, permuted within train and within dev: the control's labels."""
        scores, source = self.scores, np.random.default_rng([seed, LABELS])
        for split in ("train", "dev"):
            chosen = self.labelled(split)
            scores[chosen] = scores[source.permutation(chosen)]
        return scores

    def columns(self, prediction: NDArray[np.float64]) -> Predictions:
        """Return predictions (videos,) beside the truth."""
        ids = tuple(record.video_id for record in self.records)
        return Predictions(ids, self.splits, self.scores, prediction)


def _mean_frame(table: FeatureTable, position: int) -> NDArray[np.float64]:
    """Return a video's mean over time, in which each row counts as often as it covers frames."""
    frames = table.frames(position)[:, : table.spec.dim]
    covers = _covers(table, position)
    mean: NDArray[np.float64]
    if (covers == 1).all():
        mean = frames.mean(axis=0, dtype=np.float64)
    else:
        mean = covers @ frames.astype(np.float64) / covers.sum()
    return mean


def _covers(table: FeatureTable, position: int) -> NDArray[np.int32]:
    return table.covers[table.offsets[position] : table.offsets[position + 1]]
