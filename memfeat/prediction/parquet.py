"""A table of scores as Parquet, which cannot be appended to: until it is whole it grows as text."""

from pathlib import Path
from typing import Any

from memfeat.errors import ConfigError
from memfeat.prediction.tables import SCORES, ScoresTable
from memfeat.storage import atomic_replace, format_rows, read_rows, write_atomically
from memfeat.storage.parquet import arrow

PARQUET = ".parquet"
NUMBERS = {"score", "score_std", "low", "high", "percentile", "familiarity"}


class ParquetScores(ScoresTable):
    """A table of scores whose rows are kept beside it, `X.parquet.jsonl`, until all are there."""

    def __init__(self, path: Path, model_id: str, *, retry_failed: bool = False) -> None:
        """Open the table, or make it; see `ScoresTable`.

        Raises:
            ConfigError: as for `ScoresTable`; or pyarrow is not installed, or what is there is no
                table of scores.
        """
        arrow()
        growing = _growing(path)
        taken_up = path.exists() and not growing.exists()
        if taken_up:
            write_atomically(growing, format_rows(growing, SCORES, _read(path)))
        try:
            super().__init__(growing, model_id, retry_failed=retry_failed)
        except ConfigError:
            if taken_up:
                growing.unlink()
            raise
        self.output = path

    def __exit__(self, *error: object) -> None:
        super().__exit__()
        if error[0] is None:
            rows = [row for _, row in read_rows(self.path, SCORES, ())]
            _write(self.output, rows)
            self.path.unlink()


def scores_table(path: Path, model_id: str, *, retry_failed: bool) -> ScoresTable:
    """Open a table of scores in the format that the file's suffix says.

    Raises:
        ConfigError, OSError: as for `ScoresTable` and `ParquetScores`.
    """
    kind = ParquetScores if path.suffix.lower() == PARQUET else ScoresTable
    return kind(path, model_id, retry_failed=retry_failed)


def scored_before(path: Path, *, retry_failed: bool) -> set[str]:
    """Return the names of the videos that a table of scores holds; nothing is written.

    There need not be one. With `retry_failed` videos that failed do not count.

    Raises:
        ConfigError, ManifestError: it cannot be read.
    """
    is_parquet = path.suffix.lower() == PARQUET
    if is_parquet and path.exists() and not _growing(path).exists():
        rows = _read(path)
    else:
        path = _growing(path) if is_parquet else path
        rows = [row for _, row in read_rows(path, SCORES, ())] if path.exists() else []
    return {str(r["video"]) for r in rows if not (retry_failed and r["status"] == "failed")}


def _growing(path: Path) -> Path:
    return path.with_name(f"{path.name}.jsonl")


def _read(path: Path) -> list[dict[str, Any]]:
    pa, parquet = arrow()
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} cannot be read as Parquet: {why}; give another file") from error
    if tuple(table.column_names) != SCORES:
        raise ConfigError(
            f"{path} is there already, and its columns are {', '.join(table.column_names)[:200]}, "
            "not those of memfeat's scores; give another file, or delete that one"
        )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    pa, parquet = arrow()
    kinds = [(name, pa.float64() if name in NUMBERS else pa.string()) for name in SCORES]
    with atomic_replace(path) as part:
        parquet.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), part)
