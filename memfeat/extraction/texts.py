"""The texts of videos: columns of their manifest, tables by id, and folders of files."""

import html
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from memfeat.errors import ConfigError, VideoError
from memfeat.manifest import CAPTIONS, TEXT_COLUMNS, VideoRecord
from memfeat.storage import Location, location_of, read_rows
from memfeat.storage.names import ID_COLUMNS, stem_key

SUFFIXES = (".srt", ".vtt", ".txt")  # of several files of a video the first counts
MOST_BYTES = 1 << 22  # of a file; a day of speech
TABLE = re.compile(r"(.+\.(?:csv|tsv|jsonl))(?::([^/\\]+))?", re.IGNORECASE)
TIMES = re.compile(r"\s*(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)\s*-->")
MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # of VTT and HTML, and of subtitles' positions


class Cue(NamedTuple):
    """A piece of a text.

    Attributes:
        text: its words.
        seconds: when they are said or shown; None if that is not known.
    """

    text: str
    seconds: float | None = None


Part = tuple[Cue, ...]  # of a video's text that stands for itself: a caption, or a transcript
Reader = Callable[[str, VideoRecord | None], list[Part]]


@dataclass(frozen=True)
class Texts:
    """Where videos have their texts.

    Attributes:
        label: which texts, in words, as a cache records it.
        readers: one for each source.
    """

    label: str
    readers: tuple[Reader, ...]

    @classmethod
    def open(cls, sources: Sequence[str], wanted: Collection[str]) -> "Texts":
        """Open sources: columns of the manifest, tables `FILE.csv[:COLUMN,...]`, and folders.

        Args:
            sources: one or several; a video's texts in all of them count.
            wanted: the videos' ids, as the manifest has them; names differ as files' may.

        Raises:
            ConfigError: a source that is not there, or that knows none of the videos.
            ManifestError: a table that cannot be read.
        """
        opened = [_open(source, wanted) for source in sources]
        return cls(", ".join(label for label, _ in opened), tuple(read for _, read in opened))

    def parts(self, video_id: str, record: VideoRecord | None = None) -> list[Part]:
        """Return a video's texts, in order; none where it has none.

        Raises:
            VideoError: a file that cannot be read, or is not text.
        """
        return [part for read in self.readers for part in read(video_id, record)]


def parse_text(text: str) -> Part:
    r"""Take subtitles (SRT or WebVTT) apart by their times; any other text is a single piece.

    Examples:
        >>> parse_text("1\n00:00:01,500 --> 00:00:02,000\n<i>Hello</i>\n")
        (Cue(text='Hello', seconds=1.5),)
        >>> parse_text("Hello")
        (Cue(text='Hello', seconds=None),)
    """
    lines = text.splitlines()
    at = [number for number, line in enumerate(lines) if TIMES.match(line)]
    if not at:
        return (Cue(text),)
    cues: list[Cue] = []
    said = ""
    for start in at:
        hours, minutes, seconds = TIMES.match(lines[start]).groups()  # type: ignore[union-attr]
        begins = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
        for line in lines[start + 1 :]:
            if not line.strip():
                break
            words = html.unescape(MARKUP.sub("", line)).strip()
            if words and words != said:  # which subtitles that roll repeat
                cues.append(Cue(words, begins))
                said = words
    return tuple(cues)


def read_text(path: Path) -> Part:
    """Read a file of text, or of subtitles, in UTF-8, or UTF-16 with a mark.

    Raises:
        VideoError: it cannot be read (`unreadable`), is too large (`too_large`) or no text
            (`not_utf8`).
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise VideoError("unreadable", f"cannot read {path}: {error.strerror}") from error
    if size > MOST_BYTES:
        raise VideoError("too_large", f"{path} has {size} bytes; a text has at most {MOST_BYTES}")
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return parse_text(content.decode("utf-16" if utf16 else "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise VideoError("not_utf8", f"{path} is not UTF-8 ({error}); save it as that") from error


def _open(source: str, wanted: Collection[str]) -> tuple[str, Reader]:
    if source in TEXT_COLUMNS:
        return source, lambda _, record: _captions(getattr(record, source, ""))
    if table := TABLE.fullmatch(source):
        return _table(location_of(table[1]), table[2].split(",") if table[2] else (), wanted)
    folder = Path(source)
    if folder.is_dir():
        return _folder(folder, wanted)
    raise ConfigError(
        f"--text {source} names no text: give a column of the manifest ({', '.join(TEXT_COLUMNS)}),"
        f" a table such as titles.csv:title, or a folder of files such as ID.txt or ID.srt"
    )


def _captions(text: str) -> list[Part]:
    """Take a cell apart into its captions."""
    return [(Cue(each.strip()),) for each in text.split(CAPTIONS) if each.strip()]


def _table(path: Location, columns: Sequence[str], wanted: Collection[str]) -> tuple[str, Reader]:
    """Read a table by its column of ids that names most of the videos."""
    rows = [row for _, row in read_rows(path, (), None, repeatable=True)]
    names = list(rows[0]) if rows else []
    columns = _text_columns(path, names, columns)
    keys = {stem_key(video_id) for video_id in wanted}
    ids = [name for name in ID_COLUMNS if name in names]
    own = max(ids, key=lambda name: sum(stem_key(str(row[name])) in keys for row in rows))
    found: dict[str, list[Part]] = {}
    for row in rows:
        cells = [cell for name in columns for cell in _listed(row[name])]
        texts = [part for cell in cells for part in _captions(cell)]
        found.setdefault(str(row[own]), []).extend(texts)
    texts_of = _matched(found, wanted, str(path))
    label = f"{path.name}:{','.join(columns)}"
    return label, lambda video_id, _: texts_of.get(video_id, [])


def _text_columns(path: Location, names: Sequence[str], chosen: Sequence[str]) -> Sequence[str]:
    """Return the columns of texts: those chosen, or else the only one that is not of ids."""
    others = [name for name in names if name not in ID_COLUMNS]
    if len(others) == len(names) or not others:
        raise ConfigError(
            f"{path} has the columns {', '.join(names) or 'none'}; give one of ids, called one of "
            f"{', '.join(ID_COLUMNS)}, and at least one of texts"
        )
    if not chosen and len(others) > 1:
        raise ConfigError(
            f"{path} has several columns besides the ids: {', '.join(others)}; name those of texts "
            f"as {path}:{others[0]}, or several with commas"
        )
    if unknown := [name for name in chosen if name not in names]:
        raise ConfigError(f"{path} has no column {unknown[0]!r}; there are {', '.join(others)}")
    return chosen or others


def _listed(cell: Any) -> list[str]:
    several = cell if isinstance(cell, list) else [cell]
    return ["" if each is None else str(each) for each in several]


def _folder(folder: Path, wanted: Collection[str]) -> tuple[str, Reader]:
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    files.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(path.stem, path)
    path_of = _matched(found, wanted, str(folder))

    def parts(video_id: str, _: VideoRecord | None) -> list[Part]:
        return [read_text(path_of[video_id])] if video_id in path_of else []

    return f"{folder.resolve().name}/", parts


def _matched(found: Mapping[str, Any], wanted: Collection[str], source: str) -> dict[str, Any]:
    """Return what belongs to each video, by its id, or else by the stem of its name.

    Raises:
        ConfigError: nothing belongs to any.
    """
    by_key: dict[str, list[str]] = {}
    for name in found:
        by_key.setdefault(stem_key(name), []).append(name)
    matched = {}
    for video_id in wanted:
        alike = [video_id] if video_id in found else by_key.get(stem_key(video_id), [])
        if len(alike) == 1:
            matched[video_id] = found[alike[0]]
    if not matched:
        has = f"{next(iter(found))!r} and so on" if found else "nothing"
        raise ConfigError(
            f"--text {source} has a text of none of the {len(wanted)} videos: it has {has}, and "
            f"{next(iter(wanted), 'none')!r} is the first wanted"
        )
    return matched
