"""Made-up features and scores whose rule is known, for the tests of stage 2."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from memfeat.cache import CacheSpec, EncodedVideo, FeatureTable
from memfeat.config import TrainConfig
from memfeat.devices import CPU
from memfeat.manifest import VideoRecord
from memfeat.runs import Predictions
from memfeat.training import Stream, Videos

DATASET = "made up for a test"
SMALL = {
    "aggregators": {
        "linear-avg": {"width": 5},
        "bigru-pool": {"hidden": 3, "layers": 2},
        "bigru": {"hidden": 3, "layers": 2},
        "spatial": {"hidden": 3, "layers": 2},
        "transformer": {"width": 8, "layers": 1, "heads": 2, "feedforward": 8},
    },
    "heads": {"mlp": {"hidden": [6, 4]}},
}


def spec(dim: int, **changes) -> CacheSpec:
    values = {
        "encoder": "made-up",
        "weights": "random",
        "weights_sha256": "0" * 64,
        "trained_on": "nothing",
        "activation": "none",
        "dim": dim,
        "image_size": 32,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "precision": "float32",
        "batch_size": 4,
        "normalisation": "none",
    }
    return CacheSpec(**(values | changes))


def encoded(name: str, frames: int, dim: int, **changes) -> EncodedVideo:
    """A video of random unit vectors, which are drawn from its name."""
    vectors = np.random.default_rng(sum(name.encode())).standard_normal((frames, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return EncodedVideo(name, vectors.astype(np.float16), np.arange(frames) / 25, **changes)


def table(
    videos: list[np.ndarray], covers: list[list[int]] | None = None, **changes
) -> FeatureTable:
    """Put videos, each (time, dim), into one table; they are called v0, v1 and so on.

    `covers` tells for each frame of each video how many it stands for; without it, itself alone.
    """
    offsets = np.cumsum([0, *map(len, videos)], dtype=np.int64)
    values = np.concatenate(videos).astype(np.float16)
    ids = tuple(f"v{i}" for i in range(len(videos)))
    return FeatureTable(
        values,
        np.zeros(len(values)),
        np.ones(len(values), np.int32)
        if covers is None
        else np.concatenate(covers, dtype=np.int32),
        offsets,
        ids,
        spec(values.shape[1] // spec(1, **changes).num_tokens, **changes),
        np.zeros((len(videos), 2), np.int32),
    )


def videos(*tables: FeatureTable) -> Videos:
    """All videos of tables side by side, as batches are made of them."""
    return Videos(
        tuple(Stream.of_table(made.values, made.offsets, made.covers, CPU) for made in tables)
    )


def records(scores, splits) -> list[VideoRecord]:
    return [
        VideoRecord(
            video_id=f"v{i}", path=Path(f"v{i}.mp4"), score=score, split=split, dataset=DATASET
        )
        for i, (score, split) in enumerate(zip(scores, splits, strict=True))
    ]


def splits(train: int, dev: int, test: int) -> list[str]:
    return ["train"] * train + ["dev"] * dev + ["test"] * test


def marked_moments(time: int, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """A video whose score depends on its marked frames alone, wherever they fall.

    Column 0 marks a frame, column 1 is what counts if it is marked, the rest is noise.
    """
    frames = generator.normal(0, 0.3, (time, 6))
    marked = np.zeros(time, bool)
    marked[generator.permutation(time)[: max(1, time // 3)]] = True
    frames[:, 0] = np.where(marked, 1.0, -1.0)
    frames[:, 1] = generator.uniform(-1, 1, time)
    return frames, float(0.5 + 0.4 * frames[marked, 1].mean())


Rule = Callable[[int, np.random.Generator], tuple[np.ndarray, float]]


def dataset(
    train: int = 13, dev: int = 6, test: int = 5, *, rule: Rule = marked_moments, seed: int = 0
) -> tuple[FeatureTable, list[VideoRecord]]:
    """Draw videos of 3 to 9 frames by a rule."""
    generator = np.random.default_rng(seed)
    made = [rule(int(generator.integers(3, 10)), generator) for _ in range(train + dev + test)]
    videos, scores = zip(*made, strict=True)
    return table(list(videos)), records(scores, splits(train, dev, test))


def held_out_srocc(predictions: Predictions) -> float:
    test = np.array(predictions.split) == "test"
    return spearmanr(predictions.score[test], predictions.prediction[test]).statistic


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but `provenance.json`, which tells of the time taken."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


def config(run: Path, **changes) -> TrainConfig:
    """Settings for tiny models on one CPU thread."""
    values = SMALL | {
        "manifest": "manifest.csv",
        "cache": "cache",
        "run": run,
        "max_epochs": 3,
        "learning_rate": 3e-3,
        "bootstrap": 20,
        "device": "cpu",
    }
    return TrainConfig(**(values | changes))
