"""Files of every kind that may be handed in as a video, made on the spot."""

import os
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import number_picture, numbered_clip, write_clip, write_streams
from PIL import Image

FASTSTART = {"movflags": "faststart"}


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: of the file.
        make: makes it at a path.
        status, reason: what becomes of it.
        frames: how many are cached; None where that is for another test to say.
        settings: of extraction, where the kind is about one.
    """

    name: str
    make: Callable[[Path], Any]
    status: str = "ok"
    reason: str = ""
    frames: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def video_id(self) -> str:
        """A sound id, whatever the file's name."""
        return os.fsencode(self.name).decode(errors="ignore")


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


def picture(path: Path) -> None:
    Image.fromarray(number_picture(3)).save(path)


def only_cover_art(path: Path) -> None:
    write_streams(path, 1.0, 1)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1


def clip(frames: int = 5, **arguments: Any) -> Callable[[Path], Any]:
    return lambda path: numbered_clip(path, frames, **arguments)


# Kinds that take no other way through extraction than a plain clip are in test_video*.py.
KINDS = [
    Kind("empty.mp4", Path.touch, "failed", "unreadable"),
    Kind("text.mp4", lambda path: path.write_text("hello\n" * 500), "failed", "unreadable"),
    Kind("noise.mp4", lambda path: path.write_bytes(noise(1)), "failed", "unreadable"),
    Kind("no-index.mp4", partial(cut, share=0.8), "failed", "unreadable"),
    Kind("cut.mp4", partial(cut, share=0.6, muxer=FASTSTART), "partial", "truncated"),
    Kind("cut.mkv", partial(cut, share=0.6), "partial", "truncated"),
    Kind("damaged.mp4", damaged, "partial", "packet_errors"),
    Kind("sound.wav", sound, "failed", "no_video"),
    Kind("no-packets.mkv", without_packets, "failed", "no_frames"),
    Kind("one.mp4", clip(1), frames=1),
    Kind("picture.png", picture, "failed", "image"),
    Kind("allowed.png", picture, frames=1, settings={"allow_images": True}),
    Kind("large.mp4", clip(), "failed", "too_large", settings={"max_pixels": 64 * 160 - 1}),
    Kind("long.mp4", clip(400), frames=7, settings={"max_frames": 7}),
    Kind("lasting.mp4", clip(400), frames=30, settings={"max_seconds": 1.0}),
    Kind("missing.mp4", lambda path: None, "failed", "missing"),
    Kind("dangling.mp4", lambda path: path.symlink_to("nowhere"), "failed", "missing"),
    Kind("folder.mp4", Path.mkdir, "failed", "not_a_file"),
    Kind("pipe.mp4", os.mkfifo, "failed", "not_a_file"),
    Kind("device.mp4", lambda path: path.symlink_to("/dev/zero"), "failed", "not_a_file"),
    Kind(os.fsdecode(b"\xff\xfe.mp4"), clip(), frames=5),
    Kind("cover.mp4", only_cover_art, "failed", "no_video"),
]
