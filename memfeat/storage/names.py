"""Names of videos, as files, label files and features spell them."""

import os
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
}

ID_COLUMNS = ("video_id", "video", "id")  # of other people's tables

PICTURE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def stem(name: str) -> str:
    """Return a name, path or URL without folders and without the suffix, if that is a video's."""
    last = next(spellings(name)).rstrip("/").rpartition("/")[2]
    cut, suffix = os.path.splitext(last)  # noqa: PTH122 (for each of many thousand names)
    return cut if suffix.lower() in VIDEO_SUFFIXES else last


def spellings(name: str) -> Iterator[str]:
    """Yield the path within a URL, then the same with its %-escapes undone."""
    text = name.strip().replace("\\", "/")
    if "://" in text:
        text = text.partition("://")[2].partition("?")[0]
    yield text
    if "%" in text:
        yield unquote(text)


def stem_key(name: str) -> str:
    """Return what the names of one video have in common: its stem, of digits as a number."""
    text = unicodedata.normalize("NFC", stem(name))
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text
