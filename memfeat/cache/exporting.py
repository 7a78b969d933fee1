"""Export of a cache's features to one NPZ, for tools that do not read shards."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from memfeat.cache.folder import Cache
from memfeat.cache.sources import PER_VIDEO
from memfeat.errors import CacheError
from memfeat.storage import Location, atomic_replace

VIDEOS_AT_ONCE = 64  # in memory
OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest date that the format has, so that bytes repeat


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        path: the file.
        videos, rows: how many are in it.
        left_out: ids wanted that the cache has no features of.
        made_by: encoder and weights in a line, as the file says it too.
    """

    path: Path
    videos: int
    rows: int
    left_out: tuple[str, ...]
    made_by: str


def export_features(
    folder: Location,
    path: Path,
    *,
    wanted: Sequence[str] | None = None,
    partial: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_video: Callable[[str], None] | None = None,
) -> ExportSummary:
    """Write features into an uncompressed NPZ, after verifying the shards' checksums.

    =================  ==================  =====================================================
    array              shape, type         meaning
    =================  ==================  =====================================================
    video_ids          (videos,) text      in the order wanted, or sorted
    offsets            (videos + 1,) i8    video i has the rows offsets[i]:offsets[i + 1]
    features           (rows, width) f2    as in the cache
    pts_seconds        (rows,) f8          presentation time of each row's frame
    covers             (rows,) i4          frames, or clips, that each stands for
    status, reason     (videos,) text      as in the cache, and so are the following
    source_sha256      (videos,) text
    source_bytes       (videos,) i8
    frames_expected    (videos,) i8
    spec               () text             what made them, as JSON
    made_by            () text             the same in a line
    =================  ==================  =====================================================

    `numpy.load` reads it, and `import_features`, which makes the same entries of it. Few videos are
    in memory at a time.

    Args:
        folder: the cache.
        path: the file to write.
        wanted: ids, by default of all videos.
        partial: whether to take videos that could be decoded only in part.
        on_start: called once with the number of videos.
        on_video: called with each id as it is written.

    Raises:
        CacheError: no cache there, a damaged shard, or none of the videos wanted.
        OSError: the file cannot be written.
    """
    cache = Cache.open(folder)
    usable = cache.usable(partial=partial)
    asked = usable if wanted is None else tuple(dict.fromkeys(wanted))
    known = set(usable)
    ids = [video_id for video_id in asked if video_id in known]
    if not ids:
        raise CacheError(f"{folder} has features of none of the {len(asked)} videos wanted")
    if on_start:
        on_start(len(ids))
    cache.require_whole(ids)
    offsets = cache.offsets_of(ids)
    with atomic_replace(path) as part, zipfile.ZipFile(part, "w") as archive:
        others = _write_features(archive, cache, ids, on_video or (lambda _: None))
        others |= {
            "video_ids": np.array(ids),
            "offsets": offsets,
            "spec": np.array(cache.spec.model_dump_json()),
            "made_by": np.array(cache.spec.describe()),
            **{n: np.array([getattr(cache.entries[v], n) for v in ids]) for n in PER_VIDEO},
        }
        for name, array in others.items():
            with _entry(archive, name) as stream:
                npy.write_array(stream, array, allow_pickle=False)
    return ExportSummary(
        path,
        videos=len(ids),
        rows=int(offsets[-1]),
        left_out=tuple(video_id for video_id in asked if video_id not in known),
        made_by=cache.spec.describe(),
    )


def _write_features(
    archive: zipfile.ZipFile,
    cache: Cache,
    ids: Sequence[str],
    on_video: Callable[[str], None],
) -> dict[str, NDArray[Any]]:
    """Write the features, of a few videos at a time; return what else there is of each row."""
    pts_seconds, covers = [], []
    shape = int(cache.offsets_of(ids)[-1]), cache.spec.width
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with _entry(archive, "features") as stream:
        npy.write_array_header_1_0(stream, header)
        for start in range(0, len(ids), VIDEOS_AT_ONCE):
            table = cache.load(ids[start : start + VIDEOS_AT_ONCE])
            stream.write(table.values.astype("<f2", copy=False).data.cast("B"))
            pts_seconds.append(table.pts_seconds)
            covers.append(table.covers)
            for video_id in table.video_ids:
                on_video(video_id)
    return {"pts_seconds": np.concatenate(pts_seconds), "covers": np.concatenate(covers)}


def _entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", OLDEST_DATE), "w", force_zip64=True)
