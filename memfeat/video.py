"""Opening, decoding, turning, resizing and writing videos: every frame, in presentation order.

The only importer of `av`. A file is judged by its content, never by its name; it must be a
regular local file in one of the formats below, and nothing that it refers to is opened.
"""

import os
import re
import stat
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from memfeat.errors import ConfigError, VideoError
from memfeat.files import write_atomically

Pixels = NDArray[np.uint8]

VIDEO_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,gxf,dv,rm,wtv,ivf,gif,apng,"
    "h264,hevc,m4v,obu,vc1,mjpeg,yuv4mpegpipe"
)
# Sound and still images are opened only to say what is wrong with them.
AUDIO_FORMATS = "wav,mp3,flac,aac,aiff,ac3,amr,caf"
IMAGE_FORMATS = (
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,pbm_pipe,j2k_pipe,"
    "jpegxl_pipe,exr_pipe,psd_pipe,qoi_pipe,sgi_pipe,dds_pipe,ico"
)
IMAGE_BRANDS = ("avif", "avis", "heic", "heix", "mif1", "msf1")
# FFmpeg works their duration out from the data that is there, so it promises nothing.
FORMATS_WITHOUT_DURATION = ("mpeg", "mpegts", "mpegvideo")
# FFmpeg's own decoders of these two drop the alpha channel.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
HDR = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
FALLBACK_RATE = 25
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
        max_frames: stop after so many frames; the rest does not count as missing.

    Attributes, those on frames final once the last one has come:
        warning: what the user should know about the picture (that it is HDR), or None.
        frames_decoded: how many came.
        frames_expected: how many the header counts, at most `max_frames`, or None.
        reason: why the video is only partial: `truncated` (its end is missing) or `packet_errors`
            (some of it could not be decoded); None if it is whole.

    Raises:
        VideoError: `missing`, `not_a_file`, `permission`, `unreadable`, `no_video`, `no_frames`
            or `image`; while iterating, `no_frames` or `unreadable`.
        ConfigError: `size` or `max_frames` below 1.
    """

    def __init__(
        self, path: Path, *, size: int | None = None, max_frames: int | None = None
    ) -> None:
        for name, value in (("size", size), ("max_frames", max_frames)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value} is not allowed; give 1 or more, or None")
        with ExitStack() as stack:
            file = stack.enter_context(_open_file(path))
            self._container = stack.enter_context(_open_container(file, path))
            self._stream = _first_video(self._container, path)
            self._decoder = _create_decoder(self._stream)
            self._close = stack.pop_all().close
        self._path, self._size, self._max_frames = path, size, max_frames
        self._reformatter = VideoReformatter()
        self._announced = self.frames_expected = _counted_samples(self._container, self._stream)
        self._packets = self.frames_decoded = 0
        self._damaged_at: int | None = None  # counted in packets
        self._interval = self._longest_gap = 1 / float(self._stream.guessed_rate or FALLBACK_RATE)
        self._pts_seconds: float | None = None
        self._frames = self._read()
        self.reason: str | None = None
        transfer = HDR.get(self._decoder.color_trc)
        self.warning = transfer and (
            f"{_name(path)} is HDR ({transfer}) and is read without tone mapping, so it looks "
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
        for decoded in self._decode():
            self.frames_decoded += 1
            yield Frame(self._picture(decoded), self._time(decoded))
            if self.frames_decoded == self._max_frames:
                self.frames_expected = self.frames_expected and self._max_frames
                self.reason = "packet_errors" if self._damaged_at else None
                return
        if not self.frames_decoded:
            raise VideoError("no_frames", f"{_name(self._path)} gave no frame; export it again")
        self.reason = self._what_is_missing()

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in self._demux():
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError:
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
            ends_early = end < _promised_end(self._container, self._stream)
        if ends_early or self._damaged_at == self._packets:
            return "truncated"
        falls_short = (self.frames_expected or 0) - self.frames_decoded > HEADER_SLACK
        return "packet_errors" if falls_short or self._damaged_at is not None else None

    def _time(self, frame: av.VideoFrame) -> float:
        pts, base, last = frame.pts, self._stream.time_base, self._pts_seconds
        seconds = pts * base.numerator / base.denominator if pts is not None and base else None
        if last is None:
            seconds = seconds or 0.0
        elif seconds is None or seconds - last < 1e-6:
            seconds = last + self._interval
        else:
            self._longest_gap = max(self._longest_gap, seconds - last)
        self._pts_seconds = seconds
        return seconds

    def _picture(self, frame: av.VideoFrame) -> Pixels:
        has_alpha = frame.format.has_palette or any(c.is_alpha for c in frame.format.components)
        layout = "rgba" if has_alpha else "rgb24"
        try:
            # With PyAV's default of several threads, swscale gets some pixels wrong now and then.
            image = self._reformatter.reformat(frame, format=layout, threads=1)
        except (av.FFmpegError, ValueError) as error:
            text = f"holds {frame.format.name} pixels that cannot be turned into RGB ({error})"
            raise VideoError("unreadable", f"{_name(self._path)} {text}; convert it") from error
        pixels = cast(Pixels, image.to_ndarray())
        if has_alpha:
            opacity = pixels[..., 3:] / np.float32(255)
            pixels = (pixels[..., :3] * opacity + np.float32(0.5)).astype(np.uint8)
        pixels = _upright(pixels, frame)
        return pixels if self._size is None else resize(pixels, self._size)


def read_frames(path: Path, *, size: int | None = None, max_frames: int | None = None) -> Frames:
    """Decode a whole video into memory; arguments and errors are those of `VideoReader`.

    Without a size, frames that differ in size from the first one are squashed to it.
    """
    with VideoReader(path, size=size, max_frames=max_frames) as reader:
        frames = list(reader)
    height, width, _ = frames[0].pixels.shape
    return Frames(
        np.stack([_squash(frame.pixels, height, width) for frame in frames]),
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
    raise VideoError("no_frames", f"{_name(path)} {text}")


def resize(pixels: Pixels, size: int) -> Pixels:
    """Squash uint8 (height, width, 3) to (size, size, 3): antialiased bicubic, no crop.

    Within one grey level of PIL's, but for a few values in a million, which are two off.
    """
    return _squash(pixels, size, size)


def write_video(path: Path, frames: Iterable[Pixels], *, fps: int, crf: int = 20) -> None:
    """Write frames uint8 (height, width, 3) RGB as H.264, yuv420p, in an mp4, atomically.

    The same frames give the same bytes: one thread, no encoder tags, no dates.

    Args:
        path: the file; its folder is made, an older file is replaced.
        frames: one or more pictures of one even height and width.
        fps: frames per second.
        crf: x264's quality, from 0 (lossless) to 51; at 18 losses are hardly visible.

    Raises:
        VideoError: `no_frames`, or `unencodable`: an odd side, another shape or dtype.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(clip), "w", options=options) as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
            stream.codec_context.thread_count = 1
            shape: tuple[int, ...] = ()
            for number, pixels in enumerate(frames):
                shape = shape or pixels.shape
                even = len(shape) == 3 and shape[0] % 2 == shape[1] % 2 == 0
                if pixels.dtype != np.uint8 or pixels.shape != shape or not even or shape[2] != 3:
                    text = f"frame {number} is {pixels.dtype} {pixels.shape}, the first {shape}"
                    rule = "give uint8 (height, width, 3), all of one size, with even sides"
                    raise VideoError("unencodable", f"cannot write {_name(path)}: {text}; {rule}")
                if number == 0:
                    stream.height, stream.width, stream.pix_fmt = *shape[:2], "yuv420p"
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
            if not shape:
                raise VideoError("no_frames", f"no frames to write to {_name(path)}; give one")
            container.mux(stream.encode(None))
        write_atomically(path, clip.read_bytes())


def _name(path: Path) -> str:
    return repr(str(path))  # one line, printable, whatever bytes the name holds


def _open_file(path: Path) -> BinaryIO:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("not_a_file", f"{_name(path)} is no regular file; name the video")
        if not status.st_size:
            raise VideoError("unreadable", f"{_name(path)} is empty; fetch it again")
        # Without its name FFmpeg cannot take it for a protocol, a pattern or another format.
        return os.fdopen(os.open(path, os.O_RDONLY), "rb")
    except PermissionError as error:
        text = "may not be read; check its permissions and its folder's"
        raise VideoError("permission", f"{_name(path)} {text}") from error
    except (OSError, ValueError) as error:
        raise VideoError("missing", f"{_name(path)} is not there ({error}); check it") from error


def _open_container(file: BinaryIO, path: Path) -> InputContainer:
    formats = f"{VIDEO_FORMATS},{AUDIO_FORMATS},{IMAGE_FORMATS}"
    options = {"format_whitelist": formats, "protocol_whitelist": "none"}
    try:
        return av.open(file, "r", options=options, metadata_errors="replace")
    except EOFError as error:
        text = "ends before its first frame: without any, or cut short"
        raise VideoError("no_frames", f"{_name(path)} {text}; export it again") from error
    except (av.FFmpegError, OSError) as error:
        text = "is not a video that can be read: damaged, incomplete, or of another format"
        raise VideoError("unreadable", f"{_name(path)} {text}; try to play it") from error


def _first_video(container: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is not cover art."""
    if not len(container.streams):
        raise VideoError("unreadable", f"{_name(path)} is damaged or incomplete; fetch it again")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError("no_video", f"{_name(path)} has no video stream, perhaps only sound")
    name, brand = container.format.name, container.metadata.get("major_brand")
    one_gif = name == "gif" and streams[0].frames == 1
    if name in IMAGE_FORMATS.split(",") or brand in IMAGE_BRANDS or one_gif:
        raise VideoError("image", f"{_name(path)} is an image ({brand or name}), not a video")
    if streams[0].codec_context is None:
        text = "is in a codec that this FFmpeg cannot decode; convert it to H.264"
        raise VideoError("unreadable", f"{_name(path)} {text}")
    return streams[0]


def _create_decoder(stream: VideoStream) -> VideoCodecContext:
    decoder = stream.codec_context
    with_alpha = ALPHA_DECODERS.get(decoder.name)
    if with_alpha in av.codecs_available and stream.metadata.get("alpha_mode") == "1":
        decoder = cast(VideoCodecContext, av.CodecContext.create(with_alpha, "r"))
    decoder.thread_count = 1  # damaged files decode differently with each number of threads
    return decoder


def _counted_samples(container: InputContainer, stream: VideoStream) -> int | None:
    """Return the header's count of samples, None if it has none or also counts the skipped."""
    if container.format.name == "avi":
        return None
    edited = stream.frames and container.format.name.startswith("mov")
    return (len(stream.index_entries) if edited else stream.frames) or None


def _promised_end(container: InputContainer, stream: VideoStream) -> float:
    """Return the second at which the stream ends by its header; 0 where that does not say."""
    if container.format.name in FORMATS_WITHOUT_DURATION:
        return 0.0
    if stream.frames and stream.average_rate:  # AVI
        return stream.frames / float(stream.average_rate)
    if stream.duration and stream.time_base:
        return float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
    whole = (container.duration or 0) / av.time_base
    tag = re.match(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return min(whole, (hours * 60 + minutes) * 60 + seconds)
    return whole - (len(container.streams) > 1)  # sound may go on for a second


def _upright(pixels: Pixels, frame: av.VideoFrame) -> Pixels:
    """Apply the display matrix [a b u; c d v; x y w]: x' = a x + c y, y' = b x + d y."""
    matrix = cast(Mapping[str, Any], frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _squash(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    # A whole batch of one, its channels last, is what torch's fast uint8 kernel takes as it is.
    picture = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    batch = picture[None].permute(0, 3, 1, 2)
    squashed = interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(squashed[0].permute(1, 2, 0).numpy())
