"""Features as other people hand them out: `.npy` for each video, one CSV, or one NPZ."""

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.npy import ArrayFile
from memfeat.errors import CacheError, ManifestError, short_repr
from memfeat.storage import read_rows

ID_COLUMNS = ("video_id", "video", "id")
# What zipfile raises where a file is damaged, cut short, encrypted or of another kind.
_UNSOUND = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)
ALLOWED = (
    "give a folder of .npy files, one for each video, a .csv with an id column, or a .npz with "
    "video_ids and features"
)


@dataclass(frozen=True)
class GivenVideo:
    """One video's features as they are given; nothing is checked yet.

    Attributes:
        video_id: its id.
        place: where it stands, for messages.
        features: (time, dim), or (dim,) for a single step; of any type.
    """

    video_id: str
    place: str
    features: NDArray[Any]


class GivenFeatures(ABC):
    """Features of many videos; `open_given` opens them.

    Attributes:
        places: where each id stands, in order; an id given twice stands there twice.
    """

    places: Sequence[tuple[str, str]]

    @abstractmethod
    def file(self, video_id: str) -> Path:
        """Return the file that a video's features are in."""

    @abstractmethod
    def videos(self, wanted: Container[str]) -> Iterator[GivenVideo]:
        """Yield the videos wanted, in order, one in memory at a time where the format allows it.

        Raises:
            CacheError: one cannot be read.
        """


def open_given(path: Path) -> GivenFeatures:
    """Open features of any of the kinds there are.

    Raises:
        CacheError: nothing there, or none of these; names file, row and value.
    """
    if path.is_dir():
        return NpyFolder(path)
    if not path.exists():
        raise CacheError(f"{path} is not there; {ALLOWED}")
    kinds = {".csv": CsvFile, ".tsv": CsvFile, ".npz": NpzFile}
    if path.suffix.lower() not in kinds:
        raise CacheError(f"{path} is none of the files that can be imported; {ALLOWED}")
    return kinds[path.suffix.lower()](path)


class NpyFolder(GivenFeatures):
    """A `.npy` for each video, at any depth, called by the video's id; hidden ones are left out."""

    def __init__(self, folder: Path) -> None:
        # Hidden ones are what some systems leave beside a file, not features.
        self._files = sorted(p for p in folder.rglob("*.npy") if not p.name.startswith("."))
        if not self._files:
            raise CacheError(f"{folder} holds no .npy files; {ALLOWED}")
        self.places = [(path.stem, str(path)) for path in self._files]
        self._by_id = {path.stem: path for path in self._files}

    def file(self, video_id: str) -> Path:
        """Return the video's own file."""
        return self._by_id[video_id]

    def videos(self, wanted: Container[str]) -> Iterator[GivenVideo]:
        """Yield each file's array; see `GivenFeatures.videos`."""
        for path in self._files:
            if path.stem in wanted:
                with path.open("rb") as stream:
                    features = ArrayFile(stream, str(path), path.stat().st_size).read()
                yield GivenVideo(path.stem, str(path), features)


class CsvFile(GivenFeatures):
    """A row for each video: the id, and in all other columns the values of its one step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = list(self._read(path))
        if not self._rows:
            raise CacheError(f"{path} holds no videos; write a header and a line for each")
        self.places = [(video.video_id, video.place) for video in self._rows]

    def file(self, video_id: str) -> Path:  # noqa: ARG002
        """Return the one file."""
        return self._path

    def videos(self, wanted: Container[str]) -> Iterator[GivenVideo]:
        """Yield each row; see `GivenFeatures.videos`."""
        return (video for video in self._rows if video.video_id in wanted)

    @staticmethod
    def _read(path: Path) -> Iterator[GivenVideo]:
        try:
            for line, row in read_rows(path, (), None):
                column = next((name for name in ID_COLUMNS if name in row), None)
                if column is None:
                    found = ", ".join(list(row)[:8])
                    raise CacheError(
                        f"{path}: no id column; call it one of {', '.join(ID_COLUMNS)}. The "
                        f"columns found begin {found}"
                    )
                place = f"{path}, line {line}"
                video_id = row.pop(column).strip()
                yield GivenVideo(video_id, place, _numbers(place, row))
        except ManifestError as error:
            raise CacheError(str(error)) from error


class NpzFile(GivenFeatures):
    """`video_ids` (N,) and `features`: N x dim, N x time x dim, or total x dim with `offsets`.

    With offsets (N + 1,) video i has the rows offsets[i]:offsets[i + 1].
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _npz(path) as archive:
            names = {name[:-4] for name in archive.namelist() if name.endswith(".npy")}
            for name in ("video_ids", "features"):
                if name not in names:
                    raise CacheError(
                        f"{path} has no array {name!r}; it has "
                        f"{', '.join(map(short_repr, sorted(names))) or 'none'}"
                    )
            ids = self._array(archive, "video_ids")
            offsets = self._array(archive, "offsets") if "offsets" in names else None
            with self._open(archive, "features") as features:
                shape = features.shape
        if ids.ndim != 1 or ids.dtype.kind not in "USiu" or not len(ids):
            raise CacheError(
                f"{path}: video_ids is {ids.dtype} {ids.shape}; give one text or number a video"
            )
        texts = [
            each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else str(each)
            for each in ids.tolist()
        ]
        self.places = [(text, f"{path}, video {number}") for number, text in enumerate(texts)]
        self._counts = self._steps(shape, len(texts), offsets)

    def file(self, video_id: str) -> Path:  # noqa: ARG002
        """Return the one file."""
        return self._path

    def videos(self, wanted: Container[str]) -> Iterator[GivenVideo]:
        """Yield each video's part; see `GivenFeatures.videos`."""
        with _npz(self._path) as archive, self._open(archive, "features") as features:
            whole = None if features.is_by_row else features.read()
            row = 0
            for (video_id, place), count in zip(self.places, self._counts, strict=True):
                rows = features.next_rows(count) if whole is None else whole[row : row + count]
                row += count
                if video_id in wanted:
                    steps = rows[0] if rows.ndim == 3 else rows
                    yield GivenVideo(video_id, f"{place} ({video_id!a})", steps)

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

    def _array(self, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
        with self._open(archive, name) as array:
            return array.read()

    @contextmanager
    def _open(self, archive: zipfile.ZipFile, name: str) -> Iterator[ArrayFile]:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as stream:
            yield ArrayFile(stream, f"{self._path}: {name}", info.file_size)


@contextmanager
def _npz(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _UNSOUND as error:
        raise CacheError(f"{path} is not a sound .npz file: {error}") from error


def _numbers(place: str, row: dict[str, Any]) -> NDArray[np.float64]:
    try:
        return np.array(list(map(float, row.values())))
    except (TypeError, ValueError):
        for column, cell in row.items():
            try:
                float(cell)
            except (TypeError, ValueError):
                raise CacheError(
                    f"{place}, column {column}: {short_repr(cell)} is not a number; besides the "
                    "id all columns are features"
                ) from None
        raise
