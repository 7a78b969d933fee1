"""What file may be opened: from a path to a container, its video stream and a decoder."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from memfeat.errors import VideoError

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
# FFmpeg's own decoders of these two drop the alpha channel.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
MORE_PIXELS = 1 << 20


@contextmanager
def open_video(
    path: Path, *, allow_images: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local file, by its content alone, and give its first video stream.

    Raises:
        VideoError: `missing`, `not_a_file`, `permission`, `unreadable`, `no_video`, `no_frames`
            or, unless they are allowed, `image`.
    """
    with _open_file(path) as file, _open_container(file, path) as container:
        yield container, _first_video(container, path, allow_images)


def create_decoder(stream: VideoStream, max_pixels: int | None = None) -> VideoCodecContext:
    """Return a decoder that keeps the alpha channel, on one thread.

    Frames of many more than `max_pixels` are an error to it, before there is memory for them.
    """
    decoder = stream.codec_context
    with_alpha = ALPHA_DECODERS.get(decoder.name)
    if with_alpha in av.codecs_available and stream.metadata.get("alpha_mode") == "1":
        decoder = cast(VideoCodecContext, av.CodecContext.create(with_alpha, "r"))
    decoder.thread_count = 1  # damaged files decode differently with each number of threads
    if max_pixels is not None:
        # It counts rows that are filled up to some multiple, so it cannot be told exactly.
        decoder.options = {**decoder.options, "max_pixels": str(2 * max_pixels + MORE_PIXELS)}
    return decoder


def quoted(path: Path) -> str:
    """Return the path as messages show it."""
    return repr(str(path))  # one line, printable, whatever bytes the name holds


def _open_file(path: Path) -> BinaryIO:
    try:
        if path.is_fifo() or path.is_socket():
            raise VideoError("not_a_file", f"{quoted(path)} is no regular file; name the video")
        # What is opened is what is looked at, and a pipe put there meanwhile does not stall this.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise VideoError("not_a_file", f"{quoted(path)} is no regular file; name the video")
        if not status.st_size:
            os.close(descriptor)
            raise VideoError("unreadable", f"{quoted(path)} is empty; fetch it again")
        # Without its name FFmpeg cannot take it for a protocol, a pattern or another format.
        return os.fdopen(descriptor, "rb")
    except PermissionError as error:
        text = "may not be read; check its permissions and its folder's"
        raise VideoError("permission", f"{quoted(path)} {text}") from error
    except (OSError, ValueError) as error:
        raise VideoError("missing", f"{quoted(path)} is not there ({error}); check it") from error


def _open_container(file: BinaryIO, path: Path) -> InputContainer:
    formats = f"{VIDEO_FORMATS},{AUDIO_FORMATS},{IMAGE_FORMATS}"
    options = {"format_whitelist": formats, "protocol_whitelist": "none"}
    try:
        return av.open(file, "r", options=options, metadata_errors="replace")
    except EOFError as error:
        text = "ends before its first frame: without any, or cut short"
        raise VideoError("no_frames", f"{quoted(path)} {text}; export it again") from error
    except (av.FFmpegError, OSError) as error:
        text = "is not a video that can be read: damaged, incomplete, or of another format"
        raise VideoError("unreadable", f"{quoted(path)} {text}; try to play it") from error


def _first_video(container: InputContainer, path: Path, allow_images: bool) -> VideoStream:
    """Return the first video stream that is not cover art."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams and not _gives_data(container):
        raise VideoError("unreadable", f"{quoted(path)} is damaged or incomplete; fetch it again")
    if not streams:
        raise VideoError("no_video", f"{quoted(path)} has no video stream, perhaps only sound")
    name, brand = container.format.name, container.metadata.get("major_brand")
    one_gif = name == "gif" and streams[0].frames == 1
    is_image = name in IMAGE_FORMATS.split(",") or brand in IMAGE_BRANDS or one_gif
    if is_image and not allow_images:
        raise VideoError(
            "image",
            f"{quoted(path)} is an image ({brand or name}), not a video; --allow-images takes it "
            "as a video of one frame",
        )
    if streams[0].codec_context is None:
        text = "is in a codec that this FFmpeg cannot decode; convert it to H.264"
        raise VideoError("unreadable", f"{quoted(path)} {text}")
    return streams[0]


def _gives_data(container: InputContainer) -> bool:
    """Tell streams that are there from those of a header that was cut before the video's."""
    try:
        return len(container.streams) > 0 and any(packet.size for packet in container.demux())
    except (av.FFmpegError, OSError):
        return False
