"""Times stage 2 beside the naive way of doing the same: in turn, in one run, in one thread each.

Features and scores are made up: random unit vectors of the paper's shape. Nothing but the time
they take means anything.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import h5py
import numpy as np
import torch
from naive import (
    BATCH_SIZE,
    DIM,
    NaiveModel,
    NaiveVideos,
    collate,
    flops_per_frame,
    naive_epoch,
)
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from memfeat.cache import Cache, CacheSpec, EncodedVideo, FeatureTable, write_shard
from memfeat.config import ExtractConfig, TrainConfig
from memfeat.files import write_json
from memfeat.manifest import VideoRecord
from memfeat.models import build_regressor
from memfeat.training import Examples
from memfeat.training.fitting import fit

FRAMES = 60, 100  # of a video: the fewest, the most
EPOCH_FRAMES = 7_000 * sum(FRAMES) // 2  # Memento10k's training split, of such videos
CACHED_VIDEOS = 1_920  # about 315 MB
MATRIX = 2_048


@dataclass
class Timings:
    """Each figure's values, one a round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return median(self.rounds[name])

    def spread(self, name: str) -> dict[str, float]:
        values = self.rounds[name]
        return {"min": min(values), "median": median(values), "max": max(values)}


def require_same_model(videos: NaiveVideos) -> None:
    """Raise AssertionError unless both sides give the same scores under the same weights."""
    frames, lengths, _ = collate([videos[i] for i in range(BATCH_SIZE)])
    ours, naive = build_regressor(DIM, "bigru", "mlp").eval(), NaiveModel().eval()
    weights = ours.state_dict().values()
    naive.load_state_dict(dict(zip(naive.state_dict(), weights, strict=True)))
    with torch.inference_mode():
        torch.testing.assert_close(ours(frames, lengths).scores, naive(frames, lengths))


def made_up_videos(count: int) -> Iterator[EncodedVideo]:
    source = np.random.default_rng(0)
    for i in range(count):
        frames = source.standard_normal((source.integers(*FRAMES, endpoint=True), DIM), np.float32)
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        yield EncodedVideo(f"v{i:04}", frames.astype(np.float16), np.arange(len(frames)) / 30)


def write_cache(folder: Path) -> Cache:
    spec = CacheSpec(
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
    videos = made_up_videos(CACHED_VIDEOS)
    size = ExtractConfig.model_fields["videos_per_shard"].default
    for _ in range(0, CACHED_VIDEOS, size):
        write_shard(folder, spec, list(islice(videos, size)))
    return Cache.open(folder)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds `work` takes; its result is freed once they are taken."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    del result
    return seconds


def in_turn(number: int, first: Callable[[], object], second: Callable[[], object]) -> list[float]:
    """Time both, the other one first every second round."""
    if number % 2:
        return [timed(second), timed(first)][::-1]
    return [timed(first), timed(second)]


def time_training(table: FeatureTable, folder: Path, rounds: int, timings: Timings) -> float:
    """Time epochs over all videos of `table` but the last; return the FLOPs of a whole epoch.

    Ours is `fit` itself for one epoch, so it also scores a dev split: that last video.
    """
    ids = table.video_ids
    scores = dict(zip(ids, np.random.default_rng(0).random(len(ids)).tolist(), strict=True))
    records = [
        VideoRecord(video_id=name, path=folder, score=score, split="train")
        for name, score in scores.items()
    ]
    records[-1] = records[-1].model_copy(update={"split": "dev"})
    examples = Examples.join(table, records)
    config = TrainConfig(manifest=folder, cache=folder, max_epochs=1, device="cpu", threads=1)
    path = folder / "one-dataset-per-video.h5"
    with h5py.File(path, "w") as file:
        for i, name in enumerate(ids[:-1]):
            file[name] = table.frames(i)
    with h5py.File(path) as file:
        videos = NaiveVideos(file, dict(list(scores.items())[:-1]))
        require_same_model(videos)
        per_frame = flops_per_frame(videos)
        flops = per_frame * EPOCH_FRAMES
        whole = EPOCH_FRAMES / int(table.offsets[-2])
        square = torch.randn(MATRIX, MATRIX)
        for number in track(range(rounds), "training", transient=True):
            torch.manual_seed(number)
            naive, ours = in_turn(
                number, lambda: naive_epoch(videos), lambda: fit(examples, config, seed=0)
            )
            rate = 2 * MATRIX**3 / min(timed(lambda: square @ square) for _ in range(3))
            timings.add(
                naive_seconds=naive * whole,
                ours_seconds=ours * whole,
                plain_ratio=naive / ours,
                matrix_gflops=rate / 1e9,
                ours_gflops=flops / (ours * whole) / 1e9,
                ours_over_matrix=flops / (ours * whole) / rate,
            )
    return flops


def time_reading(cache: Cache, rounds: int, timings: Timings) -> int:
    """Time reading the whole cache, again and again; return its bytes."""
    table = cache.load()
    arrays: list[NDArray[Any]] = [table.values, table.pts_seconds]
    size = sum(array.nbytes for array in arrays)

    def copy_arrays() -> list[NDArray[Any]]:
        return [array.copy() for array in arrays]

    in_turn(0, copy_arrays, cache.load)  # a virtual machine's memory is slow when first used
    for number in track(range(rounds), "reading", transient=True):
        copy, load = in_turn(number, copy_arrays, cache.load)
        timings.add(
            open_seconds=timed(lambda: Cache.open(cache.folder)),
            load_gb_per_second=size / load / 1e9,
            copy_gb_per_second=size / copy / 1e9,
            read_over_copy=copy / load,
        )
    return size


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


ROWS = {
    "naive_seconds": ("naive: s an epoch", 1),
    "ours_seconds": ("ours: s an epoch", 1),
    "plain_ratio": ("naive / ours", 2),
    "ours_gflops": ("ours: GFLOP/s", 1),
    "matrix_gflops": ("this core's matrix rate: GFLOP/s", 1),
    "ours_over_matrix": ("ours / matrix rate", 3),
    "open_seconds": ("Cache.open: s", 3),
    "load_gb_per_second": ("Cache.load: GB/s", 2),
    "copy_gb_per_second": ("numpy copy: GB/s", 2),
    "read_over_copy": ("load / copy", 2),
}
RATIOS = "plain_ratio", "ours_over_matrix", "read_over_copy"


def show(timings: Timings, title: str, caption: str) -> None:
    table = Table(title=title, caption=caption)
    table.add_column("figure")
    for column in ("min", "median", "max"):
        table.add_column(column, justify="right")
    for name, (label, digits) in ROWS.items():
        values = [f"{value:,.{digits}f}" for value in timings.spread(name).values()]
        table.add_row(label, *values, style="bold" if name in RATIOS else None)
    Console(width=100).print(table)


@click.command()
@click.option("--videos", default=96, show_default=True, help="Videos trained on in a round.",
              type=click.IntRange(BATCH_SIZE, CACHED_VIDEOS - 1))  # fmt: skip
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1))
@click.option("--output", default=Path("runs/bench-train.json"), show_default=True,
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
def main(videos: int, rounds: int, output: Path) -> None:
    """Time stage 2 beside the naive way, on made-up features, in one thread."""
    torch.set_num_threads(1)
    timings, facts = Timings(), machine()
    with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
        cache = write_cache(Path(name))
        table = cache.load(cache.usable()[: videos + 1])
        flops = time_training(table, Path(name), rounds, timings)
        size = time_reading(cache, rounds, timings)
    what = (
        f"{flops / 1e12:.2f} TFLOP an epoch of 7,000 videos, from {videos}; "
        f"cache of {size / 1e6:.0f} MB in {len(cache.shards)} shards"
    )
    show(
        timings,
        f"Stage 2 in one thread, {rounds} rounds, made-up features",
        f"{what}\n{facts['cpu']}, {facts['cores']} cores, load {facts['load']} at the start; "
        f"torch {facts['torch']}, {facts['date']}",
    )
    result = {name: timings.median(name) for name in ROWS} | {
        "features": "made up: random unit vectors",
        "epoch_flops": flops,
        "epoch_videos": 7_000,
        "timed_videos": videos,
        "cache_bytes": size,
        "machine": facts,
        "spread": {name: timings.spread(name) for name in ROWS},
        "rounds": timings.rounds,
    }
    write_json(output, result)
    click.echo(f"Wrote {output}")


if __name__ == "__main__":
    main()
