"""Export of a cache's features to NPZ, Parquet or `.npy` files, for tools that read no shards."""

import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from memfeat.cache.folder import Cache
from memfeat.cache.npz_source import FRAME_SIZE, INDEX, PER_VIDEO
from memfeat.cache.table import FeatureTable
from memfeat.errors import CacheError, ConfigError
from memfeat.storage import Location, atomic_replace
from memfeat.storage.files import part_name
from memfeat.storage.parquet import arrow

VIDEOS_AT_ONCE = 64  # in memory
BYTES_AT_ONCE = 32 << 20  # likewise, unless one video has more
OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest date that the format has, so that bytes repeat


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        path: the file or folder.
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
    """Write features as `path` is named, after verifying the shards' checksums.

    A `.npz`, uncompressed, which `numpy.load` reads:

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
    frame_size         (videos, 2) i8
    spec               () text             what made them, as JSON
    made_by            () text             the same in a line
    =================  ==================  =====================================================

    A name without a suffix becomes a folder: `ID.npy` (time, width) f2 for each video, and all
    other arrays in `memfeat.npz`. Of both `import_features` makes the same entries again.

    A `.parquet` has a row a frame: `video_id`, `pts_seconds`, `covers`, `status`, and `features`, a
    list of `width` float32, since few readers know float16; `spec` and `made_by` are metadata.

    Few videos are in memory at a time.

    Args:
        folder: the cache.
        path: the file to write, or the folder to make.
        wanted: ids, by default of all videos.
        partial: whether to take videos that could be decoded only in part.
        on_start: called once with the number of videos.
        on_video: called with each id as it is written.

    Raises:
        ConfigError: a name that says no format, a folder that is there already, or no pyarrow.
        CacheError: no cache there, a damaged shard, or none of the videos wanted.
        OSError: the file cannot be written.
    """
    write = _writer(path)
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
    export = _Export(cache, ids, on_video or (lambda _: None))
    write(path, export)
    return ExportSummary(
        path,
        videos=len(ids),
        rows=int(export.offsets[-1]),
        left_out=tuple(video_id for video_id in asked if video_id not in known),
        made_by=cache.spec.describe(),
    )


class _Export:
    """The videos to export: their features, a few at a time, and then all that is beside them."""

    def __init__(self, cache: Cache, ids: Sequence[str], on_video: Callable[[str], None]) -> None:
        self.cache, self.ids, self.spec = cache, ids, cache.spec
        self.offsets = cache.offsets_of(ids)
        self._on_video = on_video
        self._columns: dict[str, list[NDArray[Any]]] = {"pts_seconds": [], "covers": []}

    def tables(self) -> Iterator[FeatureTable]:
        """Yield all videos in order."""
        rows = max(1, BYTES_AT_ONCE // (2 * self.spec.width))
        start = 0
        while start < len(self.ids):
            fitting = int(np.searchsorted(self.offsets, self.offsets[start] + rows, side="right"))
            stop = max(start + 1, min(fitting - 1, start + VIDEOS_AT_ONCE))
            table = self.cache.load(self.ids[start:stop])
            for name, column in self._columns.items():
                column.append(getattr(table, name))
            yield table
            for video_id in table.video_ids:
                self._on_video(video_id)
            start = stop

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all but the features, by name, once `tables` has come to its end."""
        entries = [self.cache.entries[video_id] for video_id in self.ids]
        of_videos = (*PER_VIDEO, FRAME_SIZE)
        return {
            **{name: np.concatenate(column) for name, column in self._columns.items()},
            "video_ids": np.array(self.ids),
            "offsets": self.offsets,
            "spec": np.array(self.spec.model_dump_json()),
            "made_by": np.array(self.spec.describe()),
            **{name: np.array([getattr(e, name) for e in entries]) for name in of_videos},
        }


def _writer(path: Path) -> Callable[[Path, _Export], None]:
    """Choose the format by the name.

    Raises:
        ConfigError: it says none, or the folder that it names is there already.
    """
    formats = {".npz": _write_npz, ".parquet": _write_parquet, "": _write_folder}
    if path.suffix.lower() not in formats:
        raise ConfigError(
            f"cannot write {path}: end its name in .npz or .parquet, or in nothing for a folder "
            "of .npy files"
        )
    is_folder = not path.suffix
    if path.is_dir() and (not is_folder or any(path.iterdir())):
        raise ConfigError(f"{path} is a folder that is there already; give another -o")
    if is_folder and path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file, and would be a folder of .npy files; give another -o")
    return formats[path.suffix.lower()]


def _write_npz(path: Path, export: _Export) -> None:
    header = {"descr": "<f2", "fortran_order": False}
    shape = int(export.offsets[-1]), export.spec.width
    with atomic_replace(path) as part, zipfile.ZipFile(part, "w") as archive:
        with _entry(archive, "features") as stream:
            npy.write_array_header_1_0(stream, header | {"shape": shape})
            for table in export.tables():
                stream.write(table.values.astype("<f2", copy=False).data.cast("B"))
        _write_arrays(archive, export)


def _write_folder(path: Path, export: _Export) -> None:
    with _new_folder(path) as part:
        for table in export.tables():
            for index, video_id in enumerate(table.video_ids):
                with (part / f"{video_id}.npy").open("xb") as file:  # ids may differ by case alone
                    npy.write_array(file, table.frames(index).astype("<f2", copy=False))
        with zipfile.ZipFile(part / INDEX, "w") as archive:
            _write_arrays(archive, export)


def _write_parquet(path: Path, export: _Export) -> None:
    pa, parquet = arrow()
    spec = export.spec
    schema = pa.schema(
        [
            ("video_id", pa.string()),
            ("pts_seconds", pa.float64()),
            ("covers", pa.int32()),
            ("status", pa.string()),
            ("features", pa.list_(pa.float32(), spec.width)),
        ],
        metadata={"spec": spec.model_dump_json(), "made_by": spec.describe()},
    )
    options = {"compression": "zstd", "use_dictionary": ["video_id", "status"]}
    with atomic_replace(path) as part, parquet.ParquetWriter(part, schema, **options) as writer:
        for table in export.tables():
            statuses = [export.cache.entries[video_id].status for video_id in table.video_ids]
            columns = [
                pa.array(np.repeat(np.array(table.video_ids, object), table.lengths), pa.string()),
                pa.array(table.pts_seconds),
                pa.array(table.covers),
                pa.array(np.repeat(np.array(statuses, object), table.lengths), pa.string()),
                pa.FixedSizeListArray.from_arrays(
                    pa.array(table.values.astype(np.float32).reshape(-1)), spec.width
                ),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` to fill, and rename it to `path` when the context ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / part_name(path.name)
    part.mkdir()
    try:
        yield part
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_arrays(archive: zipfile.ZipFile, export: _Export) -> None:
    for name, array in export.arrays().items():
        with _entry(archive, name) as stream:
            npy.write_array(stream, array, allow_pickle=False)


def _entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", OLDEST_DATE), "w", force_zip64=True)
