"""Which videos can be trained on: records joined with features."""

import hashlib
import json
import shlex
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import Cache, CacheSpec, FeatureTable
from memfeat.config import Split
from memfeat.errors import TrainingError
from memfeat.manifest import Manifest, VideoRecord
from memfeat.models import AGGREGATORS
from memfeat.runs import Predictions
from memfeat.storage import Location
from memfeat.training.batches import FrameBank, Stream, Videos

SHOWN = 3
LABELS = 0x1ABE15  # keeps the permutation of scores apart from other uses of the same seed


Tables = FeatureTable | Sequence[FeatureTable]


@dataclass(frozen=True)
class Examples:
    """The videos that have both a record and features in every cache, in the records' order.

    Attributes:
        tables: the features, one table for each cache, those of other videos included.
        records: one per video.
        positions: for each table int64 (videos,), where in it each video is.
    """

    tables: tuple[FeatureTable, ...]
    records: tuple[VideoRecord, ...]
    positions: tuple[NDArray[np.int64], ...]

    @classmethod
    def join(cls, tables: Tables, records: Sequence[VideoRecord]) -> Self:
        """Keep the records that have features; `select_records` tells about the others.

        Args:
            tables: one for each cache; a single one may stand for itself.
            records: the videos.

        Raises:
            CacheError: features that are damaged, such as NaN.
        """
        joined = cls._joined(tables, records)
        for table in joined.tables:
            table.require_sound()
        return joined

    @classmethod
    def trusted(
        cls, tables: Tables, records: Sequence[VideoRecord], facts: Mapping[str, Any]
    ) -> Self:
        """Join as `join` does, what has been joined before: no vector is looked at again.

        Args:
            tables: the features.
            records: the videos.
            facts: what `facts` was the first time.
        """
        joined = cls._joined(tables, records)
        joined.__dict__["facts"] = dict(facts)
        return joined

    @classmethod
    def _joined(cls, tables: Tables, records: Sequence[VideoRecord]) -> Self:
        several = (tables,) if isinstance(tables, FeatureTable) else tuple(tables)
        places = [{name: i for i, name in enumerate(table.video_ids)} for table in several]
        kept = tuple(r for r in records if all(r.video_id in place for place in places))
        positions = [np.array([place[r.video_id] for r in kept], np.int64) for place in places]
        return cls(several, kept, tuple(positions))

    @property
    def specs(self) -> tuple[CacheSpec, ...]:
        """What made each cache's features."""
        return tuple(table.spec for table in self.tables)

    @property
    def video_ids(self) -> tuple[str, ...]:
        """Each video's id."""
        return tuple(record.video_id for record in self.records)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Each video's split."""
        return tuple(record.split for record in self.records)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Each video's score, (videos,), NaN where it is withheld."""
        return np.array([np.nan if r.score is None else r.score for r in self.records], np.float64)

    @property
    def datasets(self) -> list[str]:
        """Where the scores come from: the distinct names, in order."""
        return list(dict.fromkeys(r.dataset for r in self.records if r.dataset))

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
        bank = FrameBank(table.values, device, None if of_tokens else table.spec.dim)
        return Stream.covering(bank, table.offsets, table.covers).of(self.positions[stream])

    def _mean_frames(self, stream: int, device: torch.device) -> Stream:
        bank, count = FrameBank(self.means[stream].astype(np.float32), device), len(self.records)
        return Stream(bank, np.arange(count), np.ones(count, np.int64))

    @cached_property
    def means(self) -> tuple[NDArray[np.float64], ...]:
        """For each cache, each video's mean over time of its class tokens, (videos, dim)."""
        return tuple(
            np.stack([_mean_frame(table, position) for position in positions.tolist()])
            for table, positions in zip(self.tables, self.positions, strict=True)
        )

    def labelled(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of a split's videos with a score, in order."""
        chosen = [r.split == split and r.score is not None for r in self.records]
        return np.flatnonzero(chosen)

    def require_splits(self) -> None:
        """Refuse to train without scored videos to learn from and to stop by.

        Raises:
            TrainingError: train or dev has none; the message counts what there is.
        """
        for split in ("train", "dev"):
            if not len(self.labelled(split)):
                found = sum(record.split == split for record in self.records)
                held = f"{found} videos, none with a score" if found else "no video"
                raise TrainingError(
                    f"of the {len(self.records)} videos with features, the {split} split has "
                    f"{held}; give scored videos in train to learn from, and in dev to choose the "
                    "best epoch by"
                )

    def shuffled_scores(self, seed: int) -> NDArray[np.float64]:
        """Return the scores, permuted within train and within dev: the control's labels."""
        scores, source = self.scores, np.random.default_rng([seed, LABELS])
        for split in ("train", "dev"):
            chosen = self.labelled(split)
            scores[chosen] = scores[source.permutation(chosen)]
        return scores

    def columns(self, prediction: NDArray[np.float64]) -> Predictions:
        """Return predictions (videos,) beside the truth."""
        return Predictions(self.video_ids, self.splits, self.scores, prediction)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Where the scores come from, and SHA-256s of all that training depends on but settings.

        Every value of the table is read for it.
        """
        labels = [[r.video_id, r.split, r.score] for r in self.records]
        content = hashlib.sha256(json.dumps(labels).encode())
        for table, positions in zip(self.tables, self.positions, strict=True):
            content.update(table.lengths[positions].tobytes())
            for position in positions.tolist():
                content.update(np.ascontiguousarray(table.frames(position)).data)
            if (table.covers != 1).any():
                for position in positions.tolist():
                    content.update(_covers(table, position).tobytes())
        return {
            "datasets": self.datasets,
            "manifest_sha256": Manifest(Path(), self.records).digest,
            "data_sha256": content.hexdigest(),
        }


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


@dataclass(frozen=True)
class Selection:
    """The videos of a manifest that can be used.

    Attributes:
        records: those with features, in the manifest's order.
        notes: a line for the user for each kind of video that goes unused.
    """

    records: tuple[VideoRecord, ...]
    notes: tuple[str, ...]


def select_records(manifest: Manifest, *caches: Cache, partial: bool = False) -> Selection:
    """Select the videos that have features in every cache; those that failed are left out.

    Args:
        manifest: names the videos.
        caches: have their features.
        partial: whether to use videos that could be decoded only in part.

    Raises:
        TrainingError: videos of the manifest were never extracted; says how many, which, into
            which cache, and the command that does it.
    """
    missing = [message for cache in caches if (message := _missing(manifest, cache))]
    if missing:
        raise TrainingError("; ".join(missing))
    usable = set.intersection(*(set(cache.usable(partial=partial)) for cache in caches))
    notes = dict.fromkeys(note for cache in caches for note in _left_out(manifest, cache, usable))
    records = tuple(record for record in manifest.records if record.video_id in usable)
    return Selection(records, tuple(notes))


@dataclass(frozen=True)
class Features:
    """Videos of a manifest with their features.

    Attributes:
        records: the videos, in the manifest's order.
        tables: their features, one table for each cache.
        notes: a line for the user for each kind of video that goes unused.
    """

    records: tuple[VideoRecord, ...]
    tables: tuple[FeatureTable, ...]
    notes: tuple[str, ...]


def read_features(
    manifest: Manifest,
    folders: Sequence[Location],
    *,
    split: Split | None = None,
    partial: bool = False,
) -> Features:
    """Read a manifest's videos from caches, whose shards are compared with their checksums.

    Args:
        manifest: names the videos.
        folders: of the caches.
        split: only its videos.
        partial: whether to use videos that could be decoded only in part.

    Raises:
        TrainingError: videos of the manifest were never extracted; see `select_records`.
        CacheError: a cache cannot be read, or differs from its checksums.
    """
    caches = [Cache.open(folder) for folder in folders]
    selection = select_records(manifest, *caches, partial=partial)
    records = tuple(record for record in selection.records if split in (None, record.split))
    video_ids = [record.video_id for record in records]
    for cache in caches:
        cache.require_whole(video_ids)
    tables = tuple(cache.load(video_ids) for cache in caches)
    return Features(records, tables, selection.notes)


def _missing(manifest: Manifest, cache: Cache) -> str:
    """Say which videos were never extracted into a cache; nothing if all were."""
    missing = [r.video_id for r in manifest.records if r.video_id not in cache.entries]
    if not missing:
        return ""
    paths = [shlex.quote(str(path)) for path in (manifest.path, cache.folder)]
    how = (
        f"Import them first: memfeat cache import SRC --cache {paths[1]}"
        if cache.spec.is_imported
        else f"Extract them first: memfeat extract --manifest {paths[0]} --cache {paths[1]}"
    )
    name = "name" if cache.spec.is_imported else "encoder"
    return (
        f"{len(missing)} of the {len(manifest.records)} videos of {manifest.path} have no "
        f"features in {cache.folder}: {_some(missing)}. {how} "
        f"--{name} {shlex.quote(cache.spec.encoder)}"
    )


def _left_out(manifest: Manifest, cache: Cache, usable: Container[str]) -> Iterator[str]:
    for status in ("partial", "failed"):
        left_out = [
            video_id
            for video_id in manifest.by_id
            if video_id not in usable and cache.entries[video_id].status == status
        ]
        if left_out:
            yield f"{len(left_out)} {status} videos are left out: {_some(left_out)}"
    unlabelled = [video_id for video_id in cache.entries if video_id not in manifest.by_id]
    if unlabelled:
        yield (
            f"{len(unlabelled)} videos of {cache.folder} are not in {manifest.path} and go unused: "
            f"{_some(unlabelled)}"
        )


def _some(video_ids: Sequence[str]) -> str:
    more = len(video_ids) - SHOWN
    return ", ".join(map(repr, video_ids[:SHOWN])) + (f" and {more} more" if more > 0 else "")
