"""Decoding a video frame by frame, and detecting missing parts."""

import errno
import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import av
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from memfeat.config import MAX_PIXELS, UNTAGGED_HD
from memfeat.errors import ConfigError, VideoError
from memfeat.video.completeness import Completeness
from memfeat.video.opening import (
    create_decoder,
    has_unused_byte,
    open_video,
    quoted,
    require_raw_frame,
    require_size,
    too_large,
)
from memfeat.video.picture_warnings import PictureWarnings
from memfeat.video.pictures import (
    SILENT_MATRICES,
    Matrix,
    Pixels,
    crop_square,
    cut_margins,
    display_matrix,
    resize,
    resize_with_pillow,
    squash,
    to_rgb,
    upright,
)
from memfeat.video.side_data import read_side_data

FALLBACK_RATE = 25
SAME_TIME = 1e-6  # seconds: less than that is rounding
SEARCHED = 1 << 16  # bytes of a transport stream through which FFmpeg searches in one go
COMMENT = b"\x81"  # what Theora's header of comments begins with


@dataclass(frozen=True)
class Frame:
    """One picture: `pixels` uint8 (height, width, 3) RGB, shown from `pts_seconds` on."""

    pixels: Pixels
    pts_seconds: float


class VideoReader:
    """Decode a video frame by frame, in constant memory and on one codec thread.

    Frames are turned and mirrored as the header's display matrix says, composited on black where
    they have an alpha channel, and squashed to (size, size) if a size is given. One without a
    presentation time, or with one that is not after its predecessor's, comes a frame interval
    after its predecessor (the first at 0 s). Iterating again goes on where the last loop stopped.

    Args:
        path: a local file.
        size: side of the square frames, in pixels; None keeps the stored size.
        crop: frames are not squashed: their short side becomes `size`, and the middle is cut out.
        pillow: frames are squashed by Pillow's bilinear filter instead of antialiased bicubic.
        keep_shape: `size` is the longest side that a frame may have; larger ones are reduced to
            it, in their own shape.
        first_frame: the frames before this one, counted from 0, are decoded but not handed out.
        max_frames: stop after so many frames; the rest does not count as missing.
        max_seconds: stop before the first frame that is shown so many seconds after the first, or
            later; the rest does not count as missing.
        max_pixels: refuse a video whose frames have more, width x height. One of over twice as
            many, and a million, is refused before there is memory for it.
        allow_images: take an image as a video of one frame.
        untagged_hd: the matrix with which frames of 720 lines or more are turned into RGB that name
            none: `BT.709`, as in players, or `BT.601`, which it is for all smaller ones.

    Attributes, those on frames final once the last one has come:
        warning: what the user should know about the pictures: that they are HDR, interlaced,
            several views, aslant, transparent, or lack their transparency; or None.
        frames_decoded: how many came.
        frames_expected: how many the header counts, at most `max_frames`, or None.
        frame_size: width and height of the first frame handed out, upright, before it is resized.
        reason: why the video is only partial, one of `PARTIAL`; None if it is whole.

    Raises:
        VideoError: `missing`, `not_a_file`, `permission`, `unreadable`, `no_video`, `no_frames`,
            `image` or `too_large`; while iterating, `no_frames`, `unreadable` or `too_large`.
        ConfigError: `size`, `max_frames` or `max_pixels` below 1; `max_seconds` not above 0, or
            infinite.
    """

    def __init__(  # noqa: PLR0913  what a frame may be asked for
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
        untagged_hd: str = UNTAGGED_HD,
        crop: bool = False,
        pillow: bool = False,
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
        self._untagged_hd = untagged_hd
        self._resize = resize_with_pillow if pillow else crop_square if crop else resize
        with ExitStack() as stack:
            self._container, self._stream = stack.enter_context(
                open_video(path, max_pixels=max_pixels, allow_images=allow_images)
            )
            self._decoder = create_decoder(self._stream, max_pixels)
            self._close = stack.pop_all().close
        self._reformatter = VideoReformatter()
        self._completeness = Completeness(path, self._container, self._stream)
        self.frames_decoded = 0
        self.frame_size = (0, 0)
        self._stopped_at: int | None = None
        # Whose empty packets repeat a picture; elsewhere, they fill up a gap between two frames.
        self._is_theora = self._decoder.name == "theora"
        is_reordered = self._decoder.codec.reorder
        self._has_decoding_times = is_reordered and self._container.format.name == "avi"
        self._decoding_times: deque[int | None] = deque()
        self._interval = self._longest_gap = 1 / float(self._stream.guessed_rate or FALLBACK_RATE)
        self._pts_seconds: float | None = None
        self._turn: tuple[float, Matrix] | None = None
        self._side_data = read_side_data(self._container, self._stream)
        self._warnings = PictureWarnings(path, self._container, self._stream, self._side_data)
        # The container's, which not all decoders hand on where the pictures name none.
        self._matrix = self._stream.codec_context.colorspace
        self._use_alpha = not has_unused_byte(self._stream)
        self._frames = self._read()
        self.reason: str | None = None

    @property
    def warning(self) -> str | None:
        """See above."""
        return self._warnings.text()

    @property
    def frames_expected(self) -> int | None:
        """See above."""
        expected = self._completeness.frames_expected
        return self._stopped_at if expected and self._stopped_at else expected

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
                return self._end(early=True)
            require_size(self._path, (decoded.width, decoded.height), self._max_pixels)
            self._warnings.note(decoded, is_first=not self.frames_decoded)
            self.frames_decoded += 1
            if self.frames_decoded > self._first_frame:
                yield Frame(self._picture(decoded), seconds)
            if self.frames_decoded == self._max_frames:
                return self._end(early=True)
        if not self.frames_decoded:
            raise VideoError("no_frames", f"{quoted(self._path)} gave no frame; export it again")
        return self._end(early=False)

    def _end(self, *, early: bool) -> None:
        if early:
            self._stopped_at = self.frames_decoded
            self.reason = self._completeness.reason_so_far()
        else:
            end = (self._pts_seconds or 0.0) + self._longest_gap
            fields = self._warnings.interlaced if self._decoder.name == "h264" else 0
            self.reason = self._completeness.reason(
                self.frames_decoded, end, self._longest_gap, fields
            )

    def _require_allowed(self, error: av.FFmpegError) -> None:
        """Distinguish a frame that the decoder refuses for its size from a damaged one."""
        width, height = self._decoder.width, self._decoder.height
        require_size(self._path, (width, height), self._max_pixels)
        # Most codecs forget the size that they refuse; AV1's has an error of its own.
        forgotten = error.errno == errno.EINVAL and not width * height
        if self._max_pixels is not None and (forgotten or error.errno == errno.ERANGE):
            raise too_large(self._path, "frames of more than", self._max_pixels) from error

    def _decode(self) -> Iterator[av.VideoFrame]:
        last: av.VideoFrame | None = None
        for packet in self._demux():
            if packet is not None and not packet.size:
                if last is not None:
                    last.pts = packet.pts
                    yield last
                continue
            if self._is_theora and packet is not None and bytes(packet)[:1] == COMMENT:
                continue  # of a second file that follows
            if packet is not None:
                self._require_readable(packet)
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError as error:
                self._require_allowed(error)
                self._completeness.note_damage()
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._completeness.note_damage()
                last = frame if self._is_theora else None
                yield frame

    def _require_readable(self, packet: "Packet[Any]") -> None:
        if packet.has_sidedata("encryption_info"):
            text = "is encrypted (DRM); give a copy that is not"
            raise VideoError("unreadable", f"{quoted(self._path)} {text}")
        require_raw_frame(self._path, self._decoder, packet.size)

    def _demux(self) -> Iterator["Packet[VideoStream] | None"]:
        """Yield the packets that show something, then None, at which the decoder gives the rest."""
        try:
            for packet in self._packets():
                if not packet.size and packet.dts is None:
                    continue  # PyAV's own flush, after the last packet
                has_data = self._completeness.note(packet)
                is_own = packet.stream_index == self._stream.index
                if has_data or (is_own and self._is_theora):
                    if self._has_decoding_times:
                        self._decoding_times.append(packet.dts)
                    yield cast("Packet[VideoStream]", packet)
        except IndexError:
            pass  # PyAV's flush of a stream that has appeared meanwhile, after the last packet
        except (av.FFmpegError, OSError):
            self._completeness.note_damage()
        yield None

    def _packets(self) -> Iterator["Packet[Any]"]:
        """Yield the packets of all streams, where FFmpeg stops searching for the next one, too."""
        for tries in range(self._path.stat().st_size // SEARCHED, -1, -1):
            try:
                yield from self._container.demux()
                return
            except BlockingIOError:
                if not tries:
                    raise

    def _time(self, frame: av.VideoFrame) -> float:
        pts, base, last = frame.pts, self._stream.time_base, self._pts_seconds
        if self._decoding_times:
            # AVI has no others, and FFmpeg makes up presentation times that go back and forth. A
            # decoder takes as many packets as it gives frames, so theirs are the frames', sorted.
            pts = self._decoding_times.popleft()
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
        if frame.colorspace in SILENT_MATRICES:
            frame.colorspace = self._matrix
        try:
            pixels, alpha = to_rgb(
                frame,
                self._reformatter,
                use_alpha=self._use_alpha,
                untagged_hd=self._untagged_hd,
            )
        except (av.FFmpegError, ValueError) as error:
            text = f"holds {frame.format.name} pixels that cannot be turned into RGB ({error})"
            raise VideoError("unreadable", f"{quoted(self._path)} {text}; convert it") from error
        self._warnings.note_alpha(alpha)
        pixels = upright(cut_margins(pixels, self._side_data.crop), self._display_matrix(frame))
        height, width = pixels.shape[:2]
        if self.frame_size == (0, 0):
            self.frame_size = width, height
        if self._size is None:
            return pixels
        if self._keep_shape:
            scale = min(1.0, self._size / max(height, width))
            return squash(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        return self._resize(pixels, self._size)

    def _display_matrix(self, frame: av.VideoFrame) -> Matrix:
        """Return a frame's display matrix, looked up only where the turn that it says changes."""
        if self._turn is None or self._turn[0] != frame.rotation:
            self._turn = frame.rotation, display_matrix(frame)
        return self._turn[1]
