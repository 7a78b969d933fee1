"""The state of a cache: what is done, what is damaged, and how to repair it."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from memfeat.cache.folder import Cache, damaged_among, delete_shard, set_aside, shard_paths
from memfeat.cache.shard import open_shard
from memfeat.cache.spec import CacheSpec
from memfeat.cache.video import STATUSES
from memfeat.cache.writing import shard_target, write_shard
from memfeat.errors import CacheError, DamagedShardError, counted
from memfeat.storage import Location, Url, remove_stale_parts, shards_at
from memfeat.storage.copies import files_at
from memfeat.storage.files import PART_SUFFIX

# Flags that a retry needs, for reasons that another file does not solve.
FLAGS = {
    "image": "--allow-images",
    "timeout": "--time-limit SECONDS",
    "too_large": "--max-pixels PIXELS",
}


class Task(NamedTuple):
    """A problem and the command that solves it; `MANIFEST` and `SRC` are for the user to name."""

    problem: str
    command: str


@dataclass(frozen=True)
class CacheStatus:
    """The result of `status_of`, which `memfeat status` prints.

    Attributes:
        folder: the cache's.
        cache: the cache, as far as it can be read; None if nothing can.
        damaged: shards that cannot be read, with what is wrong.
        other: shards that another version or other settings made, each with how they differ.
        set_aside: damaged shards that were renamed earlier.
        parts: unfinished files of writers that are at work or were killed.
        same: groups of ids whose videos are the same file.
        leaks: those of these groups that lie in several splits.
        missing: of the ids asked about, those that the cache does not hold.
        manifest: that these ids come from; None if the user is to name it in commands.
    """

    folder: Location
    cache: Cache | None
    damaged: dict[Path, str]
    other: dict[Path, str]
    set_aside: tuple[Location, ...]
    parts: tuple[Location, ...]
    same: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...]
    manifest: Location | None

    @property
    def videos(self) -> dict[str, int]:
        """How many videos there are, by status."""
        entries = self.cache.entries.values() if self.cache else ()
        return {status: sum(each.status == status for each in entries) for status in STATUSES}

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """How many videos are not ok, by status and reason, both sorted."""
        found: dict[str, dict[str, int]] = {}
        entries = self.cache.entries.values() if self.cache else ()
        counts = Counter((each.status, each.reason) for each in entries if each.status != "ok")
        for (status, reason), count in sorted(counts.items()):
            found.setdefault(status, {})[reason] = count
        return found

    def tasks(self) -> list[Task]:
        """Return the problems, the most urgent first."""
        spec = self.cache.spec if self.cache else None
        manifest = _quoted([self.manifest]) if self.manifest else "MANIFEST"
        flags = spec.flags if spec else "--encoder ENCODER"
        command = f"memfeat extract --manifest {manifest} {flags}"
        if spec and spec.is_imported:
            command = f"memfeat cache import SRC --name {shlex.quote(spec.encoder)}"
        return list(self._tasks(f"{command} --cache {_quoted([self.folder])}"))

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "folder": str(self.folder),
            "spec": self.cache.spec.model_dump(mode="json") if self.cache else None,
            "videos": self.videos,
            "reasons": self.reasons,
            "missing": len(self.missing),
            "damaged": {str(path): problem for path, problem in self.damaged.items()},
            "other": {str(path): problem for path, problem in self.other.items()},
            "set_aside": [str(path) for path in self.set_aside],
            "parts": [str(path) for path in self.parts],
            "same_content": [list(ids) for ids in self.same],
            "leaks": [list(ids) for ids in self.leaks],
            "tasks": [task._asdict() for task in self.tasks()],
        }

    def _tasks(self, again: str) -> Iterator[Task]:
        repair = f"memfeat cache repair {_quoted([self.folder])}"
        if self.damaged:
            yield Task(counted(len(self.damaged), "damaged shard"), f"{repair} && {again}")
        if self.other:
            away = f"mkdir OTHER && mv {_quoted(self.other)} OTHER"
            yield Task(f"{counted(len(self.other), 'shard')} made differently", away)
        if self.missing:
            yield Task(f"{counted(len(self.missing), 'video')} of the manifest not done yet", again)
        for status, reasons in self.reasons.items():
            for reason, count in reasons.items():
                what = f"{count} {status} ({reason})"
                if status == "partial":
                    what += ", which training leaves out"
                if reason not in FLAGS:
                    what += ", when their files are mended"
                flags = [FLAGS[reason]] if reason in FLAGS else []
                yield Task(what, " ".join([again, *flags, f"--retry-failed={reason}"]))
        if self.parts and isinstance(self.folder, Path):
            yield Task(
                f"{counted(len(self.parts), 'unfinished file')}, unless a run is at work", repair
            )
        if self.set_aside:
            yield self._deletion(
                f"{counted(len(self.set_aside), 'shard')} set aside earlier", again
            )

    def _deletion(self, what: str, again: str) -> Task:
        if isinstance(self.folder, Url):
            return Task(f"{what}, to be made again; delete {self.set_aside[0]} ... then", again)
        delete = f"rm {_quoted([self.folder])}/shard-*.damaged"
        return Task(f"{what}, to be made again and deleted", f"{again} && {delete}")


def status_of(
    folder: Location,
    splits: Mapping[str, str] | None = None,
    *,
    manifest: Location | None = None,
) -> CacheStatus:
    """Check a cache's folder without reading embeddings.

    `splits` are of the videos that it should hold, by id; `manifest` is where they are listed.

    Raises:
        CacheError: `folder` holds no cache, nor remains of one.
        RemoteError: a remote folder that cannot be fetched.
        PermissionError: a shard may not be read.
    """
    aside = _named(folder, "shard-*.damaged")
    parts = _named(folder, f".*{PART_SUFFIX}")
    cache: Cache | None = None
    problems: dict[Path, CacheError] = {}
    if shards_at(folder) or not (aside or parts):
        cache, problems = Cache.scan(folder)
    damaged = damaged_among(problems)
    same = same_sources(cache) if cache else []
    splits, held = splits or {}, cache.entries if cache else {}
    return CacheStatus(
        folder=folder,
        cache=cache,
        damaged=damaged,
        other={path: str(error) for path, error in problems.items() if path not in damaged},
        set_aside=aside,
        parts=parts,
        same=tuple(same),
        leaks=tuple(ids for ids in same if len({splits[v] for v in ids if v in splits}) > 1),
        missing=tuple(video_id for video_id in splits if video_id not in held),
        manifest=manifest,
    )


def same_sources(cache: Cache) -> list[tuple[str, ...]]:
    """Return groups of ids whose videos have frames and are the same file, byte for byte.

    Mostly there are none, and none are found of features made elsewhere, where many videos come in
    one file, nor of texts.
    """
    groups: dict[str, list[str]] = {}
    apart = cache.spec.is_imported or cache.spec.is_text
    for video_id, entry in () if apart else cache.entries.items():
        if entry.source_sha256 and entry.num_frames:
            groups.setdefault(entry.source_sha256, []).append(video_id)
    return sorted(tuple(sorted(ids)) for ids in groups.values() if len(ids) > 1)


@dataclass(frozen=True)
class Repair:
    """The result of `repair`.

    Attributes:
        set_aside: damaged shards under their new names, each with what is wrong.
        left_alone: shards of another version or other settings, each with how they differ.
        parts_removed: how many files of killed writers were deleted.
        superseded: how many entries were dropped that a later attempt, or another shard, replaces.
    """

    set_aside: dict[Location, str]
    left_alone: dict[Path, str]
    parts_removed: int
    superseded: int


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
    """Verify every shard, and rename damaged ones, so that `extract` makes their videos again.

    A damaged shard is renamed to `*.damaged`. Part files of killed writers are deleted, and entries
    of videos of which another counts; see `VideoEntry.rank`.

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
    # Whether the writers of a remote folder's unfinished files are alive is not known.
    parts = remove_stale_parts(folder) if isinstance(folder, Path) else 0
    return Repair(bad, other, parts, _drop_superseded(folder))


def _drop_superseded(folder: Location) -> int:
    """Write shards anew without the entries that do not count; return how many those were."""
    cache, _ = Cache.scan(folder) if shards_at(folder) else (None, {})
    if cache is None:
        return 0
    dropped, written = 0, set()
    with shard_target(folder) as target:
        for path in cache.shards:
            # Another process may have dropped it.
            with suppress(DamagedShardError), open_shard(path) as shard:
                videos = shard.videos()
                kept = [each for each in videos if cache.entries[each.video_id].shard == path]
                if path.name in written or len(kept) == len(videos):
                    continue
                if kept:
                    new = write_shard(target.folder, cache.spec, kept)
                    written.add(new.name)
                    target.put(new)
                delete_shard(folder, path)
                dropped += len(videos) - len(kept)
    return dropped


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


def _named(folder: Location, pattern: str) -> tuple[Location, ...]:
    return tuple(folder / name for name in files_at(folder, pattern))


def _quoted(paths: Iterable[Location]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)
