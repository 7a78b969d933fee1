"""What is wrong in a cache's folder, and putting it right."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfeat.cache.shard import open_shard
from memfeat.cache.table import Cache, set_aside, shard_paths
from memfeat.errors import CacheError, DamagedShardError
from memfeat.files import PART_SUFFIX, remove_stale_parts


@dataclass(frozen=True)
class Repair:
    """What `repair` did.

    Attributes:
        set_aside: bad shards under their new names, each with what is wrong with it.
        left_alone: shards that another version or other settings made, each with how they differ.
        parts_removed: how many files of killed writers were deleted.
    """

    set_aside: dict[Path, str]
    left_alone: dict[Path, str]
    parts_removed: int


def repair(folder: Path) -> Repair:
    """Verify every shard, and take bad ones out of the cache, so that `extract` makes them again.

    Nothing but the leavings of killed writers is deleted: a bad shard is renamed to `*.damaged`.

    Raises:
        CacheError: `folder` holds no cache.
        OSError: it cannot be written to.
    """
    bad: dict[Path, str] = {}
    other: dict[Path, str] = {}
    first = None
    for path in shard_paths(folder):
        try:
            with open_shard(path) as shard:
                shard.verify()
                first = first or shard.spec
                first.require(shard.spec, f"{path} was made differently from others beside it")
        except DamagedShardError as error:
            bad[set_aside(path)] = str(error)
        except CacheError as error:
            other[path] = str(error)
    return Repair(bad, other, remove_stale_parts(folder))


def same_sources(cache: Cache) -> list[tuple[str, ...]]:
    """Return groups of ids whose videos are the same file, byte for byte; mostly none.

    Raises:
        DamagedShardError: a shard cannot be read.
    """
    groups: dict[str, list[str]] = {}
    for path in cache.shards:
        with open_shard(path) as shard:
            for video_id, sha256 in shard.sources().items():
                if sha256 and cache.entries[video_id].shard == path:
                    groups.setdefault(sha256, []).append(video_id)
    return sorted(tuple(sorted(ids)) for ids in groups.values() if len(ids) > 1)


@dataclass(frozen=True)
class CacheStatus:
    """What `memfeat status` tells.

    Attributes:
        cache: the cache, as far as it can be read; None if nothing can.
        damaged: shards that cannot be read, with what is wrong.
        set_aside: shards that were taken out of the cache earlier.
        parts: files that a writer is at, or left when it was killed.
        same: groups of ids whose videos are the same file.
        missing: of the ids asked about, those that the cache does not hold.
    """

    cache: Cache | None
    damaged: dict[Path, str]
    set_aside: tuple[Path, ...]
    parts: tuple[Path, ...]
    same: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...]

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """How many videos are not ok, by status and reason, both sorted."""
        found: dict[str, dict[str, int]] = {}
        entries = self.cache.entries.values() if self.cache else ()
        for entry in sorted(entries, key=lambda each: (each.status, each.reason)):
            if entry.status != "ok":
                counts = found.setdefault(entry.status, {})
                counts[entry.reason] = counts.get(entry.reason, 0) + 1
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "videos": self.cache.summary()["videos"] if self.cache else {},
            "reasons": self.reasons,
            "missing": len(self.missing),
            "damaged": {str(path): problem for path, problem in self.damaged.items()},
            "set_aside": [str(path) for path in self.set_aside],
            "parts": [str(path) for path in self.parts],
            "same_content": [list(ids) for ids in self.same],
        }


def status_of(folder: Path, wanted: Collection[str] = ()) -> CacheStatus:
    """Look through a cache's folder; no embedding is read.

    Args:
        folder: of the cache.
        wanted: ids of the videos that it should hold.

    Raises:
        CacheError: `folder` holds no cache, or shards of different making.
    """
    shard_paths(folder)
    try:
        cache = Cache.open(folder, damaged_ok=True)
    except DamagedShardError:
        cache = None
    damaged = dict(cache.damaged) if cache else dict.fromkeys(shard_paths(folder), "unreadable")
    held = cache.entries if cache else {}
    return CacheStatus(
        cache=cache,
        damaged=damaged,
        set_aside=tuple(sorted(folder.glob("shard-*.damaged"))),
        parts=tuple(sorted(folder.glob(f".*{PART_SUFFIX}"))),
        same=tuple(same_sources(cache)) if cache else (),
        missing=tuple(video_id for video_id in wanted if video_id not in held),
    )
