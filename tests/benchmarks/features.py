"""Made-up features of the paper's shape: random unit vectors, which mean nothing."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from memfeat.cache import Cache, CacheSpec, EncodedVideo, write_shard
from memfeat.config import ExtractConfig
from memfeat.manifest import VideoRecord

DIM = 1024
FRAMES = 60, 100  # of a video: the fewest, the most
EPOCH_FRAMES = 7_000 * sum(FRAMES) // 2  # Memento10k's training split, of such videos
SPEC = CacheSpec(
    encoder="made up",
    weights="random",
    weights_sha256="",
    trained_on="nothing: made up for a benchmark",
    activation="none",
    dim=DIM,
    image_size=336,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    precision="float32",
    batch_size=32,
)


def videos(count: int) -> Iterator[EncodedVideo]:
    source = np.random.default_rng(0)
    for i in range(count):
        frames = source.standard_normal((source.integers(*FRAMES, endpoint=True), DIM), np.float32)
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        yield EncodedVideo(f"v{i:05}", frames.astype(np.float16), np.arange(len(frames)) / 30)


def write_cache(folder: Path, count: int) -> Cache:
    made, size = videos(count), ExtractConfig.model_fields["videos_per_shard"].default
    for _ in range(0, count, size):
        write_shard(folder, SPEC, list(islice(made, size)))
    return Cache.open(folder)


def records(ids: tuple[str, ...], train: int) -> list[VideoRecord]:
    """Give videos made-up scores: the first `train` to learn from, one for dev, others to test."""
    scores = np.random.default_rng(0).random(len(ids)).round(6).tolist()
    splits = ["train"] * train + ["dev"] + ["test"] * (len(ids) - train - 1)
    return [
        VideoRecord(video_id=name, path=Path(name), score=score, split=split, dataset="made up")
        for name, score, split in zip(ids, scores, splits, strict=True)
    ]
