"""Grids on made-up features: what is planned, what is compared, what survives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import records, spec

from memfeat.ablation import plan_cells, run_ablation
from memfeat.cache import EncodedVideo, write_shard
from memfeat.config import AblationConfig
from memfeat.errors import ConfigError, UnknownNameError
from memfeat.manifest import write_manifest
from memfeat.metrics import evaluate, paired_difference
from memfeat.runs import read_predictions

DIM = 6
SPLITS = ["train"] * 12 + ["dev"] * 6 + ["test"] * 8


def video(index: int) -> EncodedVideo:
    frames = np.random.default_rng(index).standard_normal((4, DIM)).astype(np.float16)
    return EncodedVideo(f"v{index}", frames, np.arange(4.0))


@pytest.fixture
def home(tmp_path) -> Path:
    scores = np.random.default_rng(1).random(len(SPLITS)).round(3).tolist()
    write_manifest(tmp_path / "m.csv", records(scores, SPLITS))
    write_shard(tmp_path / "a", spec(DIM), [video(i) for i in range(len(SPLITS))])
    return tmp_path


def grid(home: Path, **changes) -> AblationConfig:
    values = {
        "title": "Made up",
        "run": home / "grid",
        "split": "test",
        "seeds": (0, 1),
        "cache_root": home,
        "caches": ("a",),
        "aggregators": ("avg", "linear-avg"),
        "heads": ("linear",),
        "workers": 1,
    }
    return AblationConfig(**(values | changes))


def recipe(home: Path, **changes) -> dict:
    return {"manifest": home / "m.csv", "max_epochs": 1, "bootstrap": 60, "device": "cpu"} | changes


def run(home: Path, **changes) -> dict:
    config = grid(home, **changes)
    return run_ablation(config, plan_cells(config, recipe(home)))


def test_every_figure_is_computed_from_the_runs_predictions(home):
    table = run(home, baselines=("ridge",), controls=("avg+linear",))
    written = (home / "grid" / "ablation.json").read_text()
    assert json.loads(json.dumps(table)) == json.loads(written)
    found = {}
    for row in table["rows"]:
        folder = home / "grid" / row["run"]
        folders = [folder / f"seed-{s}" for s in row["seeds"]] or [folder]
        columns = [read_predictions(each / "predictions.csv") for each in folders]
        test = np.array(columns[0].split) == "test"
        found[row["name"]] = columns[0].score[test], np.stack([c.prediction[test] for c in columns])
        metrics = evaluate(*found[row["name"]], bootstrap=60)
        for name in ("plcc", "srocc", "mse", "srocc_std", "srocc_interval"):
            assert row[name] == pytest.approx(getattr(metrics, name))
    rivals = [row for row in table["rows"] if row["kind"] != "control"]
    assert table["best"] == max(rivals, key=lambda row: row["srocc"])["name"]
    truth, best = found[table["best"]]
    for row in table["rows"]:
        if row["name"] != table["best"]:
            difference = paired_difference(truth, found[row["name"]][1], best, bootstrap=60)
            assert row["vs_best"]["srocc"] == pytest.approx(difference.value)
            assert row["vs_best"]["interval"] == pytest.approx(difference.interval)


def test_rows_of_different_caches_are_compared_on_the_videos_that_all_have(home):
    without = [video(i) for i in range(len(SPLITS)) if i != 20]
    write_shard(home / "b", spec(DIM), without)
    missing = EncodedVideo("v20", np.empty((0, DIM), np.float16), np.empty(0), "failed", "missing")
    write_shard(home / "b", spec(DIM), [missing])
    table = run(home, caches=("a", "b"), aggregators=("avg",))
    assert table["n"] == SPLITS.count("test") - 1
    assert any("1 videos are not in every row's cache" in note for note in table["notes"])
    assert len(table["rows"]) == 2
    assert table["failed"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ["bigru+mpl"]}, "unknown control 'bigru\\+mpl'.*avg\\+linear"),
        ({"caches": []}, "names no rows; give rows, or caches, aggregators and heads"),
        (
            {"rows": [{"cache": "a", "aggregator": "avg", "head": "linear"}]},
            "2 rows are called 'avg\\+linear'; give each a `name`",
        ),
        (
            {"rows": [{"cache": "a", "aggregator": "avg", "head": "mlp", "train": {"run": "x"}}]},
            "row 'avg\\+mlp': its train may not set run",
        ),
        (
            {
                "rows": [
                    {
                        "cache": "a",
                        "aggregator": "bigru",
                        "head": "mlp",
                        "train": {"aggregators": {"bigru": {"hiden": 3}}},
                    }
                ]
            },
            "'hiden'.*Did you mean 'hidden'",
        ),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused_before_training(home, changes, message):
    config = grid(home, **changes)
    with pytest.raises(ConfigError, match=message):
        plan_cells(config, recipe(home))


def test_an_unknown_aggregator_head_or_baseline_is_refused_with_the_choices(home):
    for changes in ({"aggregators": ["nope"]}, {"heads": ["nope"]}, {"baselines": ["nope"]}):
        with pytest.raises(UnknownNameError, match=r"'nope'.*Choose one of"):
            plan_cells(grid(home, **changes), recipe(home))


def test_a_failing_cell_is_listed_and_the_others_are_done(home):
    config = grid(home)
    cells = plan_cells(config, recipe(home))
    (cells[0].config.run).parent.mkdir(parents=True)
    cells[0].config.run.write_text("a file where a folder should be")
    table = run_ablation(config, cells)
    assert [row["name"] for row in table["rows"]] == ["linear-avg+linear"]
    assert [failed["name"] for failed in table["failed"]] == ["avg+linear"]


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_ablation import grid, plan_cells, recipe, run_ablation
if __name__ == "__main__":
    home = Path(sys.argv[1])
    config = grid(home, aggregators=("bigru",), heads=("linear", "mlp"), workers=2)
    run_ablation(config, plan_cells(config, recipe(home, max_epochs=int(sys.argv[2]))))
"""


def workers_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [p for p in map(int, listed) if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


def start(home: Path, epochs: int) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, home, str(epochs)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list((home / "grid").rglob("config.json"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    return process


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids if exists(pid))


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(home, number):
    process = start(home, 100_000)
    workers = workers_of(process.pid)
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while not gone(workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2
    assert gone(workers)


def test_a_killed_worker_costs_no_cell(home):
    process = start(home, 40)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 0
    table = json.loads((home / "grid" / "ablation.json").read_text())
    assert sorted(row["name"] for row in table["rows"]) == ["bigru+linear", "bigru+mlp"]
    assert table["failed"] == []
    assert "Error" not in stderr
