"""`--dry-run`: what is told is what is then done, and nothing is written."""

import shutil
from pathlib import Path

import pytest
from commands import ok, run, told

ENCODER = ["--encoder", "efficientnet-lite0", "--weights", "random", "--batch-size", "8"]
QUICK = ["--max-epochs", "1", "--bootstrap", "0", "--device", "cpu"]
GRID = """
[ablation]
title = "G"
run = "{0}/grid"
cache_root = "{0}"
seeds = "0-1"
caches = ["cache"]
aggregators = ["avg"]
heads = ["linear"]
baselines = ["ridge"]
scorers = ["vitmem"]
rows = [{{ cache = "efficientnet-lite0", aggregator = "avg", head = "linear" }}]
[ablation.recipes.cache]
encoder = "efficientnet-lite0"
[extract]
weights = "random"
batch_size = 8
"""


@pytest.fixture
def home(studied, tmp_path) -> Path:
    """A copy of the study."""
    return Path(shutil.copytree(studied, tmp_path / "home"))


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def planned(home: Path, *command: object) -> dict:
    """What a dry run tells as JSON, and that it leaves everything as it was."""
    before = files(home)
    plan = told(*command, "--dry-run")
    assert files(home) == before
    return plan


def data(home: Path) -> list[object]:
    return ["--manifest", home / "m.csv", "--cache", home / "cache"]


def test_extract_tells_which_videos_are_to_be_done_and_where_the_weights_are(home, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with (home / "m.csv").open("a") as file:
        file.write("new,new.mp4,0.5,test,made up\ngone,gone.mp4,0.5,test,made up\n")
    shutil.copy(home / "v0.mp4", home / "new.mp4")
    command = ["extract", *data(home), *ENCODER]
    plan = planned(home, *command)
    assert (plan["videos"], plan["already_done"], plan["shards"]) == (30, 28, 1)
    assert (plan["pending"], plan["no_file"]) == (["new", "gone"], ["gone"])
    assert plan["weights"] == "random"
    done = told(*command, code=3)
    assert (done["ok"], done["failures"]) == (1, {"gone": "missing"})
    assert planned(home, *command)["pending"] == []
    assert planned(home, *command, "--retry-failed")["pending"] == ["gone"]
    other = planned(home, "extract", *data(home), "--encoder", "ViT-L-14-336", "--limit", "3")
    assert other["weights"] == "openai, which is not on this machine and is fetched first"
    assert "the cache was made with --encoder efficientnet-lite0" in other["refused"]
    clips = planned(home, "extract", *data(home)[:3], home / "clips", "--encoder", "i3d")
    assert clips["weights"] == "none by a name: give --weights FILE, or random"
    elsewhere = ["--cache", home / "none", "--weights", "no.pt"]
    shown = ok("extract", "--manifest", home / "m.csv", *elsewhere, "--dry-run").stdout
    assert "there is no file no.pt" in shown
    assert "pending                30 videos: v0, v1, v2 and 27 more\n" in shown
    assert not (home / "none").exists()


def test_train_tells_which_seeds_are_left(home):
    command = ["train", *data(home), *QUICK, "--run", home / "new", "--aggregator", "avg"]
    plan = planned(home, *command, "--seeds", "0-1")
    assert (plan["models_finished"], plan["models_to_train"]) == (0, 2)
    assert (plan["train_videos"], plan["dev_videos"], plan["test_videos"]) == (8, 18, 2)
    ok(*command, "--seeds", "0-1")
    plan = planned(home, *command, "--seeds", "0-1")
    assert (plan["models_finished"], plan["models_to_train"]) == (2, 0)
    other = run(*command, "--seeds", "0-1", "--head", "linear", "--dry-run")
    assert other.exit_code == 1
    assert "already holds another run" in other.stderr


def test_ablation_tells_what_each_row_lacks(home):
    grid = home / "grid.toml"
    grid.write_text(GRID.format(home))
    command = ["ablation", grid, "--manifest", home / "m.csv", *QUICK]
    plan = planned(home, *command, "--extract")
    assert {r["name"]: r["models_to_train"] for r in plan["rows"]} == {
        "efficientnet-lite0 avg+linear": 2,
        "cache avg+linear": 2,
        "efficientnet-lite0 avg+ridge": 1,
        "cache avg+ridge": 1,
    }
    lacking = {r["name"]: r["missing_caches"] for r in plan["rows"]}
    assert lacking["cache avg+linear"] == []
    assert lacking["efficientnet-lite0 avg+linear"] == [str(home / "efficientnet-lite0")]
    (made,) = [each for each in plan["extract"] if each["cache"].endswith("lite0")]
    assert len(made["pending"]) == 28
    assert f"memfeat predict vitmem {home}/m.csv -o " in plan["missing_scores"]["vitmem"]
    assert not (home / "grid").exists()
    shown = ok(*command, "--dry-run").stdout
    assert "cache avg+linear       2 models to train, 0 finished\n" in shown
    assert f"there is no {home}/efficientnet-lite0" in shown


def test_predict_tells_what_is_left_of_a_table(home):
    clips, table = [home / "v0.mp4", home / "v1.mp4"], home / "scores.csv"
    command = ["predict", home / "avg", *clips, home / "gone.mp4", "-o", table]
    plan = planned(home, *command)
    assert (plan["videos"], plan["already_done"]) == (3, 0)
    assert plan["no_file"] == [str(home / "gone.mp4")]
    assert plan["weights"] == "efficientnet-lite0: random"
    assert not table.exists()
    told(*command, code=3)
    assert planned(home, *command)["pending"] == []
    assert planned(home, *command, "--retry-failed")["pending"] == [str(home / "gone.mp4")]
    assert "already_done           3\n" in ok(*command, "--dry-run").stdout
