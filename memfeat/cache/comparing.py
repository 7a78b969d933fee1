"""How the features of the same videos differ, as two caches or files have them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.feature_source import FeatureSource
from memfeat.cache.folder import Cache
from memfeat.cache.importing import as_steps, match_ids
from memfeat.cache.sources import open_source
from memfeat.cache.spec import CacheSpec
from memfeat.errors import CacheError, ConfigError
from memfeat.storage import AnyLocation, Url, location_of

MOST_ROWS = 512  # of a video that are compared
MOST_SHIFT = 8  # rows
MOST_STRIDE = 8
FEWEST_ROWS = 2  # of a video that an alignment has to match
SAME = 2e-6  # one minus the cosine: less than that is rounding
BETTER = 0.5  # by how much a distance has to fall for a detail to be taken for a cause

Vectors = NDArray[np.float64]


class Alignment(NamedTuple):
    """Which rows of two videos belong together: from these on, each so many-th of both."""

    ours: int = 0
    other: int = 0
    our_stride: int = 1
    other_stride: int = 1

    def pair(self, ours: Sequence[Any] | Any, other: Sequence[Any] | Any) -> tuple[Any, Any]:
        """Return the rows of both that belong together."""
        one = ours[self.ours :: self.our_stride]
        two = other[self.other :: self.other_stride]
        count = min(len(one), len(two))
        return one[:count], two[:count]

    def __str__(self) -> str:
        """Say it in words."""
        if self == ALIGNED:
            return "row by row"
        ours, other = (
            ", ".join(str(first + stride * step) for step in range(3))
            for first, stride in zip(self[:2], self[2:], strict=True)
        )
        return f"rows {ours}, ... of ours with rows {other}, ... of the other's"


ALIGNED = Alignment()
ALIGNMENTS = (
    ALIGNED,
    *(
        Alignment(*(shift, 0) if shift > 0 else (0, -shift), *strides)
        for strides in [
            *((stride, 1) for stride in range(1, MOST_STRIDE + 1)),
            *((1, stride) for stride in range(2, MOST_STRIDE + 1)),
        ]
        for shift in range(-MOST_SHIFT, MOST_SHIFT + 1)
    ),
)


@dataclass(frozen=True)
class VideoDifference:
    """One video in both.

    Attributes:
        video_id: as ours is called.
        frames: rows of ours.
        other_frames: rows of the other.
        cosine: mean over rows, the first with the first and so on; None between vectors of
            different lengths.
        lowest_cosine: of one row.
        shift: how many rows later the same is in ours, where that fits better; negative for
            earlier.
        shifted_cosine: the mean cosine at that shift.
    """

    video_id: str
    frames: int
    other_frames: int
    cosine: float | None = None
    lowest_cosine: float | None = None
    shift: int = 0
    shifted_cosine: float | None = None


@dataclass(frozen=True)
class FeatureDifference:
    """All videos in both.

    Attributes:
        ours: the cache.
        other: what it is compared with.
        dim, other_dim: numbers in a row.
        videos: those in both.
        names: ids of the other, by ours.
        only_ours, only_other: ids that the other one lacks.
        alignment: of all rows, the one that fits best; row by row unless another is much better.
            Between vectors of different lengths, what the numbers of rows make likely.
        distance: one minus the mean cosine, row by row; None between vectors of different lengths.
        aligned_distance: the same at `alignment`.
        mean_distance: the same of one row a video with the mean of ours; None if there are more.
        settings: what the other's spec says that ours does not, if it has one: ours, the other's.
    """

    ours: str
    other: str
    dim: int
    other_dim: int
    videos: tuple[VideoDifference, ...]
    names: Mapping[str, str]
    only_ours: tuple[str, ...]
    only_other: tuple[str, ...]
    alignment: Alignment = ALIGNED
    distance: float | None = None
    aligned_distance: float | None = None
    mean_distance: float | None = None
    settings: Mapping[str, tuple[Any, Any]] | None = None


class FeatureFile:
    """Features of a cache, or as other people hand them out."""

    def __init__(self, location: AnyLocation) -> None:
        """Open them.

        Raises:
            CacheError: there is nothing of the kind.
        """
        where = location_of(location)
        self.name = str(where)
        self.source: Cache | FeatureSource
        if isinstance(where, Url) or any(where.glob("shard-*.h5")):
            self.source = Cache.open(where)
        else:
            self.source = open_source(Path(where))
        self.spec: CacheSpec | None = self.source.spec

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its videos."""
        if isinstance(self.source, Cache):
            return self.source.usable(partial=True)
        return tuple(dict.fromkeys(video_id for video_id, _ in self.source.ids))

    def read(self, ids: Sequence[str]) -> Iterator[tuple[str, Vectors]]:
        """Yield videos by id, in any order, as unit vectors (time, width); few are in memory."""
        if isinstance(self.source, Cache):
            for video_id in ids:
                yield video_id, unit(self.source.load([video_id]).values)
        else:
            for video in self.source.videos(set(ids)):
                steps = as_steps(video)
                if not np.isfinite(steps).all():
                    raise CacheError(f"{video.where}: values that are no finite numbers")
                yield video.video_id, unit(steps)

    def of(self, video_id: str) -> Vectors:
        """Return one video as unit vectors (time, width)."""
        return next(vectors for _, vectors in self.read([video_id]))


def unit(rows: NDArray[Any]) -> Vectors:
    """Divide rows by their lengths; those without one stay 0."""
    values = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1)


def open_both(one: AnyLocation, two: AnyLocation) -> tuple[FeatureFile, FeatureFile]:
    """Open two, the first of which is a cache, by preference one that memfeat can make again.

    Raises:
        ConfigError: neither is a cache.
        CacheError: one is nothing of the kind.
    """
    both = FeatureFile(one), FeatureFile(two)
    caches = [each for each in both if isinstance(each.source, Cache)]
    own = [each for each in caches if each.spec and not each.spec.is_imported]
    if not caches:
        raise ConfigError(
            f"neither {both[0].name} nor {both[1].name} is a cache; make one with `memfeat "
            "extract`, or of one with `memfeat cache import`"
        )
    ours = (own or caches)[0]
    return ours, both[1] if ours is both[0] else both[0]


def compare_features(
    ours: FeatureFile,
    other: FeatureFile,
    *,
    on_start: Callable[[int], None] | None = None,
    on_video: Callable[[str], None] | None = None,
) -> FeatureDifference:
    """Compare features of the same videos, as they stand.

    Args:
        ours: a cache.
        other: another, or features made elsewhere.
        on_start: called with the number of videos.
        on_video: called with each id.

    Raises:
        CacheError: they have no video in common, or one cannot be read.
    """
    names = match_ids(other.ids, ours.ids)
    if not names:
        raise CacheError(
            f"{ours.name} and {other.name} have no video in common: {ours.ids[:1]} and "
            f"{other.ids[:1]} are their first"
        )
    if on_start:
        on_start(len(names))
    videos, totals, means = [], _Totals(), []
    widths: Counter[tuple[int, int]] = Counter()
    for name, rows in other.read(tuple(names)):
        own = ours.of(names[name])
        widths[own.shape[1], rows.shape[1]] += 1
        video = VideoDifference(names[name], len(own), len(rows))
        if own.shape[1] == rows.shape[1]:
            video = totals.add(video, own[:MOST_ROWS], rows[:MOST_ROWS])
            if len(rows) == 1 < len(own):
                means.append(1 - float(unit(own.mean(axis=0, keepdims=True))[0] @ rows[0]))
        videos.append(video)
        if on_video:
            on_video(video.video_id)
    (dim, other_dim), _ = widths.most_common(1)[0]
    matched = set(names.values())
    found = FeatureDifference(
        ours.name,
        other.name,
        dim,
        other_dim,
        videos=tuple(sorted(videos, key=lambda each: each.video_id)),
        names={own: name for name, own in names.items()},
        only_ours=tuple(each for each in ours.ids if each not in matched),
        only_other=tuple(each for each in other.ids if each not in names),
        settings=_settings(ours.spec, other.spec),
    )
    if dim != other_dim:
        return replace(found, alignment=_by_counts(videos))
    alignment, distance, aligned = totals.best()
    return replace(
        found,
        alignment=alignment,
        distance=distance,
        aligned_distance=aligned,
        mean_distance=float(np.mean(means)) if len(means) == len(videos) else None,
    )


def _by_counts(videos: Sequence[VideoDifference]) -> Alignment:
    """Guess from the numbers of rows alone which belong together."""
    ratio = float(np.median([each.frames / each.other_frames for each in videos]))
    if ratio >= 1:
        return Alignment(our_stride=min(round(ratio), MOST_STRIDE))
    return Alignment(other_stride=min(round(1 / ratio), MOST_STRIDE))


class _Totals:
    """Distances at each alignment, over all videos."""

    def __init__(self) -> None:
        self._sums = np.zeros(len(ALIGNMENTS))
        self._counts = np.zeros(len(ALIGNMENTS))

    def add(self, video: VideoDifference, ours: Vectors, other: Vectors) -> VideoDifference:
        """Add a video, and return what is known of it."""
        table = 1 - ours @ other.T
        sums, counts = np.zeros(len(ALIGNMENTS)), np.zeros(len(ALIGNMENTS))
        rows, columns = np.arange(len(ours)), np.arange(len(other))
        for index, alignment in enumerate(ALIGNMENTS):
            one, two = alignment.pair(rows, columns)
            if index == 0 or len(one) >= FEWEST_ROWS:
                sums[index], counts[index] = table[one, two].sum(), len(one)
        self._sums += sums
        self._counts += counts
        matched = np.diagonal(table)
        unstrided = [i for i, each in enumerate(ALIGNMENTS) if each[2:] == (1, 1)]
        best = _choose(sums[unstrided], counts[unstrided])
        shift = ALIGNMENTS[unstrided[best]]
        at = unstrided[best]
        return replace(
            video,
            cosine=1 - float(matched.mean()),
            lowest_cosine=1 - float(matched.max()),
            shift=shift.ours - shift.other,
            shifted_cosine=1 - float(sums[at] / counts[at]),
        )

    def best(self) -> tuple[Alignment, float, float]:
        """Return the alignment that fits best, the distance row by row, and that one's."""
        best = _choose(self._sums, self._counts)
        distances = self._sums / np.maximum(self._counts, 1)
        return ALIGNMENTS[best], float(distances[0]), float(distances[best])


def _choose(sums: Vectors, counts: Vectors) -> int:
    """Return the best alignment's place: the first one's unless another is much better."""
    distances = np.where(counts >= max(counts[0] / (2 * MOST_STRIDE), 1), sums / counts.clip(1), 9)
    best = int(np.argmin(distances))
    is_better = distances[0] > SAME and distances[best] <= BETTER * distances[0]
    return best if is_better else 0


def _settings(
    ours: CacheSpec | None, other: CacheSpec | None
) -> Mapping[str, tuple[Any, Any]] | None:
    if ours is None or other is None:
        return None
    both = {name: (getattr(ours, name), getattr(other, name)) for name in CacheSpec.model_fields}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}
