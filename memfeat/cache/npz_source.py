"""Features in an `.npz`, and those that memfeat exported, with all that the cache said of them."""

import math
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from memfeat.cache.feature_source import FeatureSource, SourceVideo, array_errors, load_mapped
from memfeat.cache.shard import TEXTS, check_covers, check_texts
from memfeat.cache.spec import CacheSpec
from memfeat.cache.video import VideoEntry
from memfeat.errors import CacheError, counted, short_repr

INDEX = "memfeat.npz"  # in an exported folder, all but the features
UNPADDED = "give the others as total x dim, with offsets (N + 1,)"
# Of each row, and of each video, in an exported cache: the kind of number, or text.
PER_ROW = {"pts_seconds": "f", "covers": "i"}
PER_VIDEO = {
    **{"status": "U", "reason": "U", "source_sha256": "U"},
    **{"source_bytes": "i", "frames_expected": "i"},
}
FRAME_SIZE = "frame_size"  # of each video as well, but for earlier exports
# What zipfile raises where a file is damaged, cut short, encrypted or of another kind.
_NOT_A_ZIP = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)


class NpzFile(FeatureSource):
    """`video_ids` (N,) and `features`: N x dim, N x time x dim, or total x dim with `offsets`.

    With offsets (N + 1,) video i has the rows offsets[i]:offsets[i + 1]. What `export_features`
    wrote has more, and each video is as it was in the cache.
    """

    _required: ClassVar[tuple[str, ...]] = ("video_ids", "features")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _zip(path) as archive:
            names = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
            for name in self._required:
                if name not in names:
                    raise CacheError(
                        f"{path} has no array {name!r}; it has "
                        f"{', '.join(map(short_repr, sorted(names))) or 'none'}"
                    )
            ids = self._whole(archive, "video_ids")
            offsets = self._offsets(archive) if "offsets" in names else None
            columns = {}
            if names >= {"spec", "offsets", *PER_ROW, *PER_VIDEO}:
                self.spec = self._exported_spec(self._whole(archive, "spec"))
                columns = {name: self._whole(archive, name) for name in (*PER_ROW, *PER_VIDEO)}
                columns[FRAME_SIZE] = np.zeros((ids.size, 2), np.int32)
                if FRAME_SIZE in names:
                    columns[FRAME_SIZE] = self._whole(archive, FRAME_SIZE)
            shape = self._shape(archive, offsets)
        if ids.ndim != 1 or ids.dtype.kind not in "USiu" or not len(ids):
            raise CacheError(
                f"{path}: video_ids is {ids.dtype} {ids.shape}; give one text or number a video"
            )
        texts = [
            each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else str(each)
            for each in ids.tolist()
        ]
        self.ids = [(text, f"{path}, video {number}") for number, text in enumerate(texts)]
        self._counts = self._steps(shape, len(texts), offsets)
        self._known = self._entries(texts, columns) if columns else {}

    def sha256(self, video_id: str) -> str:
        """Return the hash of the file that a video's features are of."""
        known = self._known.get(video_id)
        return known["source_sha256"] if known else super().sha256(video_id)

    def videos(self, wanted: Container[str]) -> Iterator[SourceVideo]:
        """Yield each video's part; see `FeatureSource.videos`."""
        with _zip(self._path) as archive:
            parts = self._parts(archive)
            for (video_id, where), rows in zip(self.ids, parts, strict=True):
                if video_id in wanted:
                    name = f"{where} ({video_id!a})"
                    steps, unpadded = (rows[0], UNPADDED) if rows.ndim == 3 else (rows, "")
                    known = self._known.get(video_id, {})
                    yield SourceVideo(video_id, name, steps, known, unpadded)

    def _offsets(self, archive: zipfile.ZipFile) -> NDArray[Any]:
        offsets = self._whole(archive, "offsets")
        if offsets.dtype.kind not in "iu":
            raise CacheError(f"{self._path}: offsets is {offsets.dtype}; give whole numbers")
        return offsets

    def _exported_spec(self, text: NDArray[Any]) -> CacheSpec:
        try:
            return CacheSpec.model_validate_json(str(text))
        except ValueError as error:
            raise CacheError(
                f"{self._path}: its spec is none of this memfeat's; import it with the version "
                "that exported it, or leave out `spec` and give --name"
            ) from error

    def _entries(
        self, ids: Sequence[str], columns: Mapping[str, NDArray[Any]]
    ) -> dict[str, dict[str, Any]]:
        """Check what an exported cache says of its videos, and return it by id."""
        bounds = np.cumsum([0, *self._counts]).tolist()
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(PER_ROW, (bounds[-1],))
        shapes |= dict.fromkeys(PER_VIDEO, (len(ids),)) | {FRAME_SIZE: (len(ids), 2)}
        known = {}
        try:
            for name, kind in (PER_ROW | PER_VIDEO | {FRAME_SIZE: "i"}).items():
                column = columns[name]
                if (column.dtype.kind, column.shape) != (kind, shapes[name]):
                    raise ValueError(f"{name} is {column.dtype} {column.shape}")
            check_covers(columns["covers"])
            check_texts(ids, *(columns[name].tolist() for name in TEXTS[1:]))
            sizes = list(map(tuple, columns[FRAME_SIZE].tolist()))
            of_videos = (columns[name].tolist() for name in PER_VIDEO)
            for video_id, (start, stop), size, *said in zip(
                ids, pairwise(bounds), sizes, *of_videos, strict=True
            ):
                status, reason, sha256, _, expected = said
                entry = VideoEntry(
                    *(video_id, status, reason, start, stop, 0, expected, sha256),
                    shard=self._path,
                    frame_size=size,
                )
                if entry.contradiction:
                    raise ValueError(f"{entry.contradiction}: {video_id!r}")
                own = slice(start, stop)
                known[video_id] = dict(zip(PER_VIDEO, said, strict=True)) | {
                    FRAME_SIZE: size,
                    "pts_seconds": columns["pts_seconds"][own].astype(np.float64),
                    "covers": columns["covers"][own].astype(np.int32),
                }
        except ValueError as error:
            raise CacheError(f"{self._path}: {error}; export it again") from error
        return known

    def _shape(
        self,
        archive: zipfile.ZipFile,
        offsets: NDArray[Any] | None,  # noqa: ARG002
    ) -> tuple[int, ...]:
        """Return the shape of all videos' features, end to end."""
        with archive.open("features.npy") as stream:
            return self._header(stream)[0]

    def _parts(self, archive: zipfile.ZipFile) -> Iterator[NDArray[Any]]:
        """Yield each video's rows, which NumPy's own loader would read all at once."""
        with archive.open("features.npy") as stream:
            shape, by_column, dtype = self._header(stream)
            if by_column:
                ends = np.cumsum(self._counts)[:-1]
                yield from np.split(self._whole(archive, "features"), ends)
                return
            for count in self._counts:
                wanted = math.prod((count, *shape[1:])) * dtype.itemsize
                data = stream.read(wanted)
                if len(data) < wanted:
                    raise CacheError(f"{self._path}: features is cut short: it promises {shape}")
                yield np.frombuffer(data, dtype).reshape(count, *shape[1:])

    def _steps(
        self, shape: tuple[int, ...], videos: int, offsets: NDArray[Any] | None
    ) -> Sequence[int]:
        """Return how many rows of the features each video has."""
        where = f"{self._path}: features is {shape}"
        if len(shape) not in (2, 3) or (offsets is not None and len(shape) != 2):
            allowed = "N x dim or N x time x dim" if offsets is None else "total x dim with offsets"
            raise CacheError(f"{where}; give {allowed}")
        if offsets is None:
            if shape[0] != videos:
                raise CacheError(
                    f"{where}, but there are {videos} video_ids; give {videos} x dim, "
                    f"{videos} x time x dim, or offsets ({videos + 1},)"
                )
            return [1] * videos
        if offsets.shape != (videos + 1,):
            raise CacheError(
                f"{self._path}: offsets is {offsets.dtype} {offsets.shape}; for {videos} video_ids "
                f"give whole numbers ({videos + 1},)"
            )
        ends = offsets.tolist()
        for number, (start, stop) in enumerate(pairwise(ends)):
            if stop <= start:
                raise CacheError(
                    f"{self._path}: offsets do not rise: offsets[{number}] is {start}, and the "
                    f"next is {stop}; every video needs a step"
                )
        if (ends[0], ends[-1]) != (0, shape[0]):
            raise CacheError(
                f"{self._path}: offsets run from {ends[0]} to {ends[-1]}; features has the rows 0 "
                f"to {shape[0]}"
            )
        return [stop - start for start, stop in pairwise(ends)]

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        """Return the features' shape, whether columns lie one after another, and their type."""
        with array_errors(f"{self._path}: features"):
            first = npy.read_magic(stream) == (1, 0)
            read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
            shape, by_column, dtype = read(stream)
            if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
                raise ValueError(f"it is an array of {dtype} of shape {shape}")
            return shape, by_column, dtype

    def _whole(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        errors = array_errors(f"{self._path}: {name}")
        with archive.open(f"{name}.npy") as stream, errors:
            return npy.read_array(stream, allow_pickle=False)


class ExportedFolder(NpzFile):
    """What `export_features` wrote into a folder: a `.npy` a video, and an index of all else."""

    _required = ("video_ids", "offsets", "spec", *PER_ROW, *PER_VIDEO)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / INDEX)

    def file(self, video_id: str) -> Path:
        """Return the video's own file."""
        return self._path.with_name(f"{video_id}.npy")

    def _shape(
        self,
        archive: zipfile.ZipFile,  # noqa: ARG002
        offsets: NDArray[Any] | None,
    ) -> tuple[int, ...]:
        rows = 0 if offsets is None or not offsets.size else int(offsets.flat[-1])
        return rows, self.spec.width if self.spec else 0

    def _parts(self, archive: zipfile.ZipFile) -> Iterator[NDArray[Any]]:  # noqa: ARG002
        for (video_id, _), count in zip(self.ids, self._counts, strict=True):
            rows = load_mapped(self.file(video_id))
            if rows.shape[:1] != (count,):
                raise CacheError(
                    f"{self.file(video_id)} is {rows.shape}, and {self._path.name} beside it says "
                    f"{counted(count, 'row')}; export it again"
                )
            yield rows


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _NOT_A_ZIP as error:
        raise CacheError(f"{path} is not a sound .npz file: {error}") from error
