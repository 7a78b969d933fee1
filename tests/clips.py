"""Making clips of every kind through PyAV, and pictures that carry a number one can read back."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

from memfeat.errors import VideoError
from memfeat.video import VideoReader

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
    pictures: Iterable[Pixels],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    ticks: int = 30,
    muxer: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Encode pictures uint8 (height, width, 3 or 4) of any codec, format and timing.

    Args:
        path: where to; the suffix picks the container.
        pictures: RGB, or RGBA.
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
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            layout = {3: "rgb24", 4: "rgba"}[pixels.shape[2]]
            frame = av.VideoFrame.from_ndarray(pixels, layout)
            # With PyAV's default of several threads, swscale gets some pixels wrong now and then.
            frame = frame.reformat(format=pix_fmt, threads=1)
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
