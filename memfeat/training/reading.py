"""Which of a manifest's videos can be used, and their features from the caches."""

import shlex
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import Cache, FeatureTable
from memfeat.cache.spec import NO_TEXT
from memfeat.config import Missing, Split
from memfeat.errors import TrainingError, counted, listed
from memfeat.manifest import Manifest, VideoRecord, leaks
from memfeat.storage import Location


@dataclass(frozen=True)
class Selection:
    """The videos of a manifest that can be used.

    Attributes:
        records: those with features, in the manifest's order.
        notes: a line for the user for each kind of video that goes unused, or that splits share.
    """

    records: tuple[VideoRecord, ...]
    notes: tuple[str, ...]


def select_records(
    manifest: Manifest, *caches: Cache, partial: bool = False, together: str = ""
) -> Selection:
    """Select the videos that have features in every cache; those that failed are left out.

    With `partial` those that could be decoded only in part are taken too. For folds, `together` is
    the column of what stays in one: train and dev are divided anew, so what they share is no
    matter, but files that are several videos are.

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
    divided = [
        r.model_copy(update={"split": "train"}) if together and r.split == "dev" else r
        for r in records
    ]
    return Selection(records, (*notes, *_leaks(divided, caches, together)))


@dataclass(frozen=True)
class Features(Selection):
    """Videos of a manifest with `tables` of their features, one for each cache."""

    tables: tuple[FeatureTable, ...]


def read_features(
    manifest: Manifest,
    folders: Sequence[Location],
    *,
    split: Split | None = None,
    partial: bool = False,
    missing: Missing = "drop",
) -> Features:
    """Read a manifest's videos from caches, whose shards are compared with their checksums.

    Only those of `split`, if it is given; `partial` is as for `select_records`, and `missing` as
    for `Cache.open`.

    Raises:
        TrainingError: videos of the manifest were never extracted; see `select_records`.
        CacheError: a cache cannot be read, or differs from its checksums.
    """
    caches = [Cache.open(folder, missing=missing) for folder in folders]
    selection = select_records(manifest, *caches, partial=partial)
    records = tuple(record for record in selection.records if split in (None, record.split))
    video_ids = [record.video_id for record in records]
    for cache in caches:
        cache.require_whole(video_ids)
    tables = tuple(cache.load(video_ids) for cache in caches)
    return Features(records, selection.notes, tables)


def require_splits(
    records: Sequence[VideoRecord], what: str = "videos", splits: Sequence[str] = ()
) -> None:
    """Refuse to train without scored videos to learn from and to stop by.

    `splits` are the videos', if they are in others than their records say.

    Raises:
        TrainingError: train or dev has none; the message counts what there is.
    """
    of = splits or [record.split for record in records]
    for split in ("train", "dev"):
        found = [record for record, own in zip(records, of, strict=True) if own == split]
        if all(record.score is None for record in found):
            held = f"{counted(len(found), 'video')}, none with a score" if found else "no video"
            raise TrainingError(
                f"of the {len(records)} {what}, the {split} split has {held}; give scored videos "
                "in train to learn from, and in dev to choose the best epoch by"
            )


def scores_of(records: Sequence[VideoRecord]) -> NDArray[np.float64]:
    """Return the videos' scores, (videos,), NaN where they are withheld."""
    return np.array([np.nan if r.score is None else r.score for r in records], np.float64)


def _leaks(records: Sequence[VideoRecord], caches: Sequence[Cache], together: str) -> Iterator[str]:
    """Warn of groups, and of video files with the same bytes, that are in several splits."""
    yield from leaks("group", ((record.group, record) for record in records if record.group))
    for cache in [cache for cache in caches if not cache.spec.is_text][:1]:
        hashes = ((cache.entries[r.video_id].source_sha256, r) for r in records)
        known = [] if cache.spec.is_imported else [pair for pair in hashes if pair[0]]
        yield from leaks("video file", known)
        if together:
            yield from _parted(known, together)


def _parted(known: Iterable[tuple[str, VideoRecord]], together: str) -> Iterator[str]:
    """Warn of files with the same bytes that no value of a column keeps in one fold."""
    videos: dict[str, dict[str, str]] = {}
    for sha256, record in known:
        if record.split != "test":
            name = getattr(record, together) or record.video_id
            videos.setdefault(sha256, {}).setdefault(name, record.video_id)
    apart = [list(each.values()) for each in videos.values() if len(each) > 1]
    if apart:
        yield (
            f"{counted(len(apart), 'video file')} under several ids, "
            f"{' and '.join(map(repr, apart[0][:2]))} first, may come into several folds: give "
            f"each a {together}"
        )


def _missing(manifest: Manifest, cache: Cache) -> str:
    """Say which videos were never extracted into a cache; nothing if all were."""
    missing = [r.video_id for r in manifest.records if r.video_id not in cache.entries]
    if not missing:
        return ""
    listed, held, made_by = (
        shlex.quote(str(each)) for each in (manifest.path, cache.folder, cache.spec.encoder)
    )
    how = (
        f"Import them first: memfeat cache import SRC --cache {held} --name {made_by} "
        f"--manifest {listed}"
        if cache.spec.is_imported
        else f"Extract them first: memfeat extract --manifest {listed} --cache {held} "
        f"{cache.spec.flags if cache.spec.is_text else f'--encoder {made_by}'}"
    )
    return (
        f"{len(missing)} of the {len(manifest.records)} videos of {manifest.path} have no "
        f"features in {cache.folder}: {_some(missing)}. {how}"
    )


def _left_out(manifest: Manifest, cache: Cache, usable: Container[str]) -> Iterator[str]:
    silent = [v for v in manifest.by_id if cache.entries[v].reason == NO_TEXT]
    if silent:
        yield (
            f"{counted(len(silent), 'video')} without a text in {cache.folder} left out (--missing "
            f"zero takes zeros for it): {_some(silent)}"
        )
    if zeros := [video_id for video_id in cache.zeros if video_id in manifest.by_id]:
        yield (
            f"{counted(len(zeros), 'video has', 'videos have')} no text in {cache.folder}; zeros "
            f"stand in: {_some(zeros)}"
        )
    unusable = [v for v in manifest.by_id if v not in usable and v not in set(silent)]
    for status in ("partial", "failed"):
        left_out = [v for v in unusable if cache.entries[v].status == status]
        if left_out:
            yield f"{counted(len(left_out), f'{status} video')} left out: {_some(left_out)}"
    cut = [v for v in manifest.by_id if v in usable and cache.entries[v].status == "partial"]
    if cut:
        yield f"{counted(len(cut), 'partial video')} taken for what could be decoded: {_some(cut)}"
    unlabelled = [video_id for video_id in cache.entries if video_id not in manifest.by_id]
    if unlabelled:
        yield (
            f"{counted(len(unlabelled), 'video')} of {cache.folder}, but not in {manifest.path}, "
            f"unused: {_some(unlabelled)}"
        )


def _some(video_ids: Sequence[str]) -> str:
    return listed(list(map(repr, video_ids)))
