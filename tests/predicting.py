"""A small study for the tests of prediction: clips, their cache, and runs trained on it."""

import csv
from pathlib import Path

import numpy as np

import memfeat
from memfeat.video import write_video

SPLITS = ["train"] * 8 + ["dev"] * 18 + ["test"] * 2
ENCODER = {
    "encoder": "efficientnet-lite0",
    "weights": "random",
    "batch_size": 8,
    "device": "cpu",
}
QUICK = {"max_epochs": 2, "bootstrap": 0, "device": "cpu", "learning_rate": 0.01}


def frames(seed, length=4):
    """A scene, (length, 48, 64, 3) uint8, that gets brighter or darker."""
    generator = np.random.default_rng(seed)
    scene = generator.integers(60, 180, (1, 6, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    light = generator.integers(-40, 40) * np.linspace(0, 1, length)[:, None, None, None]
    return (scene + light).astype(np.uint8)


def study(folder: Path) -> Path:
    """Make the clips, the cache, a run of two seeds with attention, and one that averages."""
    rows = []
    for index, split in enumerate(SPLITS):
        write_video(folder / f"v{index}.mp4", frames(index, 2 + index % 3), fps=10)
        score = round(0.3 + 0.015 * index, 3)
        rows.append([f"v{index}", f"v{index}.mp4", score, split, "made up"])
    with (folder / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "path", "score", "split", "dataset"])
        writer.writerows(rows)
    data = {"manifest": folder / "m.csv", "cache": folder / "cache"}
    memfeat.extract(**data, **ENCODER)
    small = {"aggregators": {"bigru": {"hidden": 3}}}
    two = {"aggregator": "bigru", "seeds": (0, 1)}
    memfeat.train(**data, **QUICK, **small, **two, run=folder / "run")
    memfeat.train(**data, **QUICK, aggregator="avg", head="linear", run=folder / "avg")
    return folder
