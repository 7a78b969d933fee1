"""Videos to score whose features caches hold already: read shard by shard, in bounded memory."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from memfeat.cache import Cache, CacheSpec, EncodedVideo, FeatureTable
from memfeat.cache.folder import NOWHERE
from memfeat.cache.spec import NO_TEXT, ROUNDING
from memfeat.errors import RunError, VideoError
from memfeat.prediction.inputs import Input
from memfeat.runs import Run
from memfeat.storage import Location

AT_ONCE = 32  # videos in memory


class CachedVideos:
    """The videos of a cache; of runs of several streams, those of a cache for each.

    Attributes:
        videos: all of them, failed ones too, in the order in which they are read.
    """

    def __init__(
        self, runs: Sequence[Run], specs: Sequence[CacheSpec], folders: Sequence[Location]
    ):
        """Open the caches.

        Args:
            runs: what is to score the videos.
            specs: what made the features that they take, each once.
            folders: the caches, one for each of `specs`, in any order.

        Raises:
            RunError: features that a run takes are in no cache.
            CacheError: a cache that cannot be read.
            RemoteError: a remote one that cannot be fetched.
        """
        zero = all(run.config.missing == "zero" for run in runs)
        given = [Cache.open(folder, missing="zero" if zero else "drop") for folder in folders]
        self._caches = [_fitting(runs, spec, given) for spec in specs]
        self._shards: dict[Path, list[str]] = {}
        for entry in sorted(self._caches[0].entries.values(), key=lambda each: each.start):
            self._shards.setdefault(entry.shard, []).append(entry.video_id)
        ids = [name for shard in sorted(self._shards) for name in self._shards[shard]]
        self.videos = tuple(Input(None, video_id) for video_id in ids)

    def frames(self, video_id: str) -> int:
        """Return how many frames of a video the first cache stands for; 0 if it lacks the video."""
        entry = self._caches[0].entries.get(video_id)
        return 0 if entry is None else entry.num_covered

    def read(
        self, wanted: Collection[str]
    ) -> Iterator[tuple[str, list[EncodedVideo] | VideoError]]:
        """Yield the ids of the wanted videos with their features, one for each of the specs.

        In place of those of a video that has none comes the reason.

        Raises:
            CacheError: a shard that is damaged, or cannot be read.
        """
        for shard in sorted(self._shards):
            ids = [name for name in self._shards[shard] if name in wanted]
            for first in range(0, len(ids), AT_ONCE):
                yield from self._read(ids[first : first + AT_ONCE])

    def _read(self, ids: Sequence[str]) -> Iterator[tuple[str, list[EncodedVideo] | VideoError]]:
        problems = {name: problem for name in ids if (problem := self._problem(name))}
        usable = [name for name in ids if name not in problems]
        tables = []
        for cache in self._caches if usable else []:
            cache.require_whole(usable)
            tables.append(cache.load(usable))
        for name in ids:
            if name in problems:
                yield name, problems[name]
                continue
            each = zip(self._caches, tables, strict=True)
            yield name, [_video(cache, table, name) for cache, table in each]

    def _problem(self, name: str) -> VideoError | None:
        for cache in self._caches:
            entry = cache.entries.get(name)
            if entry is None:
                return VideoError("missing", f"{name!r} is not in {cache.folder}; extract it there")
            if entry.status == "failed":
                return VideoError(entry.reason, f"{name!r} failed when it was extracted")
        return None


def _fitting(runs: Sequence[Run], spec: CacheSpec, given: Sequence[Cache]) -> Cache:
    """Return the cache whose features were made as a spec says, but for rounding at most."""
    wanted = spec.model_dump(exclude=ROUNDING)
    alike = [cache for cache in given if cache.spec.model_dump(exclude=ROUNDING) == wanted]
    if alike:
        return min(alike, key=lambda cache: cache.spec != spec)
    run = next(run for run in runs if spec in run.specs)
    if len(given) == len(run.specs) == 1:
        run.require([given[0].spec])  # which names the difference
    raise RunError(
        f"{run.name} takes features of {spec.describe()}, and the caches given hold "
        f"{'; '.join(cache.spec.describe() for cache in given)}; give a cache for each, made alike"
    )


def _video(cache: Cache, table: FeatureTable, name: str) -> EncodedVideo:
    index, entry = table.video_ids.index(name), cache.entries[name]
    rows = slice(table.offsets[index], table.offsets[index + 1])
    return EncodedVideo(
        video_id=name,
        embeddings=table.frames(index),
        pts_seconds=table.pts_seconds[rows],
        status=entry.status,
        reason=NO_TEXT if entry.shard == NOWHERE else entry.reason,
        covers=table.covers[rows],
        frame_size=entry.frame_size,
    )
