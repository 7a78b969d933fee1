"""Generated clips: photographs under a moving camera, with film grain."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage import data
from skimage.transform import resize as enlarge

from memfeat.manifest import VideoRecord
from memfeat.video import write_video

CLIP_FRAMES = 48  # four clips of it are six whole batches of 32
SIZES = {"360p": (360, 640), "720p": (720, 1280)}


def pictures(photo: NDArray[np.uint8], height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """Let a camera drift over a photograph, with film grain."""
    room = 2 * CLIP_FRAMES
    large = enlarge(photo, (height + room, width + room), anti_aliasing=True)
    generator = np.random.default_rng(0)
    for n in range(CLIP_FRAMES):
        view = large[n : n + height, 2 * n : 2 * n + width] * 255
        grain = generator.normal(0, 2, (height, width, 1))
        yield np.clip(view + grain, 0, 255).astype(np.uint8)


def write_clips(folder: Path, size: str) -> list[VideoRecord]:
    """Write four clips of H.264 from photographs."""
    photos = data.astronaut(), data.coffee(), data.cat(), data.rocket()
    records = []
    for number, photo in enumerate(photos):
        path = folder / f"{size}-{number}.mp4"
        write_video(path, pictures(photo, *SIZES[size]), fps=25)
        records.append(VideoRecord(video_id=path.stem, path=path, score=None, split="test"))
    return records
