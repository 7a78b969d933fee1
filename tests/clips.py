"""Making clips of every kind through PyAV, and pictures that carry a number one can read back."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from memfeat.errors import VideoError
from memfeat.video import VideoReader, squash

Pixels = NDArray[np.uint8]
BITS = (2, 5)  # rows and columns of blocks, the lowest bit first: 0 to 1023


def number_picture(number: int, height: int = 64, width: int = 160) -> Pixels:
    """Draw a number as white and black blocks, uint8 (height, width, 3)."""
    rows, columns = BITS
    bits = (number >> np.arange(rows * columns)) & 1
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    blocks = bits.reshape(BITS)[row[:, None], column].astype(np.uint8)
    return np.repeat(blocks[..., None] * np.uint8(255), 3, axis=2)


def read_number(pixels: Pixels) -> int:
    """Read the number back, at whatever size and quality the picture now has."""
    rows, columns = BITS
    height, width, _ = pixels.shape
    centres = (
        (np.arange(rows) * 2 + 1) * height // (2 * rows),
        (np.arange(columns) * 2 + 1) * width // (2 * columns),
    )
    bits = pixels[np.ix_(*centres)].mean(axis=2).ravel() > 127
    return int((bits << np.arange(rows * columns)).sum())


def write_clip(
    path: Path,
    pictures: Iterable[Pixels | av.VideoFrame],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    ticks: int = 30,
    muxer: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Encode pictures uint8 (height, width, 3 or 4), or frames, of any codec, format and timing.

    Args:
        path: where to; the suffix picks the container.
        pictures: RGB, RGBA, or frames of the stored pixel format.
        codec: FFmpeg's encoder.
        pix_fmt: stored pixel format.
        times: presentation times in 1/ticks s; one tick apart if None.
        ticks: ticks per second, which is also the nominal frame rate.
        muxer: options of the container.
        options: options of the encoder.
        settings: attributes of PyAV's codec context, such as `max_b_frames=3`.
    """
    with (
        _ordinary_priority(),
        av.open(str(path), "w", options=muxer or {}) as container,
    ):
        stream = cast(VideoStream, container.add_stream(codec, rate=ticks, options=options or {}))
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for index, pixels in enumerate(pictures):
            frame = pixels
            if not isinstance(frame, av.VideoFrame):
                layout = {3: "rgb24", 4: "rgba"}[pixels.shape[2]]
                frame = av.VideoFrame.from_ndarray(pixels, layout)
                # With PyAV's several threads, swscale gets some pixels wrong now and then.
                frame = frame.reformat(format=pix_fmt, threads=1)
            if index == 0:
                stream.height, stream.width = frame.height, frame.width
            frame.pts = times[index] if times else index
            frame.time_base = Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextmanager
def _ordinary_priority() -> Iterator[None]:
    """Undo what SVT-AV1 does to root's processes: it makes them real-time ones, first of all."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def numbered_clip(path: Path, frames: int = 60, **arguments: Any) -> Path:
    """Write a clip whose frame n shows the number n; arguments as `write_clip`."""
    return write_clip(path, map(number_picture, range(frames)), **arguments)


def write_streams(path: Path, *shown: int | Sequence[int] | float, **arguments: Any) -> None:
    """Write several streams: the numbers of a video, of cover art, or seconds of silence."""
    with av.open(str(path), "w", **arguments) as container:
        streams = [_stream(container, each) for each in shown]
        for stream, each in zip(streams, shown, strict=True):
            if isinstance(each, float):
                silence = np.zeros((1, int(44100 * each)), np.float32)
                frames: list[Any] = [av.AudioFrame.from_ndarray(silence, "fltp", "mono")]
                frames[0].sample_rate = 44100
            else:
                numbers = [each] if isinstance(each, int) else each
                pictures = [
                    av.VideoFrame.from_ndarray(number_picture(number), "rgb24")
                    for number in numbers
                ]
                frames = [frame.reformat(format=stream.pix_fmt, threads=1) for frame in pictures]
            for frame in [*frames, None]:
                container.mux(stream.encode(frame))


def _stream(container: Any, shown: int | Sequence[int] | float) -> Any:
    if isinstance(shown, float):
        return container.add_stream("aac", rate=44100, layout="mono")
    is_art = isinstance(shown, int)
    stream = container.add_stream("mjpeg" if is_art else "libx264", rate=30)
    stream.height, stream.width = 64, 160
    stream.pix_fmt = "yuvj420p" if is_art else "yuv420p"
    if is_art:
        stream.disposition = Disposition.attached_pic
    return stream


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Return where each packet stands in the file, and its size in bytes."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


class Frames(NamedTuple):
    """A video: `pixels` uint8 (time, height, width, 3) RGB; `pts_seconds` float64 (time,)."""

    pixels: Pixels
    pts_seconds: NDArray[np.float64]


def read_frames(path: Path, *, size: int | None = None) -> Frames:
    """Decode a whole video; without a size, frames are squashed to that of the first one."""
    with VideoReader(path, size=size) as reader:
        frames = list(reader)
    height, width, _ = frames[0].pixels.shape
    pixels = [squash(frame.pixels, height, width) for frame in frames]
    return Frames(np.stack(pixels), np.array([frame.pts_seconds for frame in frames]))


def read(path: Path, **arguments: Any) -> tuple[VideoReader, list[int]]:
    """Decode a numbered clip; return the spent reader and the numbers seen."""
    with VideoReader(path, **arguments) as reader:
        return reader, numbers_in(frame.pixels for frame in reader)


def numbers_in(pictures: Iterable[Pixels]) -> list[int]:
    """Read the numbers of decoded pictures."""
    return [read_number(pixels) for pixels in pictures]


def refusal(path: Path, **arguments: Any) -> VideoError:
    """Return the error of reading a video; it is one line that names the file."""
    with pytest.raises(VideoError) as caught, VideoReader(path, **arguments) as reader:
        list(reader)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value
