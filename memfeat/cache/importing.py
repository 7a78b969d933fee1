"""Import of features made elsewhere; the cache records that it was made so."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.feature_source import FeatureSource, SourceVideo
from memfeat.cache.folder import Cache
from memfeat.cache.shard import find_odd_vector
from memfeat.cache.sources import open_source
from memfeat.cache.spec import IMPORTED, CacheSpec
from memfeat.cache.video import EncodedVideo
from memfeat.cache.writing import write_shard
from memfeat.config import ImportConfig
from memfeat.errors import CacheError, ConfigError
from memfeat.manifest import check_id, folded_id
from memfeat.storage import Location, remove_stale_parts
from memfeat.storage.names import stem_key

VIDEOS_PER_SHARD = 1024
BYTES_PER_SHARD = 64 * 2**20
LARGEST = float(np.finfo(np.float16).max)
BFLOAT16 = 0x3000, 0x4300  # as whole numbers, the sign left out: 5e-10 to 128
UNIT = 1e-3  # a vector whose length is 1 up to this stays as it is, to the last bit


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import.

    Attributes:
        spec: what the cache says of its features.
        imported: videos written now.
        already_done: videos wanted that the cache held, of the same file.
        steps: rows written now.
        missing: ids wanted that the source does not have.
        unused: how many videos of the source were not wanted.
        unused_ids: which.
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
    unused_ids: tuple[str, ...]
    set_aside: tuple[Location, ...]
    seconds: float


def import_features(
    source: Path,
    folder: Path,
    config: ImportConfig,
    *,
    wanted: Sequence[str] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_video: Callable[[str], None] | None = None,
) -> ImportSummary:
    """Import features that were made elsewhere into a cache.

    All are checked before the first is written. Each step is one row of the cache; the times of
    the steps are not known, so their `pts_seconds` are 0, 1, 2 and so on. A file that
    `export_features` wrote makes the entries that the cache had. The same call again does
    nothing; more files may be added under the same name and source.

    Args:
        source: a folder of `.npy` files, a `.csv` or `.tsv`, a `.npz`, or what `export_features`
            wrote; see `cache.sources`.
        folder: the cache.
        config: what the features are called, and whether vectors are divided by their length; of an
            exported cache that stands in the file.
        wanted: ids of the videos to take, whose names in the source may differ as those of files
            may: `00216` is `216`; by default all.
        on_start: called once with the number of steps of the work, two for each new video.
        on_video: called with a video's id as it is checked, and again as it is written.

    Raises:
        ConfigError: features without a name.
        CacheError: features of another shape, width or range, ids that are not sound or clash, or
            a cache of another making; names file, video, value and what is allowed.
    """
    started = time.perf_counter()
    features = open_source(source)
    found = _checked_ids(features)
    names = dict(zip(found, found, strict=True)) if wanted is None else match_ids(found, wanted)
    if not names:
        raise CacheError(
            f"{source} has none of the {len(wanted or ())} videos wanted: it has {found[0]!r} and "
            f"so on, and {(wanted or ('none',))[0]!r} is the first wanted"
        )
    first = next(features.videos({next(each for each in found if each in names)}))
    spec = features.spec or _spec(source, as_steps(first).shape[1], config)
    remove_stale_parts(folder)
    cache, set_aside = Cache.open_whole(folder)
    done = _done(cache, spec, features, names) if cache else frozenset()
    pending = {of: video_id for of, video_id in names.items() if video_id not in done}
    if on_start:
        on_start(2 * len(pending))
    progress = on_video or (lambda _: None)
    for video in features.videos(pending):
        _vectors(video, spec, first.where)
        progress(video.video_id)
    steps, matched = 0, set(names.values())
    for shard in _shards(features, pending, spec, first.where):
        write_shard(folder, spec, shard)
        for written in shard:
            progress(written.video_id)
            steps += len(written.embeddings)
    return ImportSummary(
        spec,
        imported=len(pending),
        already_done=len(done),
        steps=steps,
        missing=tuple(video_id for video_id in wanted or () if video_id not in matched),
        unused=len(found) - len(names),
        unused_ids=tuple(each for each in found if each not in names),
        set_aside=set_aside,
        seconds=round(time.perf_counter() - started, 3),
    )


def match_ids(found: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Map ids of the source to the ids wanted, by the rule by which label files name videos.

    Raises:
        CacheError: several may be one that is wanted.
    """
    present = set(found)
    names = {video_id: video_id for video_id in wanted if video_id in present}
    keys = Counter(map(stem_key, wanted))
    left = {stem_key(each): each for each in wanted if each not in names}
    matched: dict[str, str] = {}
    for of in found:
        key = stem_key(of)
        if of not in names and key in left and keys[key] == 1:
            other = matched.setdefault(left[key], of)
            if other != of:
                raise CacheError(
                    f"{other!a} and {of!a} may both be the video {left[key]!a}; remove one of them"
                )
    return names | {of: video_id for video_id, of in matched.items()}


def _spec(source: Path, dim: int, config: ImportConfig) -> CacheSpec:
    if config.name is None:
        raise ConfigError(
            f"Missing option '--name': {source} does not say what made its features; give that a "
            "name, which tables and pictures repeat"
        )
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


def _checked_ids(features: FeatureSource) -> list[str]:
    """Return the ids, in order, or refuse those that no manifest may hold."""
    first: dict[str, tuple[str, str]] = {}
    for video_id, where in features.ids:
        try:
            check_id(video_id)
        except ValueError as error:
            raise CacheError(f"{where}: the id {video_id!a} {error}") from error
        twin, other = first.setdefault(folded_id(video_id), (video_id, where))
        if where != other:
            spelt = f", as {twin!a}" if twin != video_id else ""
            raise CacheError(
                f"{where}: the id {video_id!a} is also at {other}{spelt}; ids are unique"
            )
    return [video_id for video_id, _ in features.ids]


def _done(
    cache: Cache, spec: CacheSpec, features: FeatureSource, names: Mapping[str, str]
) -> frozenset[str]:
    """Return which of the videos named the cache holds; all must be of the file at hand."""
    cache.spec.require(
        spec, f"{cache.folder} holds embeddings made differently; give another --cache"
    )
    done = frozenset(cache.entries.keys() & set(names.values()))
    for of, video_id in names.items():
        if video_id in done and cache.entries[video_id].source_sha256 != features.sha256(of):
            raise CacheError(
                f"{cache.folder} holds the features of video {video_id!r} from another file than "
                f"{features.file(of)}, or from an earlier version of it; give another --cache"
            )
    return done


def _shards(
    features: FeatureSource, pending: Mapping[str, str], spec: CacheSpec, first: str
) -> Iterator[list[EncodedVideo]]:
    """Yield the pending videos in shards, of which one is in memory at a time."""
    shard: list[EncodedVideo] = []
    room = BYTES_PER_SHARD
    for video in features.videos(pending):
        embeddings = _vectors(video, spec, first)
        known = video.known or {
            "pts_seconds": np.arange(len(embeddings), dtype=np.float64),
            "source_bytes": features.file(video.video_id).stat().st_size,
            "source_sha256": features.sha256(video.video_id),
        }
        shard.append(EncodedVideo(pending[video.video_id], embeddings, **known))
        room -= embeddings.nbytes
        if room <= 0 or len(shard) == VIDEOS_PER_SHARD:
            yield shard
            shard, room = [], BYTES_PER_SHARD
    if shard:
        yield shard


def as_steps(video: SourceVideo) -> NDArray[Any]:
    """Return a video's features as (time, dim).

    Raises:
        CacheError: their shape or type is another.
    """
    features = video.features
    if features.dtype.kind not in "fiu":
        raise CacheError(f"{video.where}: features of type {features.dtype}; give numbers")
    if features.dtype.kind in "iu" and features.dtype.itemsize == 2:
        sizes = features[features != 0].astype(np.int32) & 0x7FFF  # without the sign
        if sizes.size and np.mean((sizes >= BFLOAT16[0]) & (sizes < BFLOAT16[1])) > 0.9:
            raise CacheError(
                f"{video.where}: features of type {features.dtype} that look like the bits of "
                "bfloat16, which are other numbers; give them as float32"
            )
    if features.ndim not in (1, 2) or not features.size:
        raise CacheError(
            f"{video.where}: features of shape {features.shape}; give (time, dim), or (dim,) for "
            "one step, without a 0"
        )
    return np.atleast_2d(features)


def _vectors(video: SourceVideo, spec: CacheSpec, first: str) -> NDArray[np.float16]:
    """Check a video's features and return them as the cache keeps them, float16 (time, dim).

    `first` is where the video stands that the width is of.

    Raises:
        CacheError: features of another shape or width, values that are not finite or too large,
            vectors that have no length to divide by, that fill up an array, or that are too small
            for float16.
    """
    steps = as_steps(video)
    if steps.shape[1] != spec.width:
        raise CacheError(
            f"{video.where}: {steps.shape[1]} values a step, but {first} has {spec.width}; all "
            "videos of a cache have the same"
        )
    if video.known:
        rows = steps.astype(np.float16)
        if problem := find_odd_vector(rows, spec):
            raise CacheError(f"{video.where}, step {problem[0]}: {problem[1]}; export it again")
        return rows
    values = steps.astype(np.float64)
    fills = np.all((values == 0) | np.isnan(values), axis=1)
    if video.unpadded and len(values) > 1 and (fills[0] or fills[-1]):
        raise CacheError(
            f"{video.where}: {fills.sum()} of {len(values)} steps are only 0 or NaN, as where a "
            f"shorter video is filled up, and would be frames of it; {video.unpadded}"
        )
    if not np.isfinite(values).all():
        raise _odd_value(video, values, ~np.isfinite(values), "is not a finite number")
    if spec.normalisation == "l2":
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            step = int(np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[0])
            raise CacheError(
                f"{video.where}, step {step}: a vector of length {lengths[step, 0]:g} has no "
                f"direction; {video.unpadded or 'leave it out, or import with --normalise none'}"
            )
        values /= np.where(np.abs(lengths - 1) < UNIT, 1, lengths)
    too_large = np.abs(values) > LARGEST
    if too_large.any():
        why = f"is beyond float16, which ends at {LARGEST:g}; scale the features, or --normalise l2"
        raise _odd_value(video, values, too_large, why)
    stored = values.astype(np.float16)
    vanished = np.flatnonzero(values.any(axis=1) & ~stored.any(axis=1))
    if len(vanished):
        step = int(vanished[0])
        raise CacheError(
            f"{video.where}, step {step}: all values are nothing but 0 in float16, the largest is "
            f"{np.abs(values[step]).max():g}; scale the features, or --normalise l2"
        )
    return stored


def _odd_value(
    video: SourceVideo, values: NDArray[np.float64], odd: NDArray[np.bool_], why: str
) -> CacheError:
    step, column = (int(index) for index in np.argwhere(odd)[0])
    return CacheError(f"{video.where}, step {step}, value {column}: {values[step, column]:g} {why}")
