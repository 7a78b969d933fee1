"""A folder of shards, and its videos as one flat table."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.rows import Span, StoredRows
from memfeat.cache.shard import find_odd_vector, open_shard
from memfeat.cache.spec import CacheSpec
from memfeat.cache.video import STATUSES, VideoEntry
from memfeat.errors import CacheError, DamagedShardError


@dataclass(frozen=True)
class FeatureTable:
    """Embeddings of many videos as one flat table.

    Attributes:
        values: float16 (total_frames, width), contiguous.
        pts_seconds: float64 (total_frames,).
        covers: int32 (total_frames,), how many decoded frames, or clips, each one stands for.
        offsets: int64 (videos + 1,); video i has the rows offsets[i]:offsets[i + 1].
        video_ids: (videos,).
        spec: what made them.
    """

    values: NDArray[np.float16]
    pts_seconds: NDArray[np.float64]
    covers: NDArray[np.int32]
    offsets: NDArray[np.int64]
    video_ids: tuple[str, ...]
    spec: CacheSpec

    def __len__(self) -> int:
        return len(self.video_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each video, int64 (videos,)."""
        return np.diff(self.offsets)

    def frames(self, index: int) -> NDArray[np.float16]:
        """Return a view of video `index`'s embeddings, (time, width)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def require_sound(self) -> None:
        """Refuse vectors that are not what the spec promises, such as NaN.

        Raises:
            CacheError: names the first such video.
        """
        found = find_odd_vector(self.values, self.spec)
        if found:
            index = int(np.searchsorted(self.offsets, found[0], side="right")) - 1
            raise CacheError(
                f"the features of video {self.video_ids[index]!r} are damaged: {found[1]}. "
                "`memfeat cache verify` finds the shard; delete it and run `memfeat extract` again"
            )


@dataclass(frozen=True)
class Cache:
    """A folder of shards of one spec.

    Attributes:
        folder: where the shards lie.
        spec: what made all of them.
        entries: by video id; where several shards hold a video, the best status counts.
        rows: where each readable shard's frames lie, by its name.
        damaged: the others, each with what is wrong.
    """

    folder: Path
    spec: CacheSpec
    entries: dict[str, VideoEntry]
    rows: dict[Path, StoredRows]
    damaged: dict[Path, str]

    @property
    def shards(self) -> tuple[Path, ...]:
        """The readable shards, by name."""
        return tuple(self.rows)

    @classmethod
    def open(cls, folder: Path, *, damaged_ok: bool = False) -> Self:
        """Read which videos the shards of `folder` hold; no embedding is read yet.

        Raises:
            CacheError: no cache there, shards of different specs, or (unless `damaged_ok`) a
                shard that cannot be read.
        """
        paths = shard_paths(folder)
        contents: dict[Path, tuple[CacheSpec, list[VideoEntry]]] = {}
        rows: dict[Path, StoredRows] = {}
        damaged: dict[Path, str] = {}
        for path in paths:
            try:
                with open_shard(path) as shard:
                    contents[path] = shard.spec, shard.entries()
                    rows[path] = shard.rows
            except DamagedShardError as error:
                damaged[path] = str(error)
        if damaged and (not damaged_ok or not contents):
            raise CacheError(next(iter(damaged.values())))
        first, (spec, _) = next(iter(contents.items()))
        entries: dict[str, VideoEntry] = {}
        for path, (found, videos) in contents.items():
            spec.require(found, f"{path} was made differently from {first.name} beside it")
            for entry in videos:
                known = entries.setdefault(entry.video_id, entry)
                if STATUSES.index(entry.status) < STATUSES.index(known.status):
                    entries[entry.video_id] = entry
        return cls(folder, spec, entries, rows, damaged)

    def usable(self, *, partial: bool = False) -> tuple[str, ...]:
        """Return the ids of the videos that may be trained on, sorted."""
        allowed = ("ok", "partial") if partial else ("ok",)
        return tuple(sorted(v for v, entry in self.entries.items() if entry.status in allowed))

    def load(self, video_ids: Sequence[str] | None = None) -> FeatureTable:
        """Read the videos named, in that order, or else all that are `ok`, by id.

        Raises:
            CacheError: a video is not cached, has no frames, or a shard cannot be read.
        """
        ids = self.usable() if video_ids is None else tuple(video_ids)
        offsets = self.offsets_of(ids)
        frames = int(offsets[-1])
        values = np.empty((frames, self.spec.width), np.float16)
        pts_seconds, covers = np.empty(frames, np.float64), np.empty(frames, np.int32)
        table = FeatureTable(values, pts_seconds, covers, offsets, ids, self.spec)
        self.fill(table)
        return table

    def offsets_of(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the offsets (videos + 1,) of a table of the videos named.

        Raises:
            CacheError: a video is not cached or has no frames.
        """
        _refuse_missing(video_ids, self.entries, str(self.folder))
        entries = [self.entries[video_id] for video_id in video_ids]
        for entry in entries:
            if entry.num_frames == 0:
                raise CacheError(f"{self.folder}: video {entry.video_id!r} failed ({entry.reason})")
        return np.cumsum([0] + [entry.num_frames for entry in entries], dtype=np.int64)

    def fill(self, table: FeatureTable) -> None:
        """Read the features of `table`'s videos into its arrays.

        Raises:
            CacheError: a shard cannot be read.
        """
        wanted: dict[Path, list[Span]] = {}
        for video_id, target in zip(table.video_ids, table.offsets[:-1].tolist(), strict=True):
            entry = self.entries[video_id]
            wanted.setdefault(entry.shard, []).append(Span(entry.start, entry.stop, target))
        for path, spans in wanted.items():
            columns = table.values, table.pts_seconds, table.covers
            if self.rows[path].read_into(*columns, spans):
                continue
            rows = self._checked_again(path)
            if not rows.read_into(*columns, spans):
                raise CacheError(f"{path} keeps changing; run the same command again when it rests")

    def _checked_again(self, path: Path) -> StoredRows:
        """Look anew at a shard that was written again since the cache was opened.

        Raises:
            CacheError: it has not the same videos in the same rows as then.
        """
        with open_shard(path) as shard:
            self.spec.require(shard.spec, f"{path} was meanwhile made differently")
            if {e for e in self.entries.values() if e.shard == path} <= set(shard.entries()):
                return shard.rows
        raise CacheError(
            f"{path} was meanwhile written again, with other frames; run the same command again"
        )

    def summary(self) -> dict[str, Any]:
        """Return counts, sizes and the spec, ready for JSON."""
        statuses: Counter[str] = Counter(entry.status for entry in self.entries.values())
        reasons = Counter(entry.reason for entry in self.entries.values() if entry.reason)
        return {
            "folder": str(self.folder),
            "videos": {status: statuses[status] for status in STATUSES},
            "reasons": dict(sorted(reasons.items())),
            "frames": sum(entry.num_frames for entry in self.entries.values()),
            "frames_covered": sum(entry.num_covered for entry in self.entries.values()),
            "shards": len(self.shards),
            "damaged_shards": len(self.damaged),
            "bytes": sum(path.stat().st_size for path in self.shards),
            "spec": self.spec.model_dump(mode="json"),
        }


def set_aside_damaged(folder: Path) -> tuple[Path, ...]:
    """Rename the shards of `folder` that cannot be read to `*.damaged`; return their new paths."""
    renamed = []
    for path in sorted(folder.glob("shard-*.h5")):
        try:
            with open_shard(path) as shard:
                shard.entries()
        except DamagedShardError:
            renamed.append(set_aside(path))
    return tuple(renamed)


def set_aside(path: Path) -> Path:
    """Take a bad shard out of its cache by another name, which is returned."""
    return path.rename(path.with_name(f"{path.name}.damaged"))


def verify(folder: Path) -> dict[Path, str]:
    """Check every shard's checksum, vectors and offsets; return what is wrong, by shard.

    Raises:
        CacheError: `folder` holds no cache.
    """
    problems: dict[Path, str] = {}
    paths = shard_paths(folder)
    first: CacheSpec | None = None
    for path in paths:
        try:
            with open_shard(path) as shard:
                shard.verify()
                first = first or shard.spec
                first.require(shard.spec, f"{path} was made differently from {paths[0].name}")
        except CacheError as error:
            problems[path] = str(error)
    return problems


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a folder, by name.

    Raises:
        CacheError: there is none.
    """
    paths = sorted(folder.glob("shard-*.h5"))
    if not paths:
        raise CacheError(f"{folder} holds no cache; `memfeat extract --cache {folder}` makes one")
    return paths


def _refuse_missing(ids: Sequence[str], known: Container[str], where: str) -> None:
    missing = [video_id for video_id in ids if video_id not in known]
    if missing:
        raise CacheError(
            f"{len(missing)} of {len(ids)} videos are not in {where}, {missing[0]!r} first; "
            "`memfeat extract` with the same manifest and cache adds them"
        )
