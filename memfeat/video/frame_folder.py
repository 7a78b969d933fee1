"""A folder of numbered pictures, read as the video that they are the frames of."""

import hashlib
import math
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from memfeat.errors import ConfigError, VideoError
from memfeat.storage import sha256_of_file
from memfeat.storage.names import PICTURE_SUFFIXES
from memfeat.video.opening import quoted
from memfeat.video.reading import SAME_TIME, Frame, VideoReader

NUMBER = re.compile(r"(\d+)\D*$")


class Picture(NamedTuple):
    """A frame's file, and its number."""

    number: int
    path: Path


class FrameFolder:
    """Read numbered pictures frame by frame; see `VideoReader` for what it shares with that.

    A frame is shown so long after the first one as their numbers differ by, in frames. One that
    cannot be read is left out, and the video is then partial.

    Args:
        path: the folder; files that are no pictures, or hidden, are passed over.
        fps: numbers a second.
        first_frame, max_frames, max_seconds: as for `VideoReader`, and so is all else.
        settings: how each picture is read.

    Raises:
        VideoError: `no_frames` where there are none; `unreadable` where two have one number, or
            one has none; while iterating, `too_large`, or `no_frames` where none can be read.
        ConfigError: a number that is not above 0.
    """

    warning: str | None = None
    reason: str | None = None
    frames_decoded = 0
    frame_size = (0, 0)

    def __init__(
        self,
        path: Path,
        fps: float,
        *,
        first_frame: int = 0,
        max_frames: int | None = None,
        max_seconds: float | None = None,
        **settings: Any,
    ) -> None:
        if not 0 < fps < math.inf:
            raise ConfigError(f"fps = {fps} is not allowed; give a number above 0")
        self._path, self._fps, self._first_frame = path, fps, first_frame
        pictures = pictures_of(path)[:max_frames]
        start = pictures[0].number
        end = math.inf if max_seconds is None else max_seconds - SAME_TIME
        self._frames = [
            (picture.path, seconds)
            for picture in pictures
            if (seconds := (picture.number - start) / fps) <= end
        ]
        self.frames_expected: int | None = len(self._frames)
        self._settings = settings | {"allow_images": True}
        self._iterator = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._iterator.close()

    def __iter__(self) -> Iterator[Frame]:
        return self._iterator

    def _read(self) -> Generator[Frame, None, None]:
        for path, seconds in self._frames:
            try:
                with VideoReader(path, **self._settings) as reader:
                    pixels, *_ = [frame.pixels for frame in reader]  # its end tells of damage
            except VideoError as error:
                if error.reason == "too_large":
                    raise
                self.reason = "packet_errors"
                continue
            self.warning = self.warning or reader.warning
            self.reason = self.reason or ("packet_errors" if reader.reason else None)
            if not self.frames_decoded:
                self.frame_size = reader.frame_size
            self.frames_decoded += 1
            if self.frames_decoded > self._first_frame:
                yield Frame(pixels, seconds)
        if not self.frames_decoded:
            text = f"holds {len(self._frames)} pictures, none of which can be read"
            raise VideoError("no_frames", f"{quoted(self._path)} {text}; export them again")


def pictures_of(folder: Path) -> list[Picture]:
    """Return a folder's pictures by number, which is the last one in each name.

    Raises:
        VideoError: there is none, one has no number, or two have the same.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PICTURE_SUFFIXES or path.name.startswith("."):
            continue
        number = NUMBER.search(path.stem)
        if number is None:
            text = "has no number in its name, so its place among the frames is not known"
            raise VideoError("unreadable", f"{quoted(path)} {text}; number it, or take it out")
        other = found.setdefault(int(number[1]), path)
        if other != path:
            text = f"and {other.name} have the same number; take one of them out"
            raise VideoError("unreadable", f"{quoted(path)} {text}")
    if not found:
        raise VideoError("no_frames", f"{quoted(folder)} holds no pictures; name a video")
    return [Picture(*item) for item in sorted(found.items())]


def open_reader(path: Path, fps: float | None = None, **settings: Any) -> VideoReader | FrameFolder:
    """Open a video, or with `fps` a folder of numbered pictures; errors are those of the reader."""
    if path.is_dir():
        if fps is None:
            raise VideoError(
                "not_a_file",
                f"{quoted(path)} is a folder; name the video, or give --fps if it holds numbered "
                "frames",
            )
        return FrameFolder(path, fps, **settings)
    return VideoReader(path, **settings)


def files_of(path: Path) -> list[Path]:
    """Return the files that a video is in: its own, or a folder's pictures.

    Raises:
        VideoError: as `pictures_of`.
    """
    return [picture.path for picture in pictures_of(path)] if path.is_dir() else [path]


def sha256_of_video(path: Path, on_block: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 of a video's file; of a folder, over its pictures' names and hashes."""
    if not path.is_dir():
        return sha256_of_file(path, on_block)
    lines = [f"{file.name} {sha256_of_file(file, on_block)}\n" for file in files_of(path)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
