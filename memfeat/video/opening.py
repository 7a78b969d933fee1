"""Opening a file safely: from a path to a container, its video stream and a decoder."""

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from memfeat.errors import VideoError
from memfeat.storage import stand_in
from memfeat.video.side_data import describe

VIDEO_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,gxf,dv,rm,wtv,ivf,gif,apng,"
    "h264,hevc,m4v,obu,vc1,mjpeg,yuv4mpegpipe,webp_anim"
)
# Sound and still images are opened only to say what is wrong with them.
AUDIO_FORMATS = "wav,mp3,flac,aac,aiff,ac3,amr,caf"
IMAGE_FORMATS = (
    "jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe,pbm_pipe,j2k_pipe,"
    "jpegxl_pipe,exr_pipe,psd_pipe,qoi_pipe,sgi_pipe,dds_pipe,ico"
)
IMAGE_BRANDS = ("avif", "avis", "heic", "heix", "hevc", "hevx", "mif1", "msf1")
# Cover art, thumbnails and slides.
BESIDE_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# FFmpeg's own decoders of these two drop the alpha channel.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
BI_RGB = ("\0\0\0\0", "WRAW")  # as FourCC
RAW_PADDING = 32  # bytes at the end of a row of pixels, at most
PALETTE = 1024  # bytes that may follow the pixels
WEBP, ANIMATED = "webp_anim", 2  # its demuxer, and its flag in the file's header
MORE_PIXELS = 1 << 20
MOST_PIXELS = (1 << 31) - 1  # FFmpeg decodes no larger frame, and takes no larger limit


@contextmanager
def open_video(
    path: Path, *, max_pixels: int | None = None, allow_images: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local file, by its content alone, and give its default video stream, or the first.

    Raises:
        VideoError: `missing`, `not_a_file`, `permission`, `unreadable`, `no_video`, `no_frames`,
            `too_large` or, unless they are allowed, `image`.
    """
    options = _limit(max_pixels)
    with _open_file(path) as file, _open_container(file, path, options) as container:
        stream = _first_video(container, path, allow_images)
        if max_pixels is not None:
            size = stream.codec_context.width, stream.codec_context.height
            require_size(path, size if all(size) else _size_in_header(path), max_pixels)
        yield container, stream


def create_decoder(stream: VideoStream, max_pixels: int | None = None) -> VideoCodecContext:
    """Return a decoder that keeps the alpha channel, on one thread.

    Frames of many more than `max_pixels` are an error to it, before there is memory for them.
    """
    decoder = stream.codec_context
    with_alpha = ALPHA_DECODERS.get(decoder.name)
    if with_alpha in av.codecs_available and stream.metadata.get("alpha_mode") == "1":
        decoder = cast(VideoCodecContext, av.CodecContext.create(with_alpha, "r"))
    decoder.thread_count = 1  # damaged files decode differently with each number of threads
    decoder.options = {**decoder.options, **_limit(max_pixels)}
    return decoder


def has_unused_byte(stream: VideoStream) -> bool:
    """Return whether 32-bit pixels are Windows' BI_RGB, whose fourth byte is not for alpha."""
    if stream.codec_context.name != "rawvideo":
        return False
    try:
        return stream.codec_context.codec_tag in BI_RGB
    except UnicodeDecodeError:
        return False


def has_alpha_track(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether the alpha channel of an image or animation is a grey stream beside it."""

    def shape(other: VideoStream) -> tuple[int, int, int]:
        return other.frames, other.codec_context.width, other.codec_context.height

    return container.metadata.get("major_brand") in IMAGE_BRANDS and any(
        (other.codec_context.pix_fmt or "").startswith("gray") and shape(other) == shape(stream)
        for other in container.streams.video
        if other is not stream and other.codec_context is not None
    )


def require_raw_frame(path: Path, decoder: VideoCodecContext, size: int) -> None:
    """Refuse an uncompressed frame of so many bytes if its pixels cannot be what they are called.

    FFmpeg calls pixels for which a container has no name by another's name when it writes them.

    Raises:
        VideoError: `unreadable`.
    """
    layout, width, height = decoder.format, decoder.width, decoder.height
    if decoder.name != "rawvideo" or layout is None:
        return
    wanted = width * height * layout.padded_bits_per_pixel // 8
    if size - wanted >= RAW_PADDING * height + PALETTE * layout.has_palette:
        text = (
            f"calls its uncompressed pixels {layout.name}, of which {width} x {height} are "
            f"{wanted} bytes, but has {size} for each frame; convert the original to H.264"
        )
        raise VideoError("unreadable", f"{quoted(path)} {text}")


def require_size(path: Path, size: tuple[int, int] | None, max_pixels: int | None) -> None:
    """Refuse frames of a width and height, in pixels, that are more than allowed.

    Raises:
        VideoError: `too_large`.
    """
    if max_pixels is not None and size and size[0] * size[1] > max_pixels:
        raise too_large(path, f"frames of {size[0]} x {size[1]}, more than", max_pixels)


def too_large(path: Path, what: str, max_pixels: int) -> VideoError:
    """Return the refusal of a video that has `what` the limit."""
    return VideoError(
        "too_large",
        f"{quoted(path)} has {what} the {max_pixels} pixels that are allowed; scale it down, or "
        "raise --max-pixels",
    )


def quoted(path: Path) -> str:
    """Return the path as messages show it."""
    return repr(str(path))  # one line, printable, whatever bytes the name holds


def _limit(max_pixels: int | None) -> dict[str, str]:
    """Return the options that let a codec refuse frames of many more pixels."""
    if max_pixels is None:
        return {}
    # It counts rows padded to some multiple, so the limit cannot be exact.
    return {"max_pixels": str(min(2 * max_pixels + MORE_PIXELS, MOST_PIXELS))}


def _size_in_header(path: Path) -> tuple[int, int] | None:
    """Return width and height as the container has them, with no codec, and so without a frame.

    FFmpeg forgets them where a codec that it tries out refuses frames of that size.
    """
    with _open_file(path) as file, _open_container(file, path, {"codec_whitelist": "none"}) as bare:
        context = _first_video(bare, path, allow_images=True).codec_context
        return (context.width, context.height) if context.width and context.height else None


def _open_file(path: Path) -> BinaryIO:
    try:
        _require_regular(path, path.stat())  # first, as to open a device can do something
        # What is opened is what is looked at, and a pipe put there meanwhile does not stall this.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Without its name FFmpeg cannot take it for a protocol, a pattern or another format.
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            _require_regular(path, status)
            if not status.st_size:
                raise VideoError("unreadable", f"{quoted(path)} is empty; fetch it again")
            stack.pop_all()
        return os.fdopen(descriptor, "rb")
    except PermissionError as error:
        text = "may not be read; check its permissions and its folder's"
        raise VideoError("permission", f"{quoted(path)} {text}") from error
    except (OSError, ValueError) as error:
        hint = ", and separate folders by /" if "\\" in str(path) else ""
        if any(_is_there(path, form) for form in ("NFC", "NFD")):
            hint = "; what is there has its accents in another Unicode form, so rename one of both"
        raise VideoError(
            "missing", f"{quoted(path)} is not there ({error}); check it{hint}"
        ) from error


def _is_there(path: Path, form: Literal["NFC", "NFD"]) -> bool:
    name = unicodedata.normalize(form, str(path))
    return os.path.exists(name)  # noqa: PTH110 (false, and no error, of what cannot be a name)


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise VideoError("not_a_file", f"{quoted(path)} is no regular file; name the video")


def _open_container(file: BinaryIO, path: Path, options: dict[str, str]) -> InputContainer:
    start = os.pread(file.fileno(), 64, 0)
    is_animated = start[8:16] == b"WEBPVP8X" and start[20:] and start[20] & ANIMATED
    if is_animated and WEBP not in av.formats_available:
        text = "is an animated WebP, which this FFmpeg cannot decode; convert it to GIF or MP4"
        raise VideoError("unreadable", f"{quoted(path)} {text}")
    formats = f"{VIDEO_FORMATS},{AUDIO_FORMATS},{IMAGE_FORMATS}"
    whitelists = {"format_whitelist": formats, "protocol_whitelist": "none"}
    try:
        return av.open(file, "r", options=whitelists | options, metadata_errors="replace")
    except EOFError as error:
        text = "ends before its first frame: without any, or cut short"
        raise VideoError("no_frames", f"{quoted(path)} {text}; export it again") from error
    except (av.FFmpegError, OSError) as error:
        what = stand_in(start) or (
            "not a video that can be read: damaged, incomplete, or of another format; try to play "
            "it"
        )
        raise VideoError("unreadable", f"{quoted(path)} is {what}") from error


def _first_video(container: InputContainer, path: Path, allow_images: bool) -> VideoStream:
    """Return the default video stream, or else the first, of those that are no pictures beside."""
    streams = [s for s in container.streams.video if not s.disposition & BESIDE_VIDEO]
    streams.sort(key=lambda s: not s.disposition & Disposition.default)
    if not streams and not _gives_data(container):
        raise VideoError("unreadable", f"{quoted(path)} is damaged or incomplete; fetch it again")
    if not streams:
        raise VideoError("no_video", f"{quoted(path)} has no video stream, perhaps only sound")
    name, brand = container.format.name, container.metadata.get("major_brand")
    is_picture = brand in IMAGE_BRANDS
    if is_picture:  # an animation, which has a track, also has a picture to stand for it
        streams.sort(key=lambda s: s.frames <= 1)
    frames = streams[0].frames
    one_frame = (name == "gif" and frames == 1) or (is_picture and frames <= 1)
    is_image = name in IMAGE_FORMATS.split(",") or one_frame
    if is_image and not allow_images:
        raise VideoError(
            "image",
            f"{quoted(path)} is an image ({brand or name}), not a video; --allow-images takes it "
            "as a video of one frame",
        )
    if one_frame and is_picture and "Tile Grid" in describe(container):
        text = "is an image of several tiles, which memfeat does not put together; convert it"
        raise VideoError("unreadable", f"{quoted(path)} {text} to JPEG or PNG")
    if streams[0].codec_context is None:
        text = "is in a codec that this FFmpeg cannot decode; convert it to H.264"
        raise VideoError("unreadable", f"{quoted(path)} {text}")
    return streams[0]


def _gives_data(container: InputContainer) -> bool:
    """Return whether there are packets: a header cut before the video stream has none."""
    try:
        return len(container.streams) > 0 and any(packet.size for packet in container.demux())
    except (av.FFmpegError, OSError):
        return False
