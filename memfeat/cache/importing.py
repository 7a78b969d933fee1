"""Features made elsewhere into a cache that says so."""

import functools
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memfeat.cache.given import GivenFeatures, open_given
from memfeat.cache.spec import IMPORTED, CacheSpec
from memfeat.cache.table import Cache
from memfeat.cache.vectors import steps_of, vectors_of
from memfeat.cache.video import EncodedVideo
from memfeat.cache.writing import write_shard
from memfeat.config import ImportConfig
from memfeat.errors import CacheError
from memfeat.manifest import check_id, folded_id
from memfeat.storage import Location, remove_stale_parts, sha256_of_file

VIDEOS_PER_SHARD = 1024
BYTES_PER_SHARD = 64 * 2**20


@dataclass(frozen=True)
class ImportSummary:
    """What an import did and found.

    Attributes:
        spec: what the cache says of its features.
        imported: videos written now.
        already_done: videos wanted that the cache held, of the same file.
        steps: rows written now.
        missing: ids wanted that the source does not have.
        unused: videos of the source that were not wanted.
        set_aside: shards that could not be read, under their new names; their videos were
            imported again.
        seconds: wall time.
    """

    spec: CacheSpec
    imported: int
    already_done: int
    steps: int
    missing: tuple[str, ...]
    unused: int
    set_aside: tuple[Location, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the summary ready for JSON."""
        return {
            **vars(self),
            "spec": self.spec.model_dump(mode="json"),
            "missing": list(self.missing),
            "set_aside": [str(path) for path in self.set_aside],
            "seconds": round(self.seconds, 3),
        }


def import_features(
    source: Path,
    folder: Path,
    config: ImportConfig,
    *,
    wanted: Sequence[str] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_video: Callable[[str], None] | None = None,
) -> ImportSummary:
    """Put features that were made elsewhere into a cache.

    All are checked before the first is written. Each step is one row of the cache; when the steps
    happen is not known, so their `pts_seconds` are 0, 1, 2 and so on. The same call again finds
    its work done; more files may follow under the same name and source.

    Args:
        source: a folder of `.npy` files, a `.csv` or `.tsv`, or a `.npz`; see `cache.given`.
        folder: the cache.
        config: what the features are called, and whether vectors are divided by their length.
        wanted: ids of the videos to take; by default all.
        on_start: called once with the number of steps of the work, two for each new video.
        on_video: called with a video's id as it is checked, and again as it is written.

    Raises:
        CacheError: features of another shape, width or range, ids that are not sound or clash, or
            a cache of another making; names file, video, value and what is allowed.
    """
    started = time.perf_counter()
    given = open_given(source)
    there = _checked_ids(given)
    named = set(there if wanted is None else wanted)
    chosen = [video_id for video_id in there if video_id in named]
    if not chosen:
        raise CacheError(
            f"{source} has none of the {len(wanted or ())} videos wanted: it has {there[0]!r} and "
            f"so on, and {(wanted or ('none',))[0]!r} is the first wanted"
        )
    first = next(given.videos({chosen[0]}))
    spec = _spec(source, steps_of(first).shape[1], config)
    remove_stale_parts(folder)
    cache, set_aside = Cache.open_whole(folder)
    done = _done(cache, spec, given, chosen) if cache else frozenset()
    pending = dict.fromkeys(video_id for video_id in chosen if video_id not in done)
    if on_start:
        on_start(2 * len(pending))
    told = on_video or (lambda _: None)
    for video in given.videos(pending):
        vectors_of(video, spec, first.place)
        told(video.video_id)
    steps, known = 0, set(there)
    for shard in _shards(given, pending, spec, first.place):
        write_shard(folder, spec, shard)
        for written in shard:
            told(written.video_id)
            steps += len(written.embeddings)
    return ImportSummary(
        spec,
        imported=len(pending),
        already_done=len(done),
        steps=steps,
        missing=tuple(video_id for video_id in wanted or () if video_id not in known),
        unused=len(there) - len(chosen),
        set_aside=set_aside,
        seconds=time.perf_counter() - started,
    )


def _spec(source: Path, dim: int, config: ImportConfig) -> CacheSpec:
    return CacheSpec(
        encoder=config.name,
        weights=IMPORTED,
        weights_sha256="",
        trained_on=config.source or f"imported from {source.resolve().name}",
        activation="unknown",
        dim=dim,
        image_size=None,
        interpolation=None,
        mean=None,
        std=None,
        sampling="as given",
        precision=None,
        batch_size=None,
        normalisation=config.normalise,
    )


def _checked_ids(given: GivenFeatures) -> list[str]:
    """Return the ids, in order, or refuse those that no manifest may hold."""
    first: dict[str, tuple[str, str]] = {}
    for video_id, place in given.places:
        try:
            check_id(video_id)
        except ValueError as error:
            raise CacheError(f"{place}: the id {video_id!a} {error}") from error
        twin, where = first.setdefault(folded_id(video_id), (video_id, place))
        if where != place:
            spelt = f", as {twin!a}" if twin != video_id else ""
            raise CacheError(
                f"{place}: the id {video_id!a} is also at {where}{spelt}; ids are unique"
            )
    return [video_id for video_id, _ in given.places]


def _done(
    cache: Cache, spec: CacheSpec, given: GivenFeatures, chosen: Sequence[str]
) -> frozenset[str]:
    """Return which of the chosen videos the cache holds; all must be of the file at hand."""
    cache.spec.require(
        spec, f"{cache.folder} holds embeddings made differently; give another --cache"
    )
    done = frozenset(cache.entries.keys() & set(chosen))
    digest = functools.cache(sha256_of_file)
    for video_id in chosen:
        file = given.file(video_id)
        if video_id in done and cache.entries[video_id].source_sha256 != digest(file):
            raise CacheError(
                f"{cache.folder} holds the features of video {video_id!r} from another file than "
                f"{file}, or from an earlier version of it; give another --cache"
            )
    return done


def _shards(
    given: GivenFeatures, pending: Container[str], spec: CacheSpec, first: str
) -> Iterator[list[EncodedVideo]]:
    """Yield the pending videos in shards, of which one is in memory at a time."""
    digest = functools.cache(sha256_of_file)
    shard: list[EncodedVideo] = []
    room = BYTES_PER_SHARD
    for video in given.videos(pending):
        embeddings = vectors_of(video, spec, first)
        file = given.file(video.video_id)
        shard.append(
            EncodedVideo(
                video_id=video.video_id,
                embeddings=embeddings,
                pts_seconds=np.arange(len(embeddings), dtype=np.float64),
                source_bytes=file.stat().st_size,
                source_sha256=digest(file),
            )
        )
        room -= embeddings.nbytes
        if room <= 0 or len(shard) == VIDEOS_PER_SHARD:
            yield shard
            shard, room = [], BYTES_PER_SHARD
    if shard:
        yield shard
