"""Tables of text: CSV, TSV or JSON Lines, by the file's suffix."""

import csv
import io
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from memfeat.errors import ManifestError, RemoteError, short_repr
from memfeat.storage.files import stand_in
from memfeat.storage.locations import Url
from memfeat.storage.remote import read

SUFFIXES = (".csv", ".tsv", ".jsonl")
ARCHIVES = {
    b"PK\x03\x04": "an Excel workbook or another zip archive; save or unpack it as text",
    b"\x1f\x8b\x08": "compressed by gzip; unpack it",
}
_DELIMITERS = {".tsv": "\t"}
Row = tuple[int, dict[str, Any]]


def read_rows(
    path: Path | Url,
    required: Sequence[str],
    optional: Sequence[str] | None,
    *,
    repeatable: Container[str] | bool = (),
) -> Iterator[Row]:
    """Yield each row as (line of the file it starts on, counted from 1; values by column).

    CSV and TSV give strings, JSON Lines what each object holds. UTF-8, with or without BOM; bytes
    that are not UTF-8 come through as lone surrogates, which in a path still name a real file.
    With None for `optional`, any other columns may be there, as other people's files have them.
    A `repeatable` column (with True: any) may stand there several times; it gives a list then.

    Raises:
        ManifestError: an unreadable file, UTF-16, another delimiter, wrong quoting, a row of
            another width, and columns that are unknown, repeated or missing.
    """
    try:
        content = read(path) if isinstance(path, Url) else path.read_bytes()
    except RemoteError as error:
        raise ManifestError(str(error)) from error
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ManifestError(f"{path}, line 1: the file is UTF-16; save it as UTF-8")
    archive = next((what for mark, what in ARCHIVES.items() if content.startswith(mark)), None)
    if what := archive or stand_in(content[:64]):
        raise ManifestError(f"{path}, line 1: the file is {what}")
    text = content.decode("utf-8-sig", "surrogateescape")
    rows = _json_rows if path.suffix.lower() == ".jsonl" else _delimited_rows
    for line, names, row in rows(path, text):
        if names is not None:
            once = [
                name
                for at, name in enumerate(names)
                if name not in names[:at] or not (repeatable is True or name in (repeatable or ()))
            ]
            _check_columns(f"{path}, line {line}", once, required, optional)
        if row is not None:
            yield line, row


def parse_number(text: str) -> float:
    """Return the number that a cell holds; unlike float(), take neither `1_0` nor other digits.

    Raises:
        ValueError: it is none.
        TypeError: it is no text.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"{short_repr(text)} is not a number")
    return float(text)


def format_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the file's content in the format of `path`'s suffix; floats read back exactly."""
    if path.suffix.lower() == ".jsonl":
        lines = (json.dumps({name: row[name] for name in columns}) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode()
    table = [columns, *([row[name] for name in columns] for row in rows)]
    text = _delimited(table, _DELIMITERS.get(path.suffix.lower(), ","), csv.QUOTE_MINIMAL)
    if "\r" in text:  # which minimal quoting leaves bare, though readers take it for a line's end
        text = _delimited(table, _DELIMITERS.get(path.suffix.lower(), ","), csv.QUOTE_ALL)
    return text.encode("utf-8", "surrogateescape")


def _delimited(table: Iterable[Sequence[Any]], delimiter: str, quoting: Literal[0, 1]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(table)
    return text.getvalue()


Parsed = tuple[int, Sequence[str] | None, dict[str, Any] | None]


def _delimited_rows(path: Path | Url, text: str) -> Iterator[Parsed]:
    """Yield (line, columns, None) for the header, then (line, None, row)."""
    delimiter = _DELIMITERS.get(path.suffix.lower(), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ManifestError(f"{path}, line {line}: wrong quoting: {error}") from error
        if not fields:
            continue
        if header is None:
            _check_delimiter(f"{path}, line {line}", fields, delimiter)
            header = fields
            yield line, header, None
        elif len(fields) == len(header):
            yield line, None, _row(header, fields)
        else:
            raise ManifestError(
                f"{path}, line {line}: {len(fields)} fields {short_repr(fields)}, but the header "
                f"has {len(header)}; quote a text that holds {delimiter!r}, and write decimal "
                "points, not commas"
            )


def _row(header: Sequence[str], fields: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(header, fields, strict=True))
    if len(row) < len(header):
        for name in [name for name, count in Counter(header).items() if count > 1]:
            row[name] = [field for of, field in zip(header, fields, strict=True) if of == name]
    return row


def _json_rows(path: Path | Url, text: str) -> Iterator[Parsed]:
    """Yield (line, columns, row) for every object."""
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}, line {line}"
        try:
            row = json.loads(content, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{where}: {short_repr(content)} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{where}: {short_repr(content)} is not a JSON object {{...}}")
        yield line, list(row), row


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its members, of which Python would take the last of the same name."""
    members = dict(pairs)
    if len(members) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{short_repr(name)} stands there twice")
    return members


def _check_delimiter(where: str, header: Sequence[str], delimiter: str) -> None:
    other = next((mark for mark in ",;\t|" if len(header) == 1 and mark in header[0]), None)
    if other:
        raise ManifestError(
            f"{where}: the header {short_repr(header[0])} is separated by {other!r}; write "
            f"{delimiter!r} (.csv takes commas, .tsv tabs)"
        )


def _check_columns(
    where: str, names: Sequence[str], required: Sequence[str], optional: Sequence[str] | None
) -> None:
    known = names if optional is None else (*required, *optional)
    rule = f"found: {', '.join(names)}" if optional is None else f"optional: {', '.join(optional)}"
    wrong = {
        "unknown": [name for name in names if name not in known],
        "repeated": [name for name, count in Counter(names).items() if count > 1],
        "missing": [name for name in required if name not in names],
    }
    for what, columns in wrong.items():
        if columns:
            raise ManifestError(
                f"{where}: {what} column{'s' if len(columns) > 1 else ''} "
                f"{', '.join(short_repr(name) for name in columns[:8])}; "
                f"required: {', '.join(required)}; {rule}"
            )
