"""Times stage 2 beside the naive way of doing the same: in turn, in one run, in one thread each.

Features and scores are made up: random unit vectors of the paper's shape. Nothing but the time
they take means anything.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import h5py
import torch
from features import DIM, EPOCH_FRAMES, records, write_cache
from measuring import Timings, in_turn, machine, peak_memory, timed
from naive import (
    BATCH_SIZE,
    NaiveModel,
    NaiveVideos,
    collate,
    flops_per_frame,
    naive_epoch,
    naive_scores,
)
from numpy.typing import NDArray
from rich.progress import track

from memfeat.ablation import plan_cells, run_ablation
from memfeat.cache import Cache, FeatureTable
from memfeat.config import AblationConfig, AblationRow, TrainConfig
from memfeat.devices import CPU
from memfeat.manifest import write_manifest
from memfeat.models import build_regressor
from memfeat.models.gru import Backend, using_backend
from memfeat.models.native import kernel
from memfeat.training import Examples, fit, resolve_options

CACHED_VIDEOS = 1_920  # about 315 MB
GRID_VIDEOS = 960
BIG_VIDEOS = 7_900  # about 1.3 GB: Memento10k's training and dev splits
MATRIX = 2_048
KINDS = list(product(("bigru", "bigru-pool"), ("mlp", "linear")))
RATES = 5e-5, 1e-4, 2e-4  # with the kinds, twelve cells


def require_same_model(videos: NaiveVideos) -> None:
    """Raise AssertionError unless both sides give the same scores under the same weights."""
    frames, lengths, _ = collate([videos[i] for i in range(BATCH_SIZE)])
    for kind in KINDS:
        ours, naive = build_regressor(DIM, *kind).eval(), NaiveModel(*kind).eval()
        weights = ours.state_dict().values()
        naive.load_state_dict(dict(zip(naive.state_dict(), weights, strict=True)))
        with torch.inference_mode():
            torch.testing.assert_close(ours((frames, lengths)).scores, naive(frames, lengths))


def ours(examples: Examples, backend: Backend) -> None:
    """Train the paper's system for one epoch."""
    folder = Path("unused")
    config = TrainConfig(manifest=folder, cache=folder, max_epochs=1, threads=1)
    with using_backend(backend):
        fit(examples, resolve_options(config), device=CPU)


def naive_copy(table: FeatureTable, videos: int, path: Path) -> dict[str, float]:
    """Write videos the naive way, one dataset each; return their scores."""
    with h5py.File(path, "w") as file:
        for i, name in enumerate(table.video_ids[:videos]):
            file[name] = table.frames(i)
    return {r.video_id: r.score or 0.0 for r in records(table.video_ids[:videos], videos - 1)}


def time_training(table: FeatureTable, folder: Path, rounds: int, timings: Timings) -> float:
    """Time epochs over all videos of `table` but the last; return the FLOPs of a whole epoch.

    Ours is the real thing for one epoch, so it also builds its model, and scores a dev split:
    that last video.
    """
    count = len(table) - 1
    examples = Examples.join(table, records(table.video_ids, count))
    path = folder / "naive.h5"
    scores = naive_copy(table, count, path)
    whole = EPOCH_FRAMES / int(table.offsets[-2])
    square = torch.randn(MATRIX, MATRIX)
    with h5py.File(path) as file:
        videos = NaiveVideos(file, scores)
        require_same_model(videos)
        flops = flops_per_frame(videos) * EPOCH_FRAMES
        backends: tuple[Backend, ...] = ("plain", "native") if kernel() else ("plain",)
        sides: dict[str, Callable[[], object]] = {"naive": partial(naive_epoch, videos)}
        for backend in backends:
            sides[backend] = partial(ours, examples, backend)
        for number in track(range(rounds), "training", transient=True):
            torch.manual_seed(number)
            seconds = in_turn(number, sides)
            rate = 2 * MATRIX**3 / min(timed(lambda: square @ square) for _ in range(3))
            timings.add(naive_seconds=seconds["naive"] * whole, matrix_gflops=rate / 1e9)
            for name in backends:
                own = seconds[name]
                timings.add(
                    **{
                        f"{name}_seconds": own * whole,
                        f"{name}_ratio": seconds["naive"] / own,
                        f"{name}_gflops": flops / (own * whole) / 1e9,
                        f"{name}_over_matrix": flops / (own * whole) / rate,
                    }
                )
    return flops


def time_reading(cache: Cache, rounds: int, timings: Timings) -> int:
    """Time reading the whole cache, again and again; return its bytes."""
    table = cache.load()
    arrays: list[NDArray[Any]] = [table.values, table.pts_seconds]
    size = sum(array.nbytes for array in arrays)
    sides: dict[str, Callable[[], object]] = {
        "copy": lambda: [array.copy() for array in arrays],
        "load": cache.load,
    }
    in_turn(0, sides)  # a virtual machine's memory is slow when first used
    for number in track(range(rounds), "reading", transient=True):
        seconds = in_turn(number, sides)
        timings.add(
            open_seconds=timed(lambda: Cache.open(cache.folder)),
            load_gb_per_second=size / seconds["load"] / 1e9,
            copy_gb_per_second=size / seconds["copy"] / 1e9,
            read_over_copy=seconds["copy"] / seconds["load"],
        )
    return size


def grid(home: Path, cache: Cache, epochs: int) -> Callable[[], dict[str, Any]]:
    """Return what runs the twelve-cell grid afresh, as `memfeat ablation` does, and its table."""
    ids = cache.usable()[:GRID_VIDEOS]
    write_manifest(home / "made-up.csv", records(ids, len(ids) - 2))
    rows = [
        AblationRow(
            name=f"{aggregator}+{head} {rate}",
            cache=cache.folder,
            aggregator=aggregator,
            head=head,
            train={"learning_rate": rate},
        )
        for (aggregator, head), rate in product(KINDS, RATES)
    ]
    config = AblationConfig(
        title="Benchmark", run=home / "grid", cache_root=home, rows=tuple(rows), seeds=(0,)
    )
    recipe = {
        "manifest": home / "made-up.csv",
        "max_epochs": epochs,
        "patience_epochs": epochs,  # so that none stops early
        "device": "cpu",
        "bootstrap": 0,
    }

    def run() -> dict[str, Any]:
        shutil.rmtree(config.run, ignore_errors=True)
        result = run_ablation(config, plan_cells(config, recipe))
        if result["failed"]:
            raise RuntimeError(f"the grid failed: {result['failed']}")
        return result

    return run


def time_grid(cache: Cache, home: Path, epochs: int, rounds: int, timings: Timings) -> None:
    """Time the whole grid, and the naive way of its kinds on some of its videos.

    Both train each cell for so many epochs and score all videos at the end. The naive seconds are
    extrapolated to the grid's frames, epochs and cells, one after another; starting,
    reading and writing are left out of them, but not of ours.
    """
    count, few = GRID_VIDEOS - 2, 64
    run = grid(home, cache, epochs)
    table = cache.load(cache.usable()[:count])
    path = home / "naive-grid.h5"
    scores = naive_copy(table, few, path)
    whole = len(RATES) * int(table.offsets[-1]) / int(table.offsets[few])
    del table
    with h5py.File(path) as file:
        videos = NaiveVideos(file, scores)

        def train() -> None:
            for kind in KINDS:
                naive_epoch(videos, *kind)

        def score() -> None:
            for kind in KINDS:
                naive_scores(videos, *kind)

        sides: dict[str, Callable[[], object]] = {"train": train, "score": score, "grid": run}
        for number in track(range(rounds), "grid", transient=True):
            seconds = in_turn(number, sides)
            naive = (epochs * seconds["train"] + seconds["score"]) * whole
            timings.add(
                naive_grid_seconds=naive,
                grid_seconds=seconds["grid"],
                grid_ratio=naive / seconds["grid"],
            )


def measure_memory(home: Path, timings: Timings) -> int:
    """Measure the peak of `memfeat ablation` over a table of 1.3 GB; return the table's bytes."""
    cache = write_cache(home / "big", BIG_VIDEOS)
    write_manifest(home / "big.csv", records(cache.usable(), 256))
    pipeline = home / "big.toml"
    pipeline.write_text(
        f"[train]\nmanifest = '{home / 'big.csv'}'\nmax_epochs = 1\ndevice = 'cpu'\n"
        f"[ablation]\ntitle = 'Benchmark'\nrun = '{home / 'big-grid'}'\ncaches = ['big']\n"
        f"cache_root = '{home}'\naggregators = ['bigru', 'linear-avg']\nheads = ['mlp']\n"
        "seeds = '0-1'\n"
    )
    command = [sys.executable, "-m", "memfeat", "ablation", str(pipeline)]
    timings.add(grid_peak_gb=peak_memory(command) / 1e9)
    return sum(entry.num_frames for entry in cache.entries.values()) * (2 * DIM + 8)


ROWS = {
    "naive_seconds": ("naive: s an epoch", 1),
    "plain_seconds": ("plain torch: s an epoch", 1),
    "native_seconds": ("C++ loops: s an epoch", 1),
    "plain_ratio": ("naive / plain torch", 2),
    "native_ratio": ("naive / C++ loops", 2),
    "matrix_gflops": ("this core's matrix rate: GFLOP/s", 1),
    "plain_over_matrix": ("plain torch / matrix rate", 3),
    "native_over_matrix": ("C++ loops / matrix rate", 3),
    "naive_grid_seconds": ("12 cells one after another, naive: s", 1),
    "grid_seconds": ("12 cells, ours: s", 1),
    "grid_ratio": ("naive / ours, 12 cells", 2),
    "grid_peak_gb": ("a grid over a 1.3 GB table: peak GB", 2),
    "open_seconds": ("Cache.open: s", 3),
    "load_gb_per_second": ("Cache.load: GB/s", 2),
    "copy_gb_per_second": ("numpy copy: GB/s", 2),
    "read_over_copy": ("load / copy", 2),
}


@click.command()
@click.option("--videos", default=256, show_default=True, help="Videos trained on in a round.",
              type=click.IntRange(BATCH_SIZE, CACHED_VIDEOS - 1))  # fmt: skip
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--grid-rounds", default=2, show_default=True, type=click.IntRange(0))
@click.option("--grid-epochs", default=10, show_default=True, type=click.IntRange(1))
@click.option("--memory/--no-memory", default=True, help="Whether to measure a big grid's peak.")
@click.option("--output", default=Path("runs/bench-train.json"), show_default=True,
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
def main(
    videos: int, rounds: int, grid_rounds: int, grid_epochs: int, memory: bool, output: Path
) -> None:
    """Time stage 2 beside the naive way, on made-up features, one thread a process."""
    torch.set_num_threads(1)
    timings, facts = Timings(), machine()
    with tempfile.TemporaryDirectory(prefix="bench-train-") as name:
        home = Path(name)
        cache = write_cache(home / "cache", CACHED_VIDEOS)
        table = cache.load(cache.usable()[: videos + 1])
        flops = time_training(table, home, rounds, timings)
        size = time_reading(cache, rounds, timings)
        time_grid(cache, home, grid_epochs, grid_rounds, timings)
        big = measure_memory(home, timings) if memory else None
    what = (
        f"{flops / 1e12:.2f} TFLOP an epoch of 7,000 videos, from {videos}; "
        f"cache of {size / 1e6:.0f} MB in {len(cache.shards)} shards; grid of {GRID_VIDEOS} "
        f"videos, {grid_epochs} epochs, {facts['cores']} processes"
    )
    timings.report(
        output,
        ROWS,
        f"Stage 2, one thread a process, {rounds} rounds, made-up features",
        what,
        facts,
        features="made up: random unit vectors",
        epoch_flops=flops,
        epoch_videos=7_000,
        timed_videos=videos,
        cache_bytes=size,
        big_table_bytes=big,
    )


if __name__ == "__main__":
    main()
