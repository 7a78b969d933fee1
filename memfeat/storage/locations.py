"""Locations of files and folders: paths on this machine, and URLs of remote ones.

universal_pathlib's `UPath` (0.3.10) was tried in place of `Url` and cannot be used: `s3://b/data`
joined with `../v.mp4` keeps the dots in the key, `Path("cache") / UPath("s3://b/data")` is
`s3://cache/b/data`, `m.jsonl?version=1.csv` of a web server has the suffix `.csv`, and a password
in a URL is kept.
"""

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BeforeValidator
from pydantic_core import core_schema
from typing_extensions import TypeIs  # which typing has from 3.13 on

from memfeat.errors import ConfigError, short_repr

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PASSWORD = re.compile(r"[^/@]*:[^/]*@")


@dataclass(frozen=True)
class Url:
    """The URL of a remote file or folder, such as `s3://bucket/videos`.

    Like a path it has a `name`, `suffix` and `parent`, and is joined with `/`.

    Attributes:
        text: as it was written, without a slash at the end.
    """

    text: str

    @classmethod
    def of(cls, text: str) -> "Url":
        """Read a URL.

        Raises:
            ValueError: it is none, names nothing, or holds a password.
        """
        found = _URL.fullmatch(text)
        if found is None or not found[2].strip("/") or "\0" in text:
            raise ValueError("it is not a URL of a file or folder; write protocol://where/name")
        if _PASSWORD.match(found[2]):
            raise ValueError(
                "it holds a password, which would be kept with every result; give that in the "
                "environment, as the storage's own tools take it"
            )
        return cls(text.rstrip("/"))

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, other: "str | Path | Url") -> "Url | Path":
        """Join a relative path; an absolute one, or a URL, stands for itself, as with paths."""
        if isinstance(other, Url):
            return other
        if Path(other).is_absolute():
            return Path(other)
        start, rest = self._parts
        below = posixpath.normpath(os.fspath(other))
        joined = f"{rest.rstrip('/')}/{quote(below) if self.is_web else below}"
        return Url(start + (posixpath.normpath(joined) if below.startswith("..") else joined))

    def __rtruediv__(self, other: Path) -> "Url":
        return self

    @property
    def protocol(self) -> str:
        """The part before `://`, in lower case."""
        return self.text.partition("://")[0].lower()

    @property
    def is_web(self) -> bool:
        """Whether a web server holds it, so that `?` and `%` have a meaning."""
        return self.protocol in {"http", "https"}

    @property
    def name(self) -> str:
        """The last part."""
        text = re.split("[?#]", self.text)[0] if self.is_web else self.text
        return text.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, such as `.csv`."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "Url":
        """The folder it is in."""
        start, rest = self._parts
        if self.is_web:
            rest = re.split("[?#]", rest)[0]
        above, slash, _ = rest.rpartition("/")
        return Url(start + (above or slash))

    @property
    def _parts(self) -> tuple[str, str]:
        start, colon, rest = self.text.partition("://")
        return start + colon, rest

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Let settings hold it, and write it as text."""
        return core_schema.is_instance_schema(
            cls, serialization=core_schema.to_string_ser_schema(when_used="json")
        )


AnyLocation = str | os.PathLike[str] | Url  # what functions for notebooks take


def is_url(text: str) -> bool:
    """Return whether a text looks like a URL, valid or not."""
    return _URL.fullmatch(text) is not None


def parse_location(text: str) -> Path | Url:
    """Parse a path or URL.

    Raises:
        ValueError: it is empty, holds a NUL character, or is not a sound URL.
    """
    if is_url(text):
        return Url.of(text)
    if not text or "\0" in text:
        raise ValueError("it is not a path; name a file or folder")
    return Path(text)


def is_one(value: AnyLocation | Iterable[AnyLocation]) -> TypeIs[AnyLocation]:
    """Return whether a value is to name one file or folder, and not several."""
    return isinstance(value, str | bytes) or not isinstance(value, Iterable)


def location_of(value: AnyLocation) -> Path | Url:
    """Return a path, or its text, or a URL, as a path or URL.

    Raises:
        ConfigError: it is none, and so cannot name a file or folder.
    """
    if isinstance(value, Url):
        return value
    try:
        return parse_location(os.fsdecode(value))
    except (TypeError, ValueError) as error:
        why = "give text or a path" if isinstance(error, TypeError) else str(error)
        raise ConfigError(f"{short_repr(value)} names no file or folder: {why}") from error


def _parsed(value: Any) -> Any:
    return parse_location(str(value)) if isinstance(value, str | Path) else value


Location = Annotated[Path | Url, BeforeValidator(_parsed)]


def name_below(location: Path | Url, root: Path | Url) -> str:
    """Return a location relative to `root`, or the whole of it if it is not below that."""
    if isinstance(location, Url):
        return location.text.removeprefix(f"{root}/")
    if isinstance(root, Path) and location.is_relative_to(root):
        location = location.relative_to(root)
    return location.as_posix()
