"""The videos of the fault matrix, made on the spot: every kind of file that may be handed in."""

import os
import struct
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import number_picture, numbered_clip, write_clip
from PIL import Image

FASTSTART = {"movflags": "faststart"}
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n"


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        row: its number in the matrix.
        name: of the file.
        make: makes it at a path.
        status, reason: what becomes of it by default.
        frames: how many are cached; None where that is for another test to say.
        settings: of extraction, where a row is about one.
    """

    row: int
    name: str
    make: Callable[[Path], Any]
    status: str = "ok"
    reason: str = ""
    frames: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def video_id(self) -> str:
        """A sound id, whatever the file's name."""
        return f"{self.row:02}-{os.fsencode(self.name).decode(errors='ignore')}"


def noise(frames: int) -> np.ndarray:
    """Draw pictures that take many bytes, so that files consist of packets."""
    return np.random.default_rng(1).integers(0, 256, (frames, 64, 96, 3), np.uint8)


def cut(path: Path, share: float, **muxing: Any) -> None:
    """Make a clip of 60 frames and keep its beginning."""
    write_clip(path, noise(60), gop_size=6, **muxing)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def damaged(path: Path) -> None:
    """Make a clip of 60 frames and overwrite some of its middle with noise."""
    write_clip(path, noise(60), gop_size=6, muxer=FASTSTART)
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(content)


def sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def without_packets(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()


def turned(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix a, b, c, d into the header, 44 bytes after the name of its box."""
    content = bytearray(numbered_clip(path, 5).read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def with_alpha(path: Path, codec: str, pix_fmt: str, **more: Any) -> None:
    pictures = np.full((3, 48, 64, 4), (200, 100, 60, 128), np.uint8)
    write_clip(path, list(pictures), codec=codec, pix_fmt=pix_fmt, **more)


def image(path: Path) -> None:
    Image.fromarray(number_picture(3)).save(path)


def two_streams(path: Path) -> None:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 64, 160, "yuv420p"
        for index, stream in enumerate(streams):
            frame = av.VideoFrame.from_ndarray(number_picture(100 + index), "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
            container.mux(stream.encode(None))


def changing_size(path: Path) -> None:
    content = b""
    for side in (64, 128):
        pictures = [number_picture(n, side, 160) for n in range(5)]
        content += write_clip(path.with_name(f".{side}.h264"), pictures).read_bytes()
    path.write_bytes(content)


def only_cover_art(path: Path) -> None:
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=8000, layout="mono")
        art = container.add_stream("mjpeg", rate=1)
        art.height, art.width, art.pix_fmt = 64, 160, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(track.encode(silence))
        container.mux(track.encode(None))
        picture = av.VideoFrame.from_ndarray(number_picture(1), "rgb24")
        container.mux(art.encode(picture.reformat(format="yuvj420p", threads=1)))
        container.mux(art.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1


def playlist(path: Path, text: str) -> None:
    """Point at another file beside it, which must not be opened."""
    secret = numbered_clip(path.with_name(f".secret-{path.name}.ts"), 5, codec="mpeg2video")
    path.write_text(text.format(secret=secret))


def clip(frames: int = 5, **arguments: Any) -> Callable[[Path], Any]:
    return lambda path: numbered_clip(path, frames, **arguments)


# Rows 25, 31, 32 and 36, which no file alone makes, are in test_faults_videos.py.
KINDS = [
    Kind(1, "empty.mp4", Path.touch, "failed", "unreadable"),
    Kind(2, "text.mp4", lambda path: path.write_text("hello\n" * 500), "failed", "unreadable"),
    Kind(
        3,
        "noise.mp4",
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(9000)),
        "failed",
        "unreadable",
    ),
    Kind(4, "no-index.mp4", partial(cut, share=0.8), "failed", "unreadable"),
    Kind(5, "cut.mp4", partial(cut, share=0.6, muxer=FASTSTART), "partial", "truncated"),
    Kind(5, "cut.mkv", partial(cut, share=0.6), "partial", "truncated"),
    Kind(6, "damaged.mp4", damaged, "partial", "packet_errors"),
    Kind(7, "sound.wav", sound, "failed", "no_video"),
    Kind(8, "no-packets.mkv", without_packets, "failed", "no_frames"),
    Kind(9, "one.mp4", clip(1), frames=1),
    Kind(10, "turned.mp4", partial(turned, matrix=(0, 1, -1, 0)), frames=5),
    Kind(11, "vfr.mp4", clip(5, times=[0, 40, 80, 400, 1000], ticks=1000), frames=5),
    Kind(12, "10-bit.mkv", clip(codec="ffv1", pix_fmt="yuv420p10le"), frames=5),
    Kind(13, "4-4-4.mp4", clip(pix_fmt="yuv444p"), frames=5),
    Kind(
        14,
        "odd.mkv",
        lambda path: write_clip(
            path, [number_picture(n, 37, 51) for n in range(5)], codec="ffv1", pix_fmt="yuv420p"
        ),
        frames=5,
    ),
    Kind(14, "wide-pixels.mp4", clip(sample_aspect_ratio=Fraction(2, 1)), frames=5),
    Kind(15, "hdr.mp4", clip(color_trc=16), frames=5),
    Kind(16, "alpha.mov", partial(with_alpha, codec="qtrle", pix_fmt="argb"), frames=3),
    Kind(17, "moving.gif", clip(codec="gif", pix_fmt="rgb8", ticks=20), frames=5),
    Kind(18, "alpha.apng", partial(with_alpha, codec="apng", pix_fmt="rgba"), frames=3),
    Kind(19, "picture.png", image, "failed", "image"),
    Kind(19, "allowed.png", image, frames=1, settings={"allow_images": True}),
    Kind(20, "large.mp4", clip(), "failed", "too_large", settings={"max_pixels": 64 * 160 - 1}),
    Kind(21, "long.mp4", clip(400), frames=7, settings={"max_frames": 7}),
    Kind(21, "lasting.mp4", clip(400), frames=30, settings={"max_seconds": 1.0}),
    Kind(22, "missing.mp4", lambda path: None, "failed", "missing"),
    Kind(23, "dangling.mp4", lambda path: path.symlink_to("nowhere"), "failed", "missing"),
    Kind(24, "folder.mp4", Path.mkdir, "failed", "not_a_file"),
    Kind(26, "pipe.mp4", os.mkfifo, "failed", "not_a_file"),
    Kind(26, "device.mp4", lambda path: path.symlink_to("/dev/zero"), "failed", "not_a_file"),
    Kind(27, os.fsdecode(b"\xff\xfe.mp4"), clip(), frames=5),
    Kind(28, "list.m3u8", partial(playlist, text=PLAYLIST), "failed", "unreadable"),
    Kind(
        29,
        "list.ffconcat",
        partial(playlist, text="ffconcat version 1.0\nfile {secret}\n"),
        "failed",
        "unreadable",
    ),
    Kind(30, "http:host.mp4", lambda path: None, "failed", "missing"),
    Kind(33, "two.mkv", two_streams, frames=1),
    Kind(34, "changing.h264", changing_size, frames=10),
    Kind(35, "cover.mp4", only_cover_art, "failed", "no_video"),
]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Step down from root, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
