"""Reading all of a cache to find what is wrong, and putting it out of the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memfeat.cache.shard import open_shard
from memfeat.cache.spec import CacheSpec
from memfeat.cache.table import set_aside, shard_paths
from memfeat.errors import CacheError, DamagedShardError
from memfeat.storage import Location, remove_stale_parts


@dataclass(frozen=True)
class Repair:
    """What `repair` did.

    Attributes:
        set_aside: bad shards under their new names, each with what is wrong with it.
        left_alone: shards that another version or other settings made, each with how they differ.
        parts_removed: how many files of killed writers were deleted.
    """

    set_aside: dict[Location, str]
    left_alone: dict[Path, str]
    parts_removed: int


def verify(folder: Location) -> dict[Path, str]:
    """Read every shard, and check all that can be checked; return what is wrong, by shard.

    That is checksums, the length of vectors, offsets, and that what is said of each video fits.
    Those of a remote folder are fetched again, all of them, into their copies.

    Raises:
        CacheError: `folder` holds no cache.
        RemoteError: a remote folder that cannot be fetched.
    """
    return {path: str(problem) for path, problem in _verified(folder) if problem is not None}


def repair(folder: Location) -> Repair:
    """Verify every shard, and take bad ones out of the cache, so that `extract` makes them again.

    Nothing but the leavings of killed writers is deleted: a bad shard is renamed to `*.damaged`.

    Raises:
        CacheError: `folder` holds no cache.
        RemoteError: a remote folder that cannot be fetched, or changed.
        OSError: it cannot be written to.
    """
    bad: dict[Location, str] = {}
    other: dict[Path, str] = {}
    for path, problem in _verified(folder):
        if isinstance(problem, DamagedShardError):
            bad[set_aside(folder, path)] = str(problem)
        elif problem is not None:
            other[path] = str(problem)
    # Of the unfinished files of other machines nobody knows whether their writers are alive.
    return Repair(bad, other, remove_stale_parts(folder) if isinstance(folder, Path) else 0)


def _verified(folder: Location) -> Iterator[tuple[Path, CacheError | None]]:
    """Yield every shard with what is wrong with it, if anything."""
    first: tuple[CacheSpec, str] | None = None
    for path in shard_paths(folder, anew=True):
        try:
            with open_shard(path) as shard:
                shard.verify()
                shard.entries()
                first = first or (shard.spec, path.name)
                first[0].require(shard.spec, f"{path} was made differently from {first[1]}")
        except CacheError as error:
            yield path, error
        else:
            yield path, None
