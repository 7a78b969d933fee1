"""What is to be scored: videos named one by one, or by folder, pattern, table or list."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from memfeat.datasets.folder import Folder
from memfeat.errors import ConfigError
from memfeat.extraction.texts import Part
from memfeat.storage import AnyLocation, Location, Url, location_of, read, read_rows
from memfeat.storage.names import VIDEO_SUFFIXES, stem
from memfeat.storage.tables import SUFFIXES

IMAGE_SUFFIXES = {".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LIST_SUFFIX = ".txt"
STDIN = "-"


class Input(NamedTuple):
    """A video to score.

    Attributes:
        path: where it lies; None for one that is in a cache.
        video_id: a cache's or manifest's, or else its file's stem.
        parts: its texts, for runs that take some.
    """

    path: Location | None
    video_id: str
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, path: Location) -> Self:
        """Take a video that has no other id than its name."""
        return cls(path, stem(path.name))

    @property
    def name(self) -> str:
        """The path or URL, or else the id."""
        return self.video_id if self.path is None else str(self.path)


def inputs_of(videos: Iterable[AnyLocation | Input]) -> list[Input]:
    """Take videos by their paths or URLs, but for those that are inputs already.

    Raises:
        ConfigError: what is given names no file.
    """
    return [own if isinstance(own, Input) else Input.of(location_of(own)) for own in videos]


def find_videos(names: Iterable[AnyLocation], *, allow_images: bool = False) -> tuple[Input, ...]:
    """Find the videos that are named, each once, in order.

    A name is that of

    - a video;
    - a folder: of all videos below it, by their suffixes;
    - nothing, but a pattern such as `clips/**/*.mp4`;
    - a table, .csv, .tsv or .jsonl, such as a manifest, with a column `path`, relative to the
      table, and perhaps `video_id`;
    - a list, .txt, or `-` for standard input, with a path or URL a line, relative to the current
      folder.

    Videos, tables and lists may be remote. That a video is not there is told when it is scored.

    Args:
        names: any number, of any kind.
        allow_images: whether images in folders are taken, too.

    Raises:
        ConfigError: a folder, table or list without videos, or what names no file.
        ManifestError: a table that cannot be read, or has no column `path`.
        RemoteError: a list that cannot be fetched.
        OSError: a list that cannot be read.
    """
    found: dict[str, Input] = {}
    for name in map(location_of, names):
        videos = list(_named(name, allow_images))
        if not videos:
            suffixes = VIDEO_SUFFIXES | (IMAGE_SUFFIXES if allow_images else set())
            raise ConfigError(
                f"{name} names no video; in a folder, files that end in one of "
                f"{', '.join(sorted(suffixes))} are taken"
            )
        for video in videos:
            found.setdefault(video.name, video)
    return tuple(found.values())


def _named(name: Location, allow_images: bool) -> Iterator[Input]:
    suffix = name.suffix.lower()
    if suffix in SUFFIXES:
        yield from _in_table(name)
    elif suffix == LIST_SUFFIX or str(name) == STDIN:
        yield from map(Input.of, map(location_of, _lines(name)))
    elif isinstance(name, Path) and name.is_dir():
        folder = Folder(name)
        taken = VIDEO_SUFFIXES | (IMAGE_SUFFIXES if allow_images else set())
        yield from (Input.of(path) for path in folder.files if path.suffix.lower() in taken)
    elif isinstance(name, Path) and not os.path.lexists(name) and glob.has_magic(str(name)):
        found = glob.glob(str(name), recursive=True)  # noqa: PTH207 (the pattern may be absolute)
        files = [path for path in map(Path, sorted(found)) if not path.is_dir()]
        yield from map(Input.of, files or [name])
    else:
        yield Input.of(name)


def _in_table(table: Location) -> Iterator[Input]:
    for _, row in read_rows(table, ["path"], None):
        own = location_of(row["path"])
        path = own if isinstance(own, Url) else table.parent / own
        yield Input(path, str(row.get("video_id") or stem(path.name)))


def _lines(name: Location) -> list[str]:
    if str(name) == STDIN:
        content = sys.stdin.buffer.read()
    else:
        content = read(name) if isinstance(name, Url) else name.read_bytes()
    lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
    return [line.removesuffix("\r") for line in lines if line.strip()]
