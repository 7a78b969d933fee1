"""Features as other people hand them out: a `.npy` for each video, one CSV, or one NPZ."""

import re
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.feature_source import FeatureSource, SourceVideo, load_mapped
from memfeat.cache.npz_source import INDEX, ExportedFolder, NpzFile
from memfeat.errors import CacheError, ManifestError, short_repr
from memfeat.storage import parse_number, read_rows
from memfeat.storage.names import ID_COLUMNS

# Names of columns that are no features: of ids, of the index that pandas and others write, and of
# what is to be predicted.
_NO_FEATURE = re.compile(
    r"""
    \W* | unnamed.* | level_\d+
    | (row|line|sample|video|clip|old|orig|df)?[\W_]*(index|idx) | (row|line)?[\W_]*(no|nr)\W*
    | rows? | (row|line)[\W_]*num(ber)?
    | videos? | vid | clip | file([\W_]*name)? | name | path | uuid
    | (.*[\W_]|video|clip|item|row|sample|file|u)?ids? | (?-i:.*[a-z]I[dD]s?)
    | (mem\w*[\W_]*)?(scores?|labels?|targets?|alpha) | memorability | ground[\W_]*truth
    """,
    re.VERBOSE | re.IGNORECASE,
)
FEWEST_COUNTED = 3  # rows, below which a column may hold such numbers by chance
FEWEST_SHUFFLED = 10  # likewise, where they need not be in order
ALLOWED = (
    "give a folder of .npy files, one for each video, a .csv with an id column, or a .npz with "
    "video_ids and features"
)


def open_source(path: Path) -> FeatureSource:
    """Open features in any of the formats.

    Raises:
        CacheError: nothing there, or none of these; names file, row and value.
    """
    if path.is_dir():
        return ExportedFolder(path) if (path / INDEX).is_file() else NpyFolder(path)
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
                yield SourceVideo(path.stem, str(path), load_mapped(path))


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
        is_written_whole: Any = True
        try:
            for line, row in read_rows(self._path, (), None):
                id_column = id_column or self._id_column(list(row))
                where = f"{self._path}, line {line}"
                video_id = row.pop(id_column).strip()
                columns = list(row)
                values.append(_values(where, row))
                if len(values) < FEWEST_COUNTED:
                    is_written_whole &= np.array([cell.strip().isdigit() for cell in row.values()])
                yield SourceVideo(video_id, where, values[-1])
        except ManifestError as error:
            raise CacheError(str(error)) from error
        if len(values) >= FEWEST_COUNTED:
            self._refuse_counts(columns, np.stack(values))
        elif values and is_written_whole.sum() == 1 < len(columns):
            alone = np.stack(values)[:, is_written_whole]
            if alone[0] in (0, 1):  # beside decimals
                self._refuse_counts([columns[is_written_whole.argmax()]], alone)

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
                    f"{self._path}: the column {short_repr(name)} is named like an id, an index "
                    f"or a score, and would be a feature beside the id {found!r}; remove it, or "
                    "give a feature a name of its own"
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


def _values(where: str, row: dict[str, Any]) -> NDArray[np.float64]:
    try:
        return np.array(list(map(parse_number, row.values())))
    except (TypeError, ValueError):
        for column, cell in row.items():
            with suppress(TypeError, ValueError):
                parse_number(cell)
                continue
            raise CacheError(
                f"{where}, column {column}: {short_repr(cell)} is not a number; besides the id all "
                "columns are features"
            ) from None
        raise
