"""Decoding a video frame by frame, and detecting missing parts."""

import errno
import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.packet import Packet
from av.video.reformatter import ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from memfeat.config import MAX_PIXELS
from memfeat.errors import ConfigError, VideoError
from memfeat.video.header import counted_samples, promised_end
from memfeat.video.opening import create_decoder, open_video, quoted, require_size, too_large
from memfeat.video.pictures import (
    Matrix,
    Pixels,
    display_matrix,
    resize,
    squash,
    to_rgb,
    upright,
)

HDR = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
FALLBACK_RATE = 25
SAME_TIME = 1e-6  # seconds: less than that is rounding
HEADER_SLACK = 3  # even whole files may lack so many of the frames that their header counts


@dataclass(frozen=True)
class Frame:
    """One picture: `pixels` uint8 (height, width, 3) RGB, shown from `pts_seconds` on."""

    pixels: Pixels
    pts_seconds: float


@dataclass(frozen=True)
class Frames:
    """A video: `pixels` uint8 (time, height, width, 3) RGB; `pts_seconds` float64 (time,)."""

    pixels: Pixels
    pts_seconds: NDArray[np.float64]


class VideoReader:
    """Decode a video frame by frame, in constant memory and on one codec thread.

    Frames are turned and mirrored as the header's display matrix says, composited on black where
    they have an alpha channel, and squashed to (size, size) if a size is given. One without a
    presentation time, or with one that is not after its predecessor's, comes a frame interval
    after its predecessor (the first at 0 s). Iterating again goes on where the last loop stopped.

    Args:
        path: a local file.
        size: side of the square frames, in pixels; None keeps the stored size.
        keep_shape: `size` is the longest side that a frame may have; larger ones are reduced to
            it, in their own shape.
        first_frame: the frames before this one, counted from 0, are decoded but not handed out.
        max_frames: stop after so many frames; the rest does not count as missing.
        max_seconds: stop before the first frame that is shown so many seconds after the first, or
            later; the rest does not count as missing.
        max_pixels: refuse a video whose frames have more, width x height. One of over twice as
            many, and a million, is refused before there is memory for it.
        allow_images: take an image as a video of one frame.

    Attributes, those on frames final once the last one has come:
        warning: what the user should know about the picture (that it is HDR), or None.
        frames_decoded: how many came.
        frames_expected: how many the header counts, at most `max_frames`, or None.
        reason: why the video is only partial: `truncated` (its end is missing) or `packet_errors`
            (some of it could not be decoded); None if it is whole.

    Raises:
        VideoError: `missing`, `not_a_file`, `permission`, `unreadable`, `no_video`, `no_frames`,
            `image` or `too_large`; while iterating, `no_frames`, `unreadable` or `too_large`.
        ConfigError: `size`, `max_frames` or `max_pixels` below 1; `max_seconds` not above 0, or
            infinite.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: int | None = None,
        keep_shape: bool = False,
        first_frame: int = 0,
        max_frames: int | None = None,
        max_seconds: float | None = None,
        max_pixels: int | None = MAX_PIXELS,
        allow_images: bool = False,
    ) -> None:
        for name, value in (("size", size), ("max_frames", max_frames), ("max_pixels", max_pixels)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value} is not allowed; give 1 or more, or None")
        if max_seconds is not None and not 0 < max_seconds < math.inf:
            text = "give a number above 0, or None for all of it"
            raise ConfigError(f"max_seconds = {max_seconds} is not allowed; {text}")
        self._path, self._size, self._keep_shape = path, size, keep_shape
        self._first_frame, self._max_frames = first_frame, max_frames
        self._max_seconds = math.inf if max_seconds is None else max_seconds
        self._max_pixels = max_pixels
        with ExitStack() as stack:
            self._container, self._stream = stack.enter_context(
                open_video(path, max_pixels=max_pixels, allow_images=allow_images)
            )
            self._decoder = create_decoder(self._stream, max_pixels)
            self._close = stack.pop_all().close
        self._reformatter = VideoReformatter()
        self._announced = self.frames_expected = counted_samples(self._container, self._stream)
        self._packets = self.frames_decoded = 0
        self._damaged_at: int | None = None  # counted in packets
        self._interval = self._longest_gap = 1 / float(self._stream.guessed_rate or FALLBACK_RATE)
        self._pts_seconds: float | None = None
        self._turn: tuple[float, Matrix] | None = None
        self._frames = self._read()
        self.reason: str | None = None
        transfer = HDR.get(self._decoder.color_trc)
        self.warning = transfer and (
            f"{quoted(path)} is HDR ({transfer}) and is read without tone mapping, so it looks "
            "paler than on a screen; convert it to SDR first if that matters"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._frames.close()
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def _read(self) -> Generator[Frame, None, None]:
        first: float | None = None
        for decoded in self._decode():
            seconds = self._time(decoded)
            first = seconds if first is None else first
            if self.frames_decoded and seconds - first > self._max_seconds - SAME_TIME:
                return self._stop_early()
            require_size(self._path, (decoded.width, decoded.height), self._max_pixels)
            self.frames_decoded += 1
            if self.frames_decoded > self._first_frame:
                yield Frame(self._picture(decoded), seconds)
            if self.frames_decoded == self._max_frames:
                return self._stop_early()
        if not self.frames_decoded:
            raise VideoError("no_frames", f"{quoted(self._path)} gave no frame; export it again")
        self.reason = self._what_is_missing()
        return None

    def _stop_early(self) -> None:
        self.frames_expected = self.frames_expected and self.frames_decoded
        self.reason = "packet_errors" if self._damaged_at else None

    def _require_allowed(self, error: av.FFmpegError) -> None:
        """Distinguish a frame that the decoder refuses for its size from a damaged one."""
        width, height = self._decoder.width, self._decoder.height
        require_size(self._path, (width, height), self._max_pixels)
        # Most codecs forget the size that they refuse; AV1's has an error of its own.
        forgotten = error.errno == errno.EINVAL and not width * height
        if self._max_pixels is not None and (forgotten or error.errno == errno.ERANGE):
            raise too_large(self._path, "frames of more than", self._max_pixels) from error

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._demux():
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError as error:
                self._require_allowed(error)
                self._damaged_at = self._packets
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._damaged_at = self._packets
                yield frame

    def _demux(self) -> Iterator["Packet[VideoStream] | None"]:
        """Yield the packets with data, then None, at which the decoder hands out the rest."""
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size and packet.dts is None:
                    continue  # PyAV's own flush, after the last packet
                self._packets += 1
                if packet.is_corrupt:
                    self._damaged_at = self._packets
                if self.frames_expected and (packet.is_discard or not packet.size):
                    self.frames_expected -= 1  # hidden by an edit list, or an empty sample
                if packet.size:
                    yield packet
        except (av.FFmpegError, OSError):
            self._damaged_at = self._packets
        yield None

    def _what_is_missing(self) -> str | None:
        if self._announced:
            ends_early = self._announced - self._packets > HEADER_SLACK
        else:
            end = (self._pts_seconds or 0.0) + (1 + HEADER_SLACK) * self._longest_gap
            ends_early = end < promised_end(self._container, self._stream)
        if ends_early or self._damaged_at == self._packets:
            return "truncated"
        falls_short = (self.frames_expected or 0) - self.frames_decoded > HEADER_SLACK
        return "packet_errors" if falls_short or self._damaged_at is not None else None

    def _time(self, frame: av.VideoFrame) -> float:
        pts, base, last = frame.pts, self._stream.time_base, self._pts_seconds
        seconds = pts * base.numerator / base.denominator if pts is not None and base else None
        if last is None:
            seconds = seconds or 0.0
        elif seconds is None or seconds - last < SAME_TIME:
            seconds = last + self._interval
        else:
            self._longest_gap = max(self._longest_gap, seconds - last)
        self._pts_seconds = seconds
        return seconds

    def _picture(self, frame: av.VideoFrame) -> Pixels:
        try:
            pixels = to_rgb(frame, self._reformatter)
        except (av.FFmpegError, ValueError) as error:
            text = f"holds {frame.format.name} pixels that cannot be turned into RGB ({error})"
            raise VideoError("unreadable", f"{quoted(self._path)} {text}; convert it") from error
        pixels = upright(pixels, self._display_matrix(frame))
        if self._size is None:
            return pixels
        if self._keep_shape:
            height, width = pixels.shape[:2]
            scale = min(1.0, self._size / max(height, width))
            return squash(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        return resize(pixels, self._size)

    def _display_matrix(self, frame: av.VideoFrame) -> Matrix:
        """Return a frame's display matrix, looked up only where the turn that it says changes."""
        if self._turn is None or self._turn[0] != frame.rotation:
            self._turn = frame.rotation, display_matrix(frame)
        return self._turn[1]


def read_frames(path: Path, *, size: int | None = None, max_frames: int | None = None) -> Frames:
    """Decode a whole video into memory; arguments and errors are those of `VideoReader`.

    Without a size, frames that differ in size from the first one are squashed to it.
    """
    with VideoReader(path, size=size, max_frames=max_frames) as reader:
        frames = list(reader)
    height, width, _ = frames[0].pixels.shape
    return Frames(
        np.stack([squash(frame.pixels, height, width) for frame in frames]),
        np.array([frame.pts_seconds for frame in frames]),
    )


def read_frame(path: Path, index: int) -> Frame:
    """Decode the frame at `index`, counted from 0 in presentation order, at its stored size.

    Raises:
        VideoError: as `VideoReader`; `no_frames` if the video has no such frame.
    """
    with VideoReader(path, max_frames=max(index, 0) + 1) as reader:
        for number, frame in enumerate(reader):
            if number == index:
                return frame
    text = f"has no frame {index}; it gave {reader.frames_decoded}, counted from 0"
    raise VideoError("no_frames", f"{quoted(path)} {text}")
