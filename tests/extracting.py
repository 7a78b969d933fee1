"""A small extraction, which tests run whole, in parts, several at once, or kill."""

from pathlib import Path

import numpy as np

from memfeat.config import ExtractConfig
from memfeat.extraction import extract
from memfeat.manifest import Manifest, VideoRecord
from memfeat.video import write_video

FRAMES = (5, 9, 1, 6, 4, 7, 3)  # of each clip: batches of 4 run across them
ENCODER = "timm/test_vit"


def moving_noise(frames: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (frames, 6, 8, 3), dtype=np.uint8)
    return list(coarse.repeat(8, axis=1).repeat(8, axis=2))


def render(folder: Path) -> Path:
    """Render the clips; the same bytes each time on one machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frames in enumerate(FRAMES):
        write_video(folder / f"v{index}.mp4", moving_noise(frames, index), fps=10)
    return folder


def manifest_of(paths: dict[str, Path]) -> Manifest:
    """A manifest of videos by their ids."""
    records = [
        VideoRecord(video_id=name, path=path, score=None, split="test")
        for name, path in paths.items()
    ]
    return Manifest(Path("unused.csv"), tuple(records))


def manifest(folder: Path, *names: str) -> Manifest:
    """A manifest of the clips in a folder, or of some."""
    names = names or tuple(f"v{index}" for index in range(len(FRAMES)))
    return manifest_of({name: folder / f"{name}.mp4" for name in names})


def config(cache: Path, **changes) -> ExtractConfig:
    """Settings for a tiny encoder with random weights."""
    values = {
        "manifest": "unused.csv",
        "cache": cache,
        "encoder": ENCODER,
        "weights": "random",
        "batch_size": 4,
        "videos_per_shard": 2,
        "device": "cpu",
    }
    return ExtractConfig(**(values | changes))


def files(cache: Path) -> dict[str, bytes]:
    """Every file of a cache, hidden ones included."""
    return {path.name: path.read_bytes() for path in cache.iterdir()} if cache.is_dir() else {}


def extract_into(clips: Path, cache: Path, device: str = "cpu") -> None:
    """Extract the clips: for a process of its own."""
    extract(manifest(clips), config(cache, device=device))
