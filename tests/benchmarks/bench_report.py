"""A report of 10,000 videos: its size, how long it takes to write, and to open in Chromium.

Clips, features and scores are made up; the models are trained on them for two epochs.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from memfeat.ablation import plan_cells
from memfeat.ablation.results import table_of
from memfeat.cache import Cache, CacheSpec, EncodedVideo, write_shard
from memfeat.config import AblationConfig
from memfeat.manifest import VideoRecord, read_manifest, write_manifest
from memfeat.prediction.explaining import timelines_of
from memfeat.report import write_report
from memfeat.storage import write_json
from memfeat.training import Examples, train
from memfeat.training.baselines import run_baseline
from memfeat.video import write_video

VIDEOS, TRAINED_ON, DISTINCT = 10_000, 500, 24
DIM, FRAMES, FPS = 16, 40, 20
OUTPUT = Path("runs/bench-report.json")
OPENED = 5  # times
READY = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def make_dataset(home: Path) -> None:
    """Write clips, of which there are `DISTINCT` under many names, a manifest and a cache."""
    generator = np.random.default_rng(0)
    for number in range(DISTINCT):
        tiles = generator.integers(0, 256, (FRAMES, 12, 16, 3), dtype=np.uint8)
        pixels = tiles.repeat(20, axis=1).repeat(20, axis=2)
        write_video(home / f"distinct-{number}.mp4", pixels, fps=FPS)
    records, videos = [], []
    for number in range(VIDEOS + TRAINED_ON):
        video_id, score = f"video_{number:05d}", float(generator.beta(6, 3))
        path = home / f"{video_id}.mp4"
        os.link(home / f"distinct-{number % DISTINCT}.mp4", path)
        frames = generator.normal(0, 1, (FRAMES, DIM)) + np.eye(DIM)[0] * 4 * score
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        videos.append(EncodedVideo(video_id, frames.astype(np.float16), np.arange(FRAMES) / FPS))
        split = "test" if number < VIDEOS else "dev" if number % 5 == 0 else "train"
        records.append(
            VideoRecord(video_id=video_id, path=path, score=score, split=split, dataset="made up")
        )
    write_manifest(home / "made-up.csv", records)
    spec = CacheSpec(
        encoder="made-up",
        weights="random",
        weights_sha256="0" * 64,
        trained_on="nothing",
        activation="none",
        dim=DIM,
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        precision="float32",
        batch_size=4,
    )
    for first in range(0, len(videos), 500):
        write_shard(home / "caches" / "made-up", spec, videos[first : first + 500])


def make_grid(home: Path) -> Path:
    """Train the grid's systems, and write its table."""
    grid = AblationConfig(
        title="10,000 made-up videos",
        run=home / "grid",
        split="test",
        seeds="0-1",
        cache_root=home / "caches",
        caches=("made-up",),
        aggregators=("avg", "linear-avg", "bigru"),
        heads=("linear", "mlp"),
        baselines=("ridge", "svr"),
        controls=("avg+mlp",),
    )
    small = {
        "aggregators": {"bigru": {"hidden": 8, "layers": 2}},
        "heads": {"mlp": {"hidden": [8]}},
    }
    recipe = {"manifest": home / "made-up.csv", "max_epochs": 2, "bootstrap": 100, "device": "cpu"}
    cells = plan_cells(grid, recipe | small)
    features = Cache.open(home / "caches" / "made-up").load()
    records = read_manifest(home / "made-up.csv").records
    for cell in cells:
        if cell.kind == "baseline":
            run_baseline(Examples.join(features, records), cell.config)
        else:
            train(features, records, cell.config)
    write_json(grid.run / "ablation.json", table_of(grid, cells, {}))
    return grid.run


def opened(page: Path) -> dict[str, list[float]]:
    """Measure opening a page, and pointing at a dot: seconds, each time in a new window."""
    found: dict[str, list[float]] = {"open_seconds": [], "point_seconds": []}
    program = shutil.which("chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=arguments)
        for _ in range(OPENED):
            window = browser.new_page(viewport={"width": 1400, "height": 900})
            started = time.perf_counter()
            window.goto(page.absolute().as_uri())
            window.evaluate(READY)
            found["open_seconds"].append(time.perf_counter() - started)
            plot = window.locator("figure.scatter svg").first
            plot.scroll_into_view_if_needed()
            box = plot.bounding_box()
            assert box is not None
            started = time.perf_counter()
            window.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
            window.wait_for_selector(".tip:not([hidden])")
            found["point_seconds"].append(time.perf_counter() - started)
            window.close()
        browser.close()
    return found


def main() -> None:
    """Make the report, measure, and print what came out."""
    OUTPUT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_dataset(home)
        grid = make_grid(home)
        started = time.perf_counter()
        page = write_report(grid, None, None, timelines_of)
        figures = {
            "write_seconds": time.perf_counter() - started,
            "megabytes": page.stat().st_size / 1e6,
        }
        for name, values in opened(page).items():
            figures[f"{name}_median"] = float(np.median(values))
            figures[f"{name}_max"] = max(values)
        shutil.copyfile(page, OUTPUT.with_suffix(".html"))
    write_json(OUTPUT, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
