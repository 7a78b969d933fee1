"""Features as other people hand them out: a `.npy` for each video, one CSV, or one NPZ."""

import math
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from memfeat.cache.shard import TEXTS, check_covers, check_texts
from memfeat.cache.spec import CacheSpec
from memfeat.cache.video import VideoEntry
from memfeat.errors import CacheError, ManifestError, short_repr
from memfeat.storage import read_rows, sha256_of_file

ID_COLUMNS = ("video_id", "video", "id")
# Names of columns that are no features: of ids, and of the index that pandas and others write.
_NO_FEATURE = re.compile(
    r"""
    \W* | unnamed.* | level_\d+
    | (row|line|sample|video|clip|old|orig|df)?[\W_]*(index|idx) | (row|line)?[\W_]*(no|nr)\W*
    | rows? | (row|line)[\W_]*num(ber)?
    | videos? | vid | clip | file([\W_]*name)? | name | path | uuid
    | (.*[\W_]|video|clip|item|row|sample|file|u)?ids? | (?-i:.*[a-z]I[dD]s?)
    """,
    re.VERBOSE | re.IGNORECASE,
)
UNPADDED = "give the others as total x dim, with offsets (N + 1,)"
FEWEST_COUNTED = 3  # rows, below which a column may hold such numbers by chance
FEWEST_SHUFFLED = 10  # likewise, where they need not be in order
# Of each row, and of each video, in an exported cache: the kind of number, or text.
PER_ROW = {"pts_seconds": "f", "covers": "i"}
PER_VIDEO = {
    **{"status": "U", "reason": "U", "source_sha256": "U"},
    **{"source_bytes": "i", "frames_expected": "i"},
}
ALLOWED = (
    "give a folder of .npy files, one for each video, a .csv with an id column, or a .npz with "
    "video_ids and features"
)
# What NumPy raises for a header that is damaged, cut short, or claims more than there is.
_NOT_AN_ARRAY = (ValueError, TypeError, TokenError, EOFError, MemoryError)
# What zipfile raises where a file is damaged, cut short, encrypted or of another kind.
_NOT_A_ZIP = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)


@dataclass(frozen=True)
class SourceVideo:
    """One video's features as they were read; nothing is checked yet.

    Attributes:
        video_id: its id.
        where: file, and line or number, for messages.
        features: (time, dim), or (dim,) for a single step; of any type.
        known: what an exported cache says of it, for `EncodedVideo`; empty of other sources.
        unpadded: how to give them without steps that only fill up an array in which all videos have
            as many, in words; empty where they need not have.
    """

    video_id: str
    where: str
    features: NDArray[Any]
    known: Mapping[str, Any] = field(default_factory=dict)
    unpadded: str = ""


class FeatureSource(ABC):
    """Features of many videos; `open_source` opens them.

    Attributes:
        ids: (video id, where it was read) in order; an id given twice is there twice.
        spec: what made them, if the source is an exported cache.
    """

    ids: Sequence[tuple[str, str]]
    spec: CacheSpec | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = cache(sha256_of_file)

    def file(self, video_id: str) -> Path:  # noqa: ARG002
        """Return the file that a video's features are in."""
        return self._path

    def sha256(self, video_id: str) -> str:
        """Return the hash of the file that a video's features are of."""
        return self._digest(self.file(video_id))

    @abstractmethod
    def videos(self, wanted: Container[str]) -> Iterator[SourceVideo]:
        """Yield the videos wanted, in order, one in memory at a time where the format allows it.

        Raises:
            CacheError: one cannot be read.
        """


def open_source(path: Path) -> FeatureSource:
    """Open features in any of the formats.

    Raises:
        CacheError: nothing there, or none of these; names file, row and value.
    """
    if path.is_dir():
        return NpyFolder(path)
    if not path.exists():
        raise CacheError(f"{path} is not there; {ALLOWED}")
    formats = {".csv": CsvFile, ".tsv": CsvFile, ".npz": NpzFile}
    if path.suffix.lower() not in formats:
        raise CacheError(f"{path} is none of the files that can be imported; {ALLOWED}")
    return formats[path.suffix.lower()](path)


class NpyFolder(FeatureSource):
    """A `.npy` for each video, at any depth, named by the video's id; hidden ones are left out."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Hidden ones are what some systems leave beside a file, not features.
        self._files = sorted(p for p in folder.rglob("*.npy") if not p.name.startswith("."))
        if not self._files:
            raise CacheError(f"{folder} holds no .npy files; {ALLOWED}")
        self.ids = [(path.stem, str(path)) for path in self._files]
        self._by_id = {path.stem: path for path in self._files}

    def file(self, video_id: str) -> Path:
        """Return the video's own file."""
        return self._by_id[video_id]

    def videos(self, wanted: Container[str]) -> Iterator[SourceVideo]:
        """Yield each file's array; see `FeatureSource.videos`."""
        for path in self._files:
            if path.stem in wanted:
                with _array_errors(str(path)):
                    # Mapped, so that a header's claims are compared with the size of the file.
                    features = np.load(path, mmap_mode="r", allow_pickle=False)
                    if not isinstance(features, np.ndarray):
                        raise ValueError("it is a .npz")
                yield SourceVideo(path.stem, str(path), features)


class CsvFile(FeatureSource):
    """A row for each video: the id, and in all other columns the values of its one step."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows = list(self._read())
        if not self._rows:
            raise CacheError(f"{path} holds no videos; write a header and a line for each")
        self.ids = [(video.video_id, video.where) for video in self._rows]

    def videos(self, wanted: Container[str]) -> Iterator[SourceVideo]:
        """Yield each row; see `FeatureSource.videos`."""
        return (video for video in self._rows if video.video_id in wanted)

    def _read(self) -> Iterator[SourceVideo]:
        id_column, columns, values = None, [], []
        try:
            for line, row in read_rows(self._path, (), None):
                id_column = id_column or self._id_column(list(row))
                where = f"{self._path}, line {line}"
                video_id = row.pop(id_column).strip()
                columns = list(row)
                values.append(_values(where, row))
                yield SourceVideo(video_id, where, values[-1])
        except ManifestError as error:
            raise CacheError(str(error)) from error
        if len(values) >= FEWEST_COUNTED:
            self._refuse_counts(columns, np.stack(values))

    def _id_column(self, columns: Sequence[str]) -> str:
        """Return the column of the ids, of which there must be one, and nothing like another."""
        found = next((name for name in ID_COLUMNS if name in columns), None)
        if found is None:
            raise CacheError(
                f"{self._path}: no id column; call it one of {', '.join(ID_COLUMNS)}. The columns "
                f"found begin {', '.join(columns[:8])}"
            )
        for name in columns:
            if name != found and _NO_FEATURE.fullmatch(name.strip()):
                raise CacheError(
                    f"{self._path}: the column {short_repr(name)} is named like an id or an index, "
                    f"and would be a feature beside the id {found!r}; remove it, or give a feature "
                    "a name of its own"
                )
        return found

    def _refuse_counts(self, columns: Sequence[str], values: NDArray[np.float64]) -> None:
        """Refuse a column that counts the rows; `values` are (rows, columns)."""
        ordered = np.sort(values, axis=0) if len(values) >= FEWEST_SHUFFLED else values
        with np.errstate(invalid="ignore"):
            counting = (np.diff(ordered, axis=0) == 1).all(axis=0)
        for column in np.flatnonzero(counting)[:1]:
            begin = ", ".join(f"{value:g}" for value in values[:3, column])
            raise CacheError(
                f"{self._path}: the column {short_repr(columns[column])} counts the rows ({begin}, "
                "...), as an index does, and would be a feature; remove it, or give the features "
                "as a .npz if it is one"
            )


class NpzFile(FeatureSource):
    """`video_ids` (N,) and `features`: N x dim, N x time x dim, or total x dim with `offsets`.

    With offsets (N + 1,) video i has the rows offsets[i]:offsets[i + 1]. What `export_features`
    wrote has more, and each video is as it was in the cache.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with _zip(path) as archive:
            names = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
            for name in ("video_ids", "features"):
                if name not in names:
                    raise CacheError(
                        f"{path} has no array {name!r}; it has "
                        f"{', '.join(map(short_repr, sorted(names))) or 'none'}"
                    )
            ids = self._whole(archive, "video_ids")
            offsets = self._whole(archive, "offsets") if "offsets" in names else None
            columns = {}
            if names >= {"spec", "offsets", *PER_ROW, *PER_VIDEO}:
                self.spec = self._exported_spec(self._whole(archive, "spec"))
                columns = {name: self._whole(archive, name) for name in (*PER_ROW, *PER_VIDEO)}
            with archive.open("features.npy") as stream:
                shape, _, _ = self._header(stream)
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
        lengths = dict.fromkeys(PER_ROW, bounds[-1]) | dict.fromkeys(PER_VIDEO, len(ids))
        known = {}
        try:
            for name, kind in (PER_ROW | PER_VIDEO).items():
                column = columns[name]
                if (column.dtype.kind, column.shape) != (kind, (lengths[name],)):
                    raise ValueError(f"{name} is {column.dtype} {column.shape}")
            check_covers(columns["covers"])
            check_texts(ids, *(columns[name].tolist() for name in TEXTS[1:]))
            for video_id, (start, stop), *said in zip(
                ids, pairwise(bounds), *(columns[name].tolist() for name in PER_VIDEO), strict=True
            ):
                status, reason, sha256, _, expected = said
                entry = VideoEntry(
                    *(video_id, status, reason, start, stop, 0, expected, sha256), shard=self._path
                )
                if entry.contradiction:
                    raise ValueError(f"{entry.contradiction}: {video_id!r}")
                own = slice(start, stop)
                known[video_id] = dict(zip(PER_VIDEO, said, strict=True)) | {
                    "pts_seconds": columns["pts_seconds"][own].astype(np.float64),
                    "covers": columns["covers"][own].astype(np.int32),
                }
        except ValueError as error:
            raise CacheError(f"{self._path}: {error}; export it again") from error
        return known

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
        if offsets.shape != (videos + 1,) or offsets.dtype.kind not in "iu":
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
        with _array_errors(f"{self._path}: features"):
            first = npy.read_magic(stream) == (1, 0)
            read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
            shape, by_column, dtype = read(stream)
            if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
                raise ValueError(f"it is an array of {dtype} of shape {shape}")
            return shape, by_column, dtype

    def _whole(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        errors = _array_errors(f"{self._path}: {name}")
        with archive.open(f"{name}.npy") as stream, errors:
            return npy.read_array(stream, allow_pickle=False)


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _NOT_A_ZIP as error:
        raise CacheError(f"{path} is not a sound .npz file: {error}") from error


@contextmanager
def _array_errors(name: str) -> Iterator[None]:
    """Turn what NumPy raises for a bad or pickled array into `CacheError`."""
    try:
        with np.errstate(over="ignore"):  # of the bytes that a header claims
            yield
    except _NOT_AN_ARRAY as error:
        why = (str(error).splitlines() or ["its header is cut short"])[0].rstrip(".")
        raise CacheError(
            f"{name} is not an array that NumPy saved, or is cut short, or holds Python objects, "
            f"which pickle would run: {why}. Save numbers, and ids as np.array(ids, dtype=str)"
        ) from error


def _values(where: str, row: dict[str, Any]) -> NDArray[np.float64]:
    try:
        return np.array(list(map(float, row.values())))
    except (TypeError, ValueError):
        for column, cell in row.items():
            with suppress(TypeError, ValueError):
                float(cell)
                continue
            raise CacheError(
                f"{where}, column {column}: {short_repr(cell)} is not a number; besides the id all "
                "columns are features"
            ) from None
        raise
