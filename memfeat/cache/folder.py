"""A cache: a folder of shards, read as one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.rows import Span, StoredRows, ZeroRows
from memfeat.cache.shard import open_shard
from memfeat.cache.spec import NO_TEXT, CacheSpec
from memfeat.cache.table import FeatureTable, VideoFeatures
from memfeat.cache.video import STATUSES, VideoEntry
from memfeat.config import Missing
from memfeat.errors import CacheError, DamagedShardError, counted
from memfeat.storage import AnyLocation, Location, Mirror, Url, location_of, shards_at

NOWHERE = Path("no shard")  # where the zeros come from that stand for missing texts


@dataclass(frozen=True)
class Cache:
    """A folder of shards of one spec.

    Examples:
        >>> import memfeat
        >>> cache = memfeat.Cache.open("cache/mine/efficientnet-lite0")
        >>> vectors, pts_seconds = cache["clip_0001"]
        >>> table = cache.table()
        >>> table.offsets.shape == (len(table.video_ids) + 1,)
        True

    Attributes:
        folder: where the shards lie; those of a URL are read from a copy.
        spec: what made all of them.
        entries: by video id; where several shards hold a video, the one of its latest attempt, or
            else of the best status.
        rows: each readable shard's frames, by its path.
        damaged: the other shards, each with what is wrong.
        reasons: why videos failed or are partial, also in earlier attempts.
    """

    folder: Location
    spec: CacheSpec
    entries: dict[str, VideoEntry]
    rows: Mapping[Path, StoredRows | ZeroRows]
    damaged: dict[Path, str]
    reasons: frozenset[str]

    def __repr__(self) -> str:  # entries and rows would fill pages of a notebook
        return (
            f"<Cache {self.folder}: {counted(len(self.entries), 'video')}; {self.spec.describe()}>"
        )

    @property
    def shards(self) -> tuple[Path, ...]:
        """The readable shards, by name."""
        return tuple(path for path in self.rows if path != NOWHERE)

    @classmethod
    def open(
        cls, folder: AnyLocation, *, damaged_ok: bool = False, missing: Missing = "drop"
    ) -> Self:
        """Read which videos the shards of `folder` hold; no embedding is read yet.

        Of a remote folder the shards that this machine has no copy of are fetched. With `missing`
        set to `zero`, a row of zeros is what a cache of texts holds of a video without one.

        Raises:
            CacheError: no cache there, shards of different specs, or (unless `damaged_ok`) a
                shard that cannot be read.
            RemoteError: a remote folder that cannot be fetched.
        """
        cache, problems = cls.scan(location_of(folder))
        if cache is None:
            raise next(iter(problems.values()))
        for problem in problems.values():
            if not (damaged_ok and isinstance(problem, DamagedShardError)):
                raise problem
        return cache._with_zeros() if missing == "zero" and cache.spec.is_text else cache

    def _with_zeros(self) -> Self:
        entries = {
            name: replace(entry, status="ok", reason="", start=0, stop=1, shard=NOWHERE)
            if entry.reason == NO_TEXT
            else entry
            for name, entry in self.entries.items()
        }
        return replace(self, entries=entries, rows={**self.rows, NOWHERE: ZeroRows()})

    @property
    def zeros(self) -> tuple[str, ...]:
        """The videos for which zeros stand, sorted."""
        return tuple(sorted(v for v, entry in self.entries.items() if entry.shard == NOWHERE))

    @classmethod
    def scan(cls, folder: Location) -> tuple[Self | None, dict[Path, CacheError]]:
        """Open the shards that can be used together, and collect the errors of the others.

        Returns:
            The cache, None if no shard can be used; and the errors of the shards that are
            damaged, or made by another version or differently from the first one.

        Raises:
            CacheError: no cache there.
            RemoteError: a remote folder that cannot be fetched.
        """
        problems: dict[Path, CacheError] = {}
        rows: dict[Path, StoredRows] = {}
        entries: dict[str, VideoEntry] = {}
        reasons: set[str] = set()
        spec: CacheSpec | None = None
        for path in shard_paths(folder):
            try:
                with open_shard(path) as shard:
                    found = shard.entries()
                    spec = spec or shard.spec
                    first = next(iter(rows), path)
                    why = f"{path} was made differently from {first.name} beside it"
                    spec.require(shard.spec, why)
                    rows[path] = shard.rows
            except CacheError as error:
                problems[path] = error
                continue
            reasons.update(entry.reason for entry in found if entry.reason)
            for entry in found:
                known = entries.setdefault(entry.video_id, entry)
                if entry.rank < known.rank:
                    entries[entry.video_id] = entry
        if spec is None:
            return None, problems
        damaged = damaged_among(problems)
        return cls(folder, spec, entries, rows, damaged, frozenset(reasons)), problems

    @classmethod
    def open_whole(cls, folder: Location) -> tuple[Self | None, tuple[Location, ...]]:
        """Rename the shards that cannot be read to `*.damaged`, and open the others.

        Returns:
            The cache, None if no shard can be used; and the new paths or URLs of the damaged ones.

        Raises:
            CacheError: shards of another version, or of different specs.
            RemoteError: a remote folder that cannot be fetched or changed.
        """
        if not shards_at(folder):
            return None, ()
        cache, problems = cls.scan(folder)
        damaged = damaged_among(problems)
        if damaged and isinstance(folder, Url):  # perhaps only the copies are damaged
            for path in damaged:
                Mirror(folder).drop(path.name)
            cache, problems = cls.scan(folder)
            damaged = damaged_among(problems)
        aside = tuple(set_aside(folder, path) for path in damaged)
        for path, problem in problems.items():
            if path not in damaged:
                raise problem
        return cache, aside

    def usable(self, *, partial: bool = False) -> tuple[str, ...]:
        """Return the ids of the videos that may be trained on, sorted."""
        allowed = ("ok", "partial") if partial else ("ok",)
        return tuple(sorted(v for v, entry in self.entries.items() if entry.status in allowed))

    def __getitem__(self, video_id: str) -> VideoFeatures:
        """Read one video, `ok` or partial.

        Raises:
            CacheError: it is not cached, has no frames, or its shard cannot be read.
        """
        table = self.load([video_id])
        return VideoFeatures(table.values, table.pts_seconds)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def table(self) -> FeatureTable:
        """Read all videos that are `ok`, by id, as one flat array with offsets; see `load`."""
        return self.load()

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
        of_videos = offsets, ids, self.spec, self.frame_sizes_of(ids)
        table = FeatureTable(values, pts_seconds, covers, *of_videos)
        self.fill(table)
        return table

    def require_whole(self, video_ids: Iterable[str]) -> None:
        """Verify the checksums of the shards that hold these videos, before training on them.

        `load` does not, since it takes several times as long as reading.

        Raises:
            CacheError: a shard differs from its checksum, or cannot be read.
        """
        known = (self.entries.get(video_id) for video_id in video_ids)
        for path in sorted({entry.shard for entry in known if entry} - {NOWHERE}):
            with open_shard(path) as shard:
                shard.verify_checksum()

    def offsets_of(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the offsets (videos + 1,) of a table of the videos named.

        Raises:
            CacheError: a video is not cached or has no frames.
        """
        missing = [video_id for video_id in video_ids if video_id not in self.entries]
        if missing:
            raise CacheError(
                f"{len(missing)} of {len(video_ids)} videos are not in {self.folder}, "
                f"{missing[0]!r} first; `memfeat extract` with the same manifest and cache adds "
                "them"
            )
        entries = [self.entries[video_id] for video_id in video_ids]
        for entry in entries:
            if entry.num_frames == 0:
                raise CacheError(f"{self.folder}: video {entry.video_id!r} failed ({entry.reason})")
        return np.cumsum([0] + [entry.num_frames for entry in entries], dtype=np.int64)

    def frame_sizes_of(self, video_ids: Sequence[str]) -> NDArray[np.int32]:
        """Return width and height of each video's frames, (videos, 2); zeros where not known."""
        sizes = [self.entries[video_id].frame_size for video_id in video_ids]
        return np.array(sizes, np.int32).reshape(-1, 2)

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
            rows = self._reopened(path)
            if not rows.read_into(*columns, spans):
                raise CacheError(f"{path} keeps changing; run the same command again when it rests")

    def _reopened(self, path: Path) -> StoredRows:
        """Open again a shard that was replaced since the cache was opened.

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


def set_aside(folder: Location, path: Path) -> Location:
    """Rename a damaged shard to `*.damaged`, and return its new path or URL.

    Of a remote cache `path` is the copy.

    Raises:
        RemoteError: a remote shard that cannot be renamed.
    """
    if isinstance(folder, Path):
        return path.rename(path.with_name(f"{path.name}.damaged"))
    return Mirror(folder).set_aside(path.name)


def delete_shard(folder: Location, path: Path) -> None:
    """Delete a shard; of a remote cache `path` is the copy.

    Raises:
        RemoteError: a remote shard that cannot be deleted.
    """
    if isinstance(folder, Path):
        path.unlink(missing_ok=True)
    else:
        Mirror(folder).delete(path.name)


def shard_paths(folder: Location, *, anew: bool = False) -> list[Path]:
    """Return the shards of a folder, or their copies on this machine, by name.

    With `anew` remote ones are fetched again.

    Raises:
        CacheError: there is none.
        RemoteError: a remote folder that cannot be fetched.
    """
    local = folder if isinstance(folder, Path) else Mirror(folder).pull(anew=anew)
    paths = sorted(local.glob("shard-*.h5"))
    if not paths:
        raise CacheError(f"{folder} holds no cache; `memfeat extract --cache {folder}` makes one")
    return paths


def damaged_among(problems: Mapping[Path, CacheError]) -> dict[Path, str]:
    """Return what is wrong with those shards that are damaged, of all that cannot be used."""
    return {p: str(error) for p, error in problems.items() if isinstance(error, DamagedShardError)}
