"""Table 2 on made-up features: what is trained, what is compared, what is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_up import SMALL, records, spec
from scipy import stats

from memfeat.ablation.transfer import plan_transfer, run_transfer
from memfeat.cache import EncodedVideo, write_shard
from memfeat.cli import main
from memfeat.config import TransferConfig
from memfeat.errors import CacheError, ConfigError
from memfeat.manifest import write_manifest
from memfeat.runs import pair_folder, read_predictions

SPLITS = ["train"] * 12 + ["dev"] * 6 + ["test"] * 5
RULES = {"one": (0.3, 0.2), "two": (0.6, 0.35)}  # score = a + b * what the frames tell


def make(home: Path, name: str, *, hide: str = "", **changes) -> None:
    """Write a dataset whose scores follow its own rule, in `name.csv` and the cache `name`."""
    base, gain = RULES[name]
    generator = np.random.default_rng(len(name) + ord(name[0]))
    told = generator.random(len(SPLITS))
    scores = (base + gain * told + generator.normal(0, 0.02, len(told))).clip(0, 1).round(4)
    shown = [None if s == hide else float(v) for v, s in zip(scores, SPLITS, strict=True)]
    made = [
        record.model_copy(
            update={
                "dataset": f"made up by rule {name}, not from people",
                "path": home / record.path,
            }
        )
        for record in records(shown, SPLITS)
    ]
    write_manifest(home / f"{name}.csv", made)
    videos = []
    for index, value in enumerate(told):
        frames = np.column_stack([np.full(4, value), generator.normal(0, 0.3, (4, 5))])
        videos.append(EncodedVideo(f"v{index}", frames.astype(np.float16), np.arange(4.0)))
    write_shard(home / name, spec(6, **changes), videos)


@pytest.fixture
def home(tmp_path) -> Path:
    for name in RULES:
        make(tmp_path, name)
    return tmp_path


def grid(home: Path, **changes) -> TransferConfig:
    values = {
        "title": "Made up",
        "run": home / "table",
        "seeds": (0, 1),
        "datasets": [
            {"name": name, "manifest": home / f"{name}.csv", "cache": home / name} for name in RULES
        ],
        "workers": 1,
    }
    return TransferConfig(**(values | changes))


RECIPE = {
    "aggregator": "linear-avg",
    "head": "linear",
    "max_epochs": 30,
    "patience_epochs": 30,
    "learning_rate": 0.02,
    "bootstrap": 50,
    "device": "cpu",
    **SMALL,
}


def run(home: Path, **changes) -> dict:
    config = grid(home, **changes)
    return run_transfer(config, plan_transfer(config, RECIPE))


def test_every_figure_follows_from_the_predictions_of_each_seed(home):
    table = run(home)
    written = (home / "table" / "transfer.json").read_text()
    assert json.loads(json.dumps(table)) == json.loads(written)
    pairs = [(row["trained_on"], row["evaluated_on"], row["split"]) for row in table["rows"]]
    assert pairs == [(a, b, s) for a in RULES for b in RULES for s in ("dev", "test")]
    for row in table["rows"]:
        if row["trained_on"] != row["evaluated_on"]:
            continue  # within a dataset each seed's own predictions lie in its run folder
        folder = home / "table" / table["runs"][row["trained_on"]]
        seeds = [read_predictions(folder / f"seed-{s}" / "predictions.csv") for s in (0, 1)]
        split = np.array(seeds[0].split)
        here, train = split == row["split"], split == "train"
        truth = seeds[0].score
        biases = [np.mean(s.prediction[here] - truth[here]) for s in seeds]
        lines = [np.polyfit(s.prediction[train], truth[train], 1) for s in seeds]
        left = [
            np.mean((np.polyval(line, s.prediction[here]) - truth[here]) ** 2)
            for line, s in zip(lines, seeds, strict=True)
        ]
        ranks = [stats.spearmanr(s.prediction[here], truth[here]).statistic for s in seeds]
        assert row["bias"] == pytest.approx(np.mean(biases), abs=1e-6)
        assert row["bias_std"] == pytest.approx(np.std(biases, ddof=1), abs=1e-6)
        assert row["srocc"] == pytest.approx(np.mean(ranks), abs=1e-6)
        assert row["recalibrated"]["mse"] == pytest.approx(np.mean(left), rel=1e-3)
        assert row["recalibrated"]["slope"] == pytest.approx(np.mean(lines, 0)[0], rel=1e-3)


def test_a_model_carried_over_keeps_the_order_and_recalibration_takes_the_bias_away(home):
    rows = {
        (row["trained_on"], row["evaluated_on"]): row
        for row in run(home)["rows"]
        if row["split"] == "dev"
    }
    up, down = rows["one", "two"], rows["two", "one"]
    assert up["bias"] < -0.15 < 0.15 < down["bias"]  # the two means lie .375 apart
    for row in (up, down):
        assert row["mse"] > row["bias"] ** 2
        assert row["recalibrated"]["mse"] < row["mse"] / 4
        assert abs(row["recalibrated"]["bias"]) < abs(row["bias"]) / 4
        assert row["mse_interval"][0] <= row["mse"] <= row["mse_interval"][1]


def test_the_mean_prediction_of_a_pair_is_kept_for_its_picture(home):
    table = run(home)
    columns = read_predictions(pair_folder(home / "table", "one", "two") / "predictions.csv")
    (row,) = (
        r
        for r in table["rows"]
        if (r["trained_on"], r["evaluated_on"], r["split"]) == ("one", "two", "dev")
    )
    dev = np.array(columns.split) == "dev"
    assert np.mean(columns.prediction[dev] - columns.score[dev]) == pytest.approx(row["bias"])


def test_finished_models_are_kept_and_more_seeds_join_them(home):
    run(home)
    before = {p: p.stat().st_mtime_ns for p in (home / "table").rglob("model.safetensors")}
    assert len(before) == 4
    table = run(home, seeds=(0, 1, 2))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {tuple(row["seeds"]) for row in table["rows"]} == {(0, 1, 2)}


def test_pairs_without_a_cache_are_listed_with_the_command_and_the_rest_run(home):
    datasets = [
        {"name": name, "manifest": home / f"{name}.csv", "cache": home / cache}
        for name, cache in (("one", "one"), ("two", "gone"))
    ]
    table = run(home, datasets=datasets)
    assert {(r["trained_on"], r["evaluated_on"]) for r in table["rows"]} == {("one", "one")}
    failed = [(f["trained_on"], f["evaluated_on"]) for f in table["failed"]]
    assert failed == [("one", "two"), ("two", "one"), ("two", "two")]
    for each in table["failed"]:
        assert each["missing_cache"]
        assert f"--manifest {home}/two.csv --encoder gone --cache {home}/gone" in each["error"]


def test_a_split_without_scores_has_no_row_and_says_so(home):
    make(home, "two", hide="test")
    table = run(home)
    splits = {r["split"] for r in table["rows"] if r["evaluated_on"] == "two"}
    assert splits == {"dev"}
    assert "two has no scores in its test split, so it has no row." in table["notes"]


def test_features_made_differently_are_refused_before_any_training(home, tmp_path):
    datasets = [d.model_dump() for d in grid(home).datasets]
    other = tmp_path / "other"
    other.mkdir()
    make(other, "two", image_size=64)
    datasets[1]["cache"] = other / "two"
    with pytest.raises(CacheError, match=r"were not made alike, so no model fits.*image_size"):
        run(home, datasets=datasets)
    assert not (home / "table").exists()


def test_the_papers_figures_stand_beside_their_pair(home):
    paper = [{"trained_on": "one", "evaluated_on": "two", "split": "test", "plcc": 0.487}]
    found = [row["paper"] for row in run(home, paper=paper)["rows"]]
    assert found == [None] * 3 + [{"plcc": 0.487, "srocc": None, "mse": None}] + [None] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": []}, "there are no datasets"),
        ({"paper": [{"trained_on": "on", "evaluated_on": "two", "split": "dev"}]}, "Did you mean"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(home, changes, message):
    with pytest.raises(ValueError, match=message):
        grid(home, **changes)


def test_what_transfer_decides_may_not_stand_in_the_recipe(home):
    with pytest.raises(ConfigError, match=r"sets cache, seeds, which .transfer. decides"):
        plan_transfer(grid(home), RECIPE | {"cache": "c", "seeds": (0,)})


def test_the_command_prints_the_table_with_its_sources(home):
    pipeline = home / "p.toml"
    pipeline.write_text(
        f'[train]\naggregator = "avg"\nhead = "linear"\nmax_epochs = 2\nbootstrap = 20\n'
        f'device = "cpu"\n[transfer]\ntitle = "Tiny"\nrun = "{home}/cli"\nseeds = "0-1"\n'
        + "".join(
            f'[[transfer.datasets]]\nname = "{n}"\nmanifest = "{home}/{n}.csv"\n'
            f'cache = "{home}/{n}"\n'
            for n in RULES
        )
        + '[[transfer.paper]]\ntrained_on = "one"\nevaluated_on = "two"\nsplit = "dev"\n'
        "srocc = 0.452\n"
    )
    result = CliRunner().invoke(main, ["transfer", str(pipeline)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (line,) = (each for each in lines if each.split()[:3] == ["one", "two", "dev"])
    assert "0.452" in line
    assert "RANDOM WEIGHTS" in result.stdout
    assert "made up by rule two, not from people" in result.stdout
    again = CliRunner().invoke(main, ["transfer", str(pipeline), "--json"])
    table = json.loads(again.stdout)
    assert table == json.loads((home / "cli" / "transfer.json").read_text())
    assert len(table["rows"]) == 8
