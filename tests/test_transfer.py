"""Table 2 on made-up features: what is trained and compared, its table, and its page."""

import base64
import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clips import read_frames
from made_up import SMALL, records, spec
from pages import Page, assert_self_contained
from PIL import Image
from scipy import stats

from memfeat.ablation.transfer import plan_transfer, run_transfer
from memfeat.cache import EncodedVideo, write_shard
from memfeat.cli import main
from memfeat.config import TransferConfig
from memfeat.errors import CacheError, ConfigError, RunError
from memfeat.manifest import write_manifest
from memfeat.report import write_report
from memfeat.runs import pair_folder, read_predictions
from memfeat.video import write_video

SPLITS = ["train"] * 12 + ["dev"] * 6 + ["test"] * 5
RULES = {"one": (0.3, 0.2), "two": (0.6, 0.35)}  # score = a + b * what the frames show
PAPER = [{"trained_on": "one", "evaluated_on": "two", "split": "dev", "srocc": 0.452}]
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


def make(home: Path, name: str, *, hide: str = "", **changes) -> None:
    """Write a dataset whose scores follow its own rule, in `name.csv` and the cache `name`."""
    base, gain = RULES[name]
    generator = np.random.default_rng(len(name) + ord(name[0]))
    shown = generator.random(len(SPLITS))
    scores = (base + gain * shown + generator.normal(0, 0.02, len(shown))).clip(0, 1).round(4)
    known = [None if s == hide else float(v) for v, s in zip(scores, SPLITS, strict=True)]
    dataset = f"made up by rule {name}, not from people"
    made = [
        record.model_copy(update={"dataset": dataset, "path": home / record.path})
        for record in records(known, SPLITS)
    ]
    write_manifest(home / f"{name}.csv", made)
    videos = []
    for index, value in enumerate(shown):
        frames = np.column_stack([np.full(4, value), generator.normal(0, 0.3, (4, 5))])
        videos.append(EncodedVideo(f"v{index}", frames.astype(np.float16), np.arange(4.0)))
    write_shard(home / name, spec(6, **changes), videos)


def grid(home: Path, **changes) -> TransferConfig:
    values = {
        "title": "Made up",
        "run": home / "table",
        "seeds": (0, 1),
        "datasets": [
            {"name": name, "manifest": home / f"{name}.csv", "cache": home / name} for name in RULES
        ],
        "paper": PAPER,
        "workers": 1,
    }
    return TransferConfig(**(values | changes))


def run(config: TransferConfig) -> dict:
    return run_transfer(config, plan_transfer(config, RECIPE))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Two datasets, of which every other clip can be looked at."""
    home = tmp_path_factory.mktemp("transfer")
    generator = np.random.default_rng(5)
    for name in RULES:
        make(home, name)
    for number in range(0, 23, 2):
        tiles = generator.integers(0, 256, (6, 3, 4, 3), dtype=np.uint8)
        write_video(home / f"v{number}.mp4", tiles.repeat(16, axis=1).repeat(16, axis=2), fps=5)
    return home


@pytest.fixture(scope="module")
def table(home) -> dict:
    return run(grid(home))


@pytest.fixture
def trained(home, table, tmp_path) -> Path:
    """A copy of the finished table's folder."""
    return shutil.copytree(home / "table", tmp_path / "table")


@pytest.fixture(scope="module")
def page(home, table) -> Page:
    return Page(write_report(home / "table"))


# The table


def test_every_figure_follows_from_the_predictions_of_each_seed(home, table):
    written = (home / "table" / "transfer.json").read_text()
    assert json.loads(json.dumps(table)) == json.loads(written)
    pairs = [(row["trained_on"], row["evaluated_on"], row["split"]) for row in table["rows"]]
    assert pairs == [(a, b, s) for a in RULES for b in RULES for s in ("dev", "test")]
    for row in table["rows"]:
        if row["trained_on"] != row["evaluated_on"]:
            continue  # within a dataset each seed's own predictions are in its run folder
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


def test_across_datasets_the_order_is_kept_and_recalibration_removes_the_bias(table):
    rows = {
        (row["trained_on"], row["evaluated_on"]): row
        for row in table["rows"]
        if row["split"] == "dev"
    }
    up, down = rows["one", "two"], rows["two", "one"]
    assert up["bias"] < -0.15 < 0.15 < down["bias"]  # the two means are .375 apart
    for row in (up, down):
        assert row["mse"] > row["bias"] ** 2
        assert row["recalibrated"]["mse"] < row["mse"] / 4
        assert abs(row["recalibrated"]["bias"]) < abs(row["bias"]) / 4
        assert row["mse_interval"][0] <= row["mse"] <= row["mse_interval"][1]


def test_a_pairs_mean_prediction_is_written_and_the_papers_figures_stand_beside_it(home, table):
    columns = read_predictions(pair_folder(home / "table", "one", "two") / "predictions.csv")
    row = table["rows"][2]
    assert (row["trained_on"], row["evaluated_on"], row["split"]) == ("one", "two", "dev")
    dev = np.array(columns.split) == "dev"
    assert np.mean(columns.prediction[dev] - columns.score[dev]) == pytest.approx(row["bias"])
    paper = {"plcc": None, "srocc": 0.452, "mse": None}
    assert [each["paper"] for each in table["rows"]] == [None] * 2 + [paper] + [None] * 5


def test_pairs_without_a_cache_are_listed_with_the_command_and_the_rest_run(home, trained):
    datasets = [
        {"name": name, "manifest": home / f"{name}.csv", "cache": home / cache}
        for name, cache in (("one", "one"), ("two", "gone"))
    ]
    table = run(grid(home, run=trained, datasets=datasets))
    assert {(r["trained_on"], r["evaluated_on"]) for r in table["rows"]} == {("one", "one")}
    failed = [(f["trained_on"], f["evaluated_on"]) for f in table["failed"]]
    assert failed == [("one", "two"), ("two", "one"), ("two", "two")]
    for each in table["failed"]:
        assert each["missing_cache"]
        assert f"--manifest {home}/two.csv --encoder gone --cache {home}/gone" in each["error"]


def test_features_made_differently_are_refused_before_any_training(home, tmp_path):
    make(tmp_path, "two", image_size=64)
    datasets = [dataset.model_dump() for dataset in grid(home).datasets]
    datasets[1]["cache"] = tmp_path / "two"
    with pytest.raises(CacheError, match=r"were not made alike, so no model fits.*image_size"):
        run(grid(home, run=tmp_path / "table", datasets=datasets))
    assert not (tmp_path / "table").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": []}, "there are no datasets"),
        ({"paper": [{"trained_on": "on", "evaluated_on": "two", "split": "dev"}]}, "Did you mean"),
    ],
)
def test_an_impossible_table_is_refused(home, changes, message):
    with pytest.raises(ValueError, match=message):
        grid(home, **changes)


def test_the_recipe_may_not_set_what_transfer_decides(home):
    with pytest.raises(ConfigError, match=r"sets cache, seeds, which .transfer. decides"):
        plan_transfer(grid(home), RECIPE | {"cache": "c", "seeds": (0,)})


def test_the_command_prints_the_table_with_its_sources_and_adds_seeds_to_those_finished(tmp_path):
    make(tmp_path, "one")
    make(tmp_path, "two", hide="test")
    pipeline = tmp_path / "p.toml"
    pipeline.write_text(
        f'[train]\naggregator = "avg"\nhead = "linear"\nmax_epochs = 2\nbootstrap = 20\n'
        f'device = "cpu"\n[transfer]\ntitle = "Tiny"\nrun = "{tmp_path}/cli"\nseeds = "0-1"\n'
        + "".join(
            f'[[transfer.datasets]]\nname = "{n}"\nmanifest = "{tmp_path}/{n}.csv"\n'
            f'cache = "{tmp_path}/{n}"\n'
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
    assert "two has no scores in its test split, so it has no row." in result.stdout
    models = {p: p.stat().st_mtime_ns for p in (tmp_path / "cli").rglob("model.safetensors")}
    assert len(models) == 4
    again = CliRunner().invoke(main, ["transfer", str(pipeline), "--seeds", "0-2", "--json"])
    table = json.loads(again.stdout)
    assert {p: p.stat().st_mtime_ns for p in models} == models
    assert {tuple(row["seeds"]) for row in table["rows"]} == {(0, 1, 2)}
    assert table == json.loads((tmp_path / "cli" / "transfer.json").read_text())
    reported = [(row["evaluated_on"], row["split"]) for row in table["rows"]]
    assert reported == [("one", "dev"), ("one", "test"), ("two", "dev")] * 2


# The page


def test_every_number_of_the_page_is_the_tables(page, table):
    rows = page.table("Trained on")[1:]
    assert len(rows) == len(table["rows"]) == 8
    for cells, row in zip(rows, table["rows"], strict=True):
        texts = [cell["text"].strip() for cell in cells[:3]]
        assert texts == [row["trained_on"], row["evaluated_on"], row["split"]]
        expected = [row["n"]]
        for name in ("srocc", "plcc"):
            expected += [row[name], row[f"{name}_std"], *row[f"{name}_interval"]]
        expected += [row["bias"], row["bias_std"]]
        for values in (row, row["recalibrated"]):
            expected += [values["mse"], values["mse_std"], *values["mse_interval"]]
        expected += [row["paper"]["srocc"]] if row["paper"] else []
        assert [float(value) for cell in cells for value, _ in cell["data"]] == expected


def test_each_pair_has_a_scatter_of_each_split(page):
    counts = {"dev": 6, "test": 5}
    assert [svg["aria-label"] for svg in page.of("svg")] == [
        f"Scatter plot of {a} to {b}, {split} split: measured against predicted score of "
        f"{counts[split]} videos"
        for split in counts
        for a in RULES
        for b in RULES
    ]


def test_each_pair_shows_its_worst_with_prediction_and_truth_in_brackets(page, home):
    section = page.words.partition("Worst and best predictions one to one")[2]
    for a in RULES:
        for b in RULES:
            words = f"The videos of {b}'s dev split that the model of {a} is most wrong about."
            worst_part, _, best_part = section.partition(words)[2].partition("it is nearest to.")
            columns = read_predictions(pair_folder(home / "table", a, b) / "predictions.csv")
            dev = np.flatnonzero(np.array(columns.split) == "dev")
            errors = np.abs(columns.prediction - columns.score)[dev]
            ranked = dev[np.argsort(-errors)]
            for chosen, part in ((ranked[:3], worst_part), (ranked[:-4:-1], best_part)):
                shown = [
                    f"{columns.prediction[i]:.3f} ({columns.score[i]:.3f}) {columns.video_id[i]}"
                    for i in chosen
                ]
                assert re.findall(r"\d\.\d{3} \(\d\.\d{3}\) v\d+", part)[:3] == shown


def test_the_pictures_are_frames_of_those_videos(page, home):
    assert page.of("img")
    for attrs in page.of("img"):
        name = attrs["alt"].removeprefix("A frame of ")
        shown = np.asarray(Image.open(BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))))
        frames = read_frames(home / f"{name}.mp4").pixels.astype(float)
        distances = np.sort(np.abs(frames - shown).mean((1, 2, 3)))
        assert distances[0] < 12 < distances[1]
    assert page.words.count("video not on this disk") + len(page.of("img")) == 24


def test_the_page_names_its_sources_first_and_needs_no_other_file(page):
    before = page.words.partition("Results Mean over seeds")[0]
    assert "RANDOM WEIGHTS" in before
    for name in RULES:
        assert f"scores of {name}: made up by rule {name}, not from people" in before
    assert_self_contained(page)


def test_pairs_without_a_result_are_listed_and_a_page_of_nothing_else_is_written(table, tmp_path):
    failed = {"trained_on": "one", "evaluated_on": "gone", "error": "there is no cache <b>gone</b>"}
    bare = table | {"rows": [], "failed": [failed], "runs": {}, "notes": []}
    (tmp_path / "transfer.json").write_text(json.dumps(bare))
    page = Page(write_report(tmp_path))
    assert "one to gone: there is no cache <b>gone</b>" in page.words
    assert "1 more have no result" in page.words
    assert not page.of("svg")


def test_a_damaged_table_is_refused_with_the_field_and_the_command(table, tmp_path):
    damaged = json.loads(json.dumps(table))
    damaged["rows"][2]["bias"] = "much"
    (tmp_path / "transfer.json").write_text(json.dumps(damaged))
    with pytest.raises(RunError, match=r"'rows\.2\.bias' is 'much'.*`memfeat transfer` again"):
        write_report(tmp_path)
