"""Tables of scores and effects, which grow by a video at a time and say what is done."""

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from memfeat.errors import ConfigError, ManifestError
from memfeat.prediction.results import VideoPrediction
from memfeat.storage import format_rows, read_rows, write_atomically
from memfeat.storage.tables import SUFFIXES

SCORES = (
    *("video", "score", "score_std", "low", "high", "percentile", "familiarity", "cautions"),
    *("status", "reason", "video_id", "model"),
)
EFFECTS = ("video", "pts_seconds", "effect", "weight")
DIGITS = 6  # after the point; features are float16


class GrowingTable:
    """A table that whole rows are appended to; a context manager.

    Whatever ends the process, the file has whole rows. If a full disk cut the last one, that is
    dropped when the table is opened again.

    Attributes:
        path: the file.
        rows: those that it holds, as `read_rows` gives them, without any that are appended.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Open the table, or make it.

        Raises:
            ConfigError: the suffix says no format, the file holds something else, or another
                process is writing it.
            OSError: it cannot be written.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"cannot write {path}: end its name in {', '.join(SUFFIXES)}")
        if path.is_dir():
            raise ConfigError(f"cannot write {path}: it is a folder; name a file")
        self.path, self._columns = path, columns
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        try:
            self.rows = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows.

        Raises:
            OSError: the disk is full, and so on.
        """
        content = format_rows(self.path, self._columns, rows)
        self._write(content.partition(b"\n")[2] if self._has_header else content)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop those rows that it held from the start and that are not wanted.

        Raises:
            OSError: the file cannot be written.
        """
        kept = [row for row in self.rows if wanted(row)]
        if len(kept) < len(self.rows):
            write_atomically(self.path, format_rows(self.path, self._columns, kept))
            self._file.close()
            self._file, self.rows = self._open(), kept

    def _open(self) -> BinaryIO:
        file = self.path.open("ab")
        try:
            with suppress(OSError):  # some file systems have no locks
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise ConfigError(
                        f"another process is writing {self.path}; wait for it, or give another file"
                    ) from error
        except ConfigError:
            file.close()
            raise
        return file

    @property
    def _has_header(self) -> bool:
        return self.path.suffix.lower() != ".jsonl"

    @property
    def _start(self) -> bytes:
        """What the file begins with: its header, or the first object's first name."""
        header = format_rows(self.path, self._columns, [])
        return header or f'{{"{self._columns[0]}": '.encode()

    def _read(self) -> list[dict[str, Any]]:
        content, start = self.path.read_bytes(), self._start
        if content[: len(start)] != start[: len(content)]:
            raise ConfigError(
                f"{self.path} is there already, and does not begin with {start.decode().strip()!r} "
                "as memfeat would write it; give another file, or delete that one"
            )
        os.truncate(self.path, content.rfind(b"\n") + 1)
        if self._has_header and b"\n" not in content:
            self._write(start)
        try:
            return [row for _, row in read_rows(self.path, self._columns, ())]
        except ManifestError as error:
            raise ConfigError(f"{error}; mend it, delete it or give another file") from error

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()


class ScoresTable(GrowingTable):
    """A row for each video: its score, how far to trust it, and what became of it.

    Attributes:
        output: the file that the scores end in.
        done: the names of the videos that it held from the start.
    """

    def __init__(self, path: Path, model_id: str, *, retry_failed: bool = False) -> None:
        """Open the table, or make it.

        Args:
            path: the file.
            model_id: of the models whose scores it is to hold.
            retry_failed: whether to drop the rows of videos that failed.

        Raises:
            ConfigError: as for any table; or it holds the scores of other models.
            OSError: it cannot be written.
        """
        super().__init__(path, SCORES)
        self.output = path
        self._model_id = model_id
        others = {row["model"] for row in self.rows} - {model_id}
        if others:
            self._file.close()
            raise ConfigError(
                f"{path} holds the scores of another model ({min(others)}, and this one is "
                f"{model_id}); give another file, or delete that one"
            )
        if retry_failed:
            self.keep(lambda row: row["status"] != "failed")
        self.done = {str(row["video"]) for row in self.rows}

    def add(self, prediction: VideoPrediction) -> None:
        """Append a video's row.

        Raises:
            OSError: the disk is full, and so on.
        """
        self.append([score_row(prediction, self._model_id)])


class EffectsTable(GrowingTable):
    """A row for each frame of each video: its time, its effect and its weight."""

    def __init__(self, path: Path) -> None:
        """Open the table, or make it; see `GrowingTable`."""
        super().__init__(path, EFFECTS)

    def add(self, prediction: VideoPrediction) -> None:
        """Append a video's rows; a failed one has none.

        Raises:
            OSError: the disk is full, and so on.
        """
        if prediction.score is None:
            return
        times = prediction.pts_seconds.tolist()
        columns = [
            [None] * len(times) if values is None else values.tolist()
            for values in (prediction.effects, prediction.weights)
        ]
        self.append(
            {"video": prediction.name, "pts_seconds": time, "effect": effect, "weight": weight}
            for time, effect, weight in zip(times, *columns, strict=True)
        )


def score_row(prediction: VideoPrediction, model: str) -> dict[str, Any]:
    """Return a video's row, with the columns `SCORES`; `model` names what scored it."""
    low, high = prediction.interval or (None, None)
    numbers = {
        "score": prediction.score,
        "score_std": prediction.score_std,
        "low": low,
        "high": high,
        "percentile": prediction.percentile,
        "familiarity": prediction.familiarity,
    }
    texts = {
        "video": prediction.name,
        "video_id": prediction.video_id,
        "cautions": " ".join(prediction.cautions),
        "status": prediction.status,
        "reason": prediction.reason,
        "model": model,
    }
    return texts | {
        k: None if value is None else round(value, DIGITS) for k, value in numbers.items()
    }
