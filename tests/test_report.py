import base64
import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import read_frames
from made_up import SMALL, table
from pages import Page, assert_accessible, assert_self_contained
from PIL import Image

from memfeat.ablation import plan_cells
from memfeat.ablation.results import table_of
from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.cli.train import train_command
from memfeat.config import AblationConfig, TrainConfig, read_settings
from memfeat.errors import RunError
from memfeat.manifest import VideoRecord, read_manifest, write_manifest
from memfeat.metrics import paired_difference
from memfeat.models import AGGREGATORS, HEADS, resolve_model_options
from memfeat.report import write_report
from memfeat.report.repeating import commands, option_files
from memfeat.report.videos import extremes, first_shown
from memfeat.runs import Predictions, Run, read_predictions
from memfeat.training import Examples, train
from memfeat.training.baselines import run_baseline
from memfeat.video import write_video

EVIL = '<script>alert("1")</script><img src=x onerror=alert(2)> & more'
EVIL_ID = '<b onclick="x">id & "quotes"'
DATASET = "made up for a test: scores from a formula, not from people"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Clips, some missing, with features that tell their scores; two real runs; made-up figures."""
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(3)
    records, videos = [], []
    for number in range(24):
        split = ["train", "train", "dev"][number % 3]
        path = folder / f"clip-{number}.mp4"
        if number % 2:
            tiles = generator.integers(0, 256, (6, 3, 4, 3), dtype=np.uint8)
            write_video(path, tiles.repeat(16, axis=1).repeat(16, axis=2), fps=5)
        score = float(generator.random())
        frames = generator.normal(0, 0.3, (5, 6)) + score
        videos.append(frames / np.linalg.norm(frames, axis=1, keepdims=True))
        records.append(
            VideoRecord(
                video_id=f"{EVIL_ID} {number:02d}",
                path=path,
                score=score,
                split=split,
                dataset=DATASET,
                caption=EVIL,
            )
        )
    write_manifest(folder / "clips.csv", records)
    records = read_manifest(folder / "clips.csv").records
    features = replace(table(videos), video_ids=tuple(record.video_id for record in records))
    settings = SMALL | {
        "manifest": folder / "clips.csv",
        "cache": folder / "cache",
        "max_epochs": 2,
        "weight_decay": 0.0123,
        "bootstrap": 20,
        "device": "cpu",
    }
    grid = folder / "grid"
    for name, changes in {
        "linear-avg+linear": {"aggregator": "linear-avg", "head": "linear", "seeds": (0, 1)},
        "bigru+mlp": {"aggregator": "bigru", "head": "mlp"},
    }.items():
        run = grid / "cells" / name
        train(features, records, TrainConfig(**(settings | {"run": run} | changes)))
    (grid / "ablation.json").write_text(json.dumps(made_up_table()))
    return folder


def row(name, kind, generator, **changes):
    number = lambda: float(generator.normal(0, 0.4))  # noqa: E731
    values = {
        "name": name,
        "kind": kind,
        "encoder": "made-up",
        "weights": "random",
        "aggregator": name.partition("+")[0],
        "head": "linear",
        "seeds": [0, 1],
        "plcc": number(),
        "srocc": number(),
        "mse": abs(number()) / 10,
        "plcc_std": abs(number()),
        "srocc_std": abs(number()),
        "mse_std": abs(number()) / 10,
        "plcc_interval": sorted([number(), number()]),
        "srocc_interval": sorted([number(), number()]),
        "mse_interval": sorted([abs(number()), abs(number())]),
        "versus": {"srocc": number(), "interval": sorted([number(), number()])},
        "paper": None,
        "parameters": int(generator.integers(1, 10**7)),
        "seconds": abs(number()) * 100,
        "run": f"cells/{name}",
        "note": "",
    }
    return values | changes


def made_up_table():
    """Figures that no training would give, so that the page can only have copied them."""
    generator = np.random.default_rng(0)
    undefined = dict.fromkeys(
        ["plcc", "srocc", "plcc_std", "srocc_std", "plcc_interval", "srocc_interval", "versus"]
    )
    return {
        "title": f"Table of {EVIL}",
        "split": "dev",
        "n": 8,
        "best": "ridge",
        "reference": "ridge",
        "rows": [
            row("bigru+mlp", "model", generator, srocc=0.41, paper={"plcc": 0.7132, "srocc": 0.71}),
            row("linear-avg+linear", "model", generator, srocc=0.62),
            row("avg+mlp", "model", generator, **undefined, undefined="constant predictions"),
            row("ridge", "baseline", generator, srocc=0.7, seeds=[], srocc_std=None, versus=None),
            row("bigru+mlp on shuffled labels", "control", generator, srocc=-0.2),
        ],
        "failed": [{"name": "avg+svr", "error": f"no features {EVIL}"}],
        "ceiling": {
            "what": "noise-free scores as predictions",
            "plcc": 0.912345,
            "srocc": 0.923456,
            "srocc_interval": [0.85, 0.97],
            "mse": 0.00345,
        },
        "split_half": {
            "what": f"halves of the viewers {EVIL}",
            "plcc": 0.81,
            "srocc": 0.834567,
            "srocc_interval": [0.75, 0.88],
        },
        "sources": [
            "features: made-up with RANDOM WEIGHTS: its features carry no learned content",
            f"scores: {DATASET}",
        ],
        "notes": [f"avg+mlp: its interval includes zero {EVIL}"],
        "versions": {"memfeat": "1.2.3", "torch": "4.5.6"},
    }


@pytest.fixture(scope="module")
def page(study):
    return Page(write_report(study / "grid"))


@pytest.fixture(scope="module")
def run_page(study):
    return Page(write_report(study / "grid" / "cells" / "linear-avg+linear", study / "run.html"))


def numbers(values):
    """Flatten a row of `ablation.json` into the numbers its table row shows, in order."""
    found = []
    for name in ("srocc", "versus", "plcc", "mse"):
        if name == "versus":
            difference = values[name] or {"srocc": None, "interval": None}
            found += [difference["srocc"], *(difference["interval"] or [])]
        else:
            interval = values[f"{name}_interval"] or []
            found += [values[name], values[f"{name}_std"], *interval]
    paper = values["paper"] or {}
    found += [paper.get("srocc"), paper.get("plcc"), values["parameters"], values["seconds"]]
    return [number for number in found if number is not None]


def test_every_number_of_the_table_is_the_ablations_rounded_for_people(page):
    known = sorted(
        made_up_table()["rows"], key=lambda row: -2 if row["srocc"] is None else row["srocc"]
    )
    rows = page.table("System")[3:]
    assert len(rows) == len(known) == 5
    for cells, values in zip(rows, reversed(known), strict=True):
        assert cells[0]["text"].startswith(values["name"])
        shown = [pair for cell in cells for pair in cell["data"]]
        assert [float(value) for value, _ in shown] == numbers(values)
        for value, text in shown:
            plain = re.sub(r"[\u202f+]", "", text).replace("\N{MINUS SIGN}", "-")
            plain, _, unit = plain.partition(" ")
            digits = len(plain.partition(".")[2])
            scale = {"": 1, "s": 1, "min": 60}[unit]
            assert abs(float(plain) * scale - float(value)) <= 0.5001 * 10**-digits * scale


def test_rows_stand_by_score_with_their_kind_and_the_ceiling_above(page):
    rows = page.table("System")[1:]
    names = [cells[0]["text"].split() for cells in rows]
    assert [words[0] for words in names] == [
        "ceiling",
        "ceiling",
        "ridge",
        "linear-avg+linear",
        "bigru+mlp",
        "bigru+mlp",
        "avg+mlp",
    ]
    assert [words[-3].strip(",") for words in names[2:]] == [
        "baseline",
        "model",
        "model",
        "control",
        "model",
    ]
    assert [value for value, _ in rows[0][1]["data"]] == ["0.923456", "0.85", "0.97"]
    assert [value for value, _ in rows[1][1]["data"]] == ["0.834567", "0.75", "0.88"]
    assert rows[1][0]["text"] == f"ceiling from people halves of the viewers {EVIL}"
    assert "undefined" in rows[-1][1]["text"]


def test_what_failed_and_what_needs_explaining_is_told(page):
    assert f"avg+svr: no features {EVIL}" in page.words
    assert f"avg+mlp: its interval includes zero {EVIL}" in page.words
    assert "1 of 6 systems failed" in page.words


def test_what_many_models_say_of_themselves_is_summed_up(run_page, study, tmp_path):
    cells = {row[0]["text"]: row[1]["text"] for row in run_page.table("What")[1:]}
    assert cells["stopped_because"] == "all 2 epochs done: 2 models"
    run = tmp_path / "run"
    shutil.copytree(study / "grid" / "cells" / "linear-avg+linear", run)
    provenance = json.loads((run / "provenance.json").read_text())
    why = ["30 epochs without improvement of dev srocc"] * 24 + ["all 60 epochs done"]
    many = {"stopped_because": why, "best_epoch": list(range(25))}
    (run / "provenance.json").write_text(json.dumps(provenance | many))
    cells = {row[0]["text"]: row[1]["text"] for row in Page(write_report(run)).table("What")[1:]}
    assert cells["stopped_because"] == f"{why[0]}: 24 models; {why[-1]}: 1 model"
    assert cells["best epoch, from 1"] == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 13 more"
    assert max(map(len, cells.values())) < 300


def test_a_plot_of_constant_predictions_says_why_it_has_no_correlation(study, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(study / "grid" / "cells" / "bigru+mlp", run)
    with (run / "predictions.csv").open(newline="") as file:
        rows = [each | {"prediction": "0.5"} for each in csv.DictReader(file)]
    with (run / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    words = Page(write_report(run)).words.replace("\xa0", " ")
    why = "n = 8: the predictions are constant: 0.5 for all 8 videos"
    assert re.search(rf"SROCC undefined · PLCC undefined · MSE 0\.\d+ · {why}", words)


@pytest.mark.parametrize("name", ["page", "run_page"])
def test_every_page_stands_alone_escapes_text_and_warns_before_any_result(name, request):
    page = request.getfixturevalue(name)
    assert_self_contained(page)
    assert_accessible(page)
    assert EVIL in page.words
    assert EVIL_ID in page.words
    assert not [attrs for attrs in page.of("img") if attrs["src"] == "x"]
    assert not [attrs for attrs in page.of("b") if attrs]
    before, _, _ = page.words.partition("How to read it")
    assert "Not to be mistaken for the real thing" in before
    assert "RANDOM WEIGHTS" in before
    assert DATASET in before


def test_the_worst_predictions_are_those_with_the_largest_error(page, study):
    run = study / "grid" / "cells" / "linear-avg+linear"
    with (run / "predictions.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "dev"]
    error = lambda r: abs(float(r["prediction"]) - float(r["score"]))  # noqa: E731
    worst = sorted(rows, key=error, reverse=True)[:6]
    section = page.words.partition("Worst and best predictions The videos")[2]
    section = section.partition("And those that it is nearest to.")[0]
    for earlier, later in pairwise(worst):
        assert section.index(earlier["video_id"]) < section.index(later["video_id"])
    for each in worst:
        shown = f"{float(each['prediction']):.3f} ({float(each['score']):.3f}) {each['video_id']}"
        assert shown in section
    assert not any(each["video_id"] in section for each in rows if each not in worst)


def test_a_worst_video_shows_one_of_its_frames_or_says_that_it_is_missing(page, study):
    videos = read_manifest(study / "clips.csv").by_id
    pictures = page.of("img")
    missing = page.words.count("video not on this disk")
    assert pictures
    assert missing
    assert len(pictures) + missing == 8, "all of dev: six worst and two best"
    chosen = []
    for attrs in pictures:
        (record,) = [r for name, r in videos.items() if f"A frame of {name}:" in attrs["alt"]]
        shown = np.asarray(Image.open(BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))))
        frames = read_frames(record.path).pixels.astype(float)
        assert shown.shape == frames.shape[1:]
        distances = np.abs(frames - shown).mean((1, 2, 3))
        assert distances.min() < 12 < np.sort(distances)[1]
        chosen.append(int(distances.argmin()))
    assert len(set(chosen)) > 1, "not always the same frame of a video"


def test_the_pages_script_knows_every_video_with_its_interval(page, study):
    run = Run.load(study / "grid" / "cells" / "linear-avg+linear")
    predictions = run.predictions()
    dev = predictions.scored("dev")
    (videos,) = page.data["sets"]
    (system,) = [each for each in page.data["systems"] if each["name"] == "linear-avg+linear"]
    assert videos["ids"] == list(np.array(predictions.video_id, object)[dev])
    np.testing.assert_allclose(videos["truth"], predictions.score[dev], atol=1e-6)
    np.testing.assert_allclose(system["predictions"], predictions.prediction[dev], atol=1e-6)
    assert system["margin"] is None, "eight videos are too few for an interval of 90 %"
    own = read_manifest(study / "clips.csv").by_id
    there = [place for place, name in enumerate(videos["ids"]) if own[name].path.exists()]
    assert [int(place) for place in videos["thumbnails"]] == there != []
    assert f"dev: pictures of {len(there)} of 8 videos" in page.words


def test_a_difference_of_two_rows_is_that_of_their_seeds_on_the_same_resamples(page, study):
    names = [each["name"] for each in page.data["systems"]]
    assert names == ["linear-avg+linear", "bigru+mlp"], "ridge has no predictions here"
    seeds = []
    for name in names:
        run = Run.load(study / "grid" / "cells" / name)
        each = [read_predictions(folder / "predictions.csv") for folder in run.members]
        dev = each[0].scored("dev")
        seeds.append([own.prediction[dev] for own in each])
    expected = paired_difference(each[0].score[dev], *seeds, bootstrap=20)
    assert page.data["differences"] == {"0 1": [expected.value, *expected.interval]}
    assert page.data["bootstrap"] == 20
    rows = [attrs for attrs in page.of("tr") if "data-system" in attrs]
    assert [int(attrs["data-system"]) for attrs in rows] == [0, 1]


def test_of_many_videos_the_extremes_and_some_over_the_whole_range_are_shown():
    truth = np.linspace(0.2, 0.9, 1000)
    predicted = truth.copy()
    predicted[[5, 700]] += 0.06, 0.05
    ids = tuple(f"v{n}" for n in range(1000))
    columns = Predictions(ids, ("dev",) * 1000, truth, predicted)
    worst, best = extremes(columns, 2)
    assert worst == [5, 700]
    assert best == [999, 998]
    shown = first_shown(columns, [ids[n] for n in worst], 50)
    assert shown[:2] == ["v5", "v700"]
    assert len(set(shown)) == 50
    places = np.sort([int(name[1:]) for name in shown])
    assert places[0] < 25
    assert places[-1] > 975
    assert np.diff(places).max() < 50
    assert [len(each) for each in extremes(columns.of(ids[:9]))] == [6, 3], "none in both"


def test_the_commands_mean_the_runs_settings_options_without_a_flag_included(
    page, study, tmp_path, monkeypatch
):
    runs = [Run.load(study / "grid" / "cells" / n) for n in ("linear-avg+linear", "bigru+mlp")]
    lines, files = commands(runs), option_files(runs)
    for line in lines:
        assert f"$ {line}" in page.words
    assert files.keys() == {"linear-avg+linear-options.toml", "bigru+mlp-options.toml"}
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).write_text(text)
    extract, *trainings = [shlex.split(line)[1:] for line in lines]
    assert extract[:2] == ["extract", "--manifest"]
    for run, (name, *words) in zip(runs, trainings, strict=True):
        given = train_command.make_context(name, words).params
        flags = {key: value for key, value in given.items() if key in TrainConfig.model_fields}
        config = read_settings(TrainConfig, "train", given["pipeline"], flags)
        free = {"device", "threads", "aggregators", "heads"}
        assert config.model_dump(exclude=free) == run.config.model_dump(exclude=free)
        for registry, kind, own in (
            *((AGGREGATORS, "aggregators", each) for each in config.aggregator),
            (HEADS, "heads", config.head),
        ):
            one, other = (
                resolve_model_options(registry, own, getattr(each, kind).get(own, {}))
                for each in (config, run.config)
            )
            assert one == other


def test_choices_that_are_ours_are_listed_with_the_values_used(page):
    ours = {cells[0]["text"]: cells[1]["text"] for cells in page.tables[1][1:]}
    assert ours["training: weight_decay"] == "0.0123"
    assert ours["training: monitor"] == "l1"
    assert ours["linear-avg: width"] == "5"
    assert ours["features: interpolation"] == "antialiased bicubic, squashed"
    assert "training: learning_rate" not in ours  # the paper's


def test_settings_that_differ_between_rows_say_so_and_versions_are_listed(page):
    (training,) = [t for t in page.tables if t[1][0]["text"] == "manifest"]
    settings = {cells[0]["text"]: cells[1]["text"] for cells in training[1:]}
    assert settings["seeds"] == "varies"
    assert settings["max_epochs"] == "2"
    versions = {cells[0]["text"]: cells[1]["text"] for cells in page.table("What")[1:]}
    assert versions == {"memfeat": "1.2.3", "torch": "4.5.6"}


def test_a_run_of_several_seeds_shows_its_metrics(run_page, study):
    metrics = json.loads(
        (study / "grid" / "cells" / "linear-avg+linear" / "metrics.json").read_text()
    )
    rows = {cells[0]["text"].split()[0]: cells for cells in run_page.table("Split")[1:]}
    assert rows.keys() == metrics.keys() == {"train", "dev"}
    for split, cells in rows.items():
        own = metrics[split]
        expected = [own["n"]]
        for name in ("srocc", "plcc", "mse"):
            expected += [own[name], own[f"{name}_std"], *own[f"{name}_interval"]]
        shown = [float(value) for cell in cells for value, _ in cell["data"]]
        assert shown == [*expected, own["bias"]]


def test_a_run_of_one_seed_has_a_page_by_default_and_the_same_bytes_each_time(study, tmp_path):
    folder = study / "grid" / "cells" / "bigru+mlp"
    path = write_report(folder)
    assert path == folder / "report.html"
    assert "bigru + mlp on made-up" in Page(path).words
    assert write_report(folder, tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_what_an_ablation_writes_is_what_the_report_reads(study, tmp_path):
    spec = Run.load(study / "grid" / "cells" / "bigru+mlp").specs[0]
    videos = [
        EncodedVideo(name, np.full((2, 6), 6**-0.5, np.float16) * sign, np.arange(2.0))
        for name, sign in zip(
            read_manifest(study / "clips.csv").by_id, [1, -1, 1, 1] * 6, strict=True
        )
    ]
    write_shard(tmp_path / "caches" / "made-up", spec, videos)
    grid = AblationConfig(
        title="A grid",
        run=tmp_path / "run",
        seeds="0-1",
        cache_root=tmp_path / "caches",
        caches=("made-up",),
        aggregators=("avg",),
        heads=("linear",),
        baselines=("ridge",),
        controls=("avg+linear",),
    )
    recipe = {"manifest": study / "clips.csv", "max_epochs": 1, "bootstrap": 20, "device": "cpu"}
    cells = plan_cells(grid, recipe)
    features = Cache.open(tmp_path / "caches" / "made-up").load()
    records = read_manifest(study / "clips.csv").records
    for cell in cells:
        if cell.kind == "baseline":
            run_baseline(Examples.join(features, records), cell.config)
        else:
            train(features, records, cell.config)
    result = table_of(grid, cells, {"avg+svr": "no such luck"})
    (tmp_path / "run" / "ablation.json").write_text(json.dumps(result))
    page = Page(write_report(tmp_path / "run"))
    rows = page.table("System")[1:]
    assert len(rows) == len(result["rows"]) == 3
    for cells, values in zip(rows, result["rows"], strict=True):
        assert cells[0]["text"].startswith(values["name"])
        shown = [float(value) for cell in cells for value, _ in cell["data"]]
        assert shown == numbers(values)


def test_without_its_runs_a_table_still_has_its_page(tmp_path):
    (tmp_path / "ablation.json").write_text(json.dumps(made_up_table()))
    page = Page(write_report(tmp_path))
    assert len(page.table("System")) == 8
    assert "their settings cannot be shown" in page.words
    assert not page.of("img")


def test_the_headline_names_a_baseline_that_does_better_and_a_ceiling_that_is_exceeded(tmp_path):
    table = made_up_table()
    (tmp_path / "ablation.json").write_text(json.dumps(table))
    words = Page(write_report(tmp_path)).words
    assert "the best model, linear-avg+linear, ranks videos with SROCC 0.62" in words
    assert "The baseline ridge does better, with 0.70." in words
    assert "A perfect model is expected to reach 0.92 here." in words
    table["ceiling"]["srocc"] = 0.65
    (tmp_path / "ablation.json").write_text(json.dumps(table))
    words = Page(write_report(tmp_path)).words
    assert "is expected to reach 0.65 here, which ridge exceeds: by luck" in words


def test_a_grid_with_tables_of_two_splits_shows_the_one_asked_for(tmp_path):
    table = made_up_table()
    (tmp_path / "ablation.json").write_text(json.dumps(table))
    (tmp_path / "ablation-test.json").write_text(json.dumps(table | {"split": "test"}))
    assert "of the dev split" in Page(write_report(tmp_path)).words
    assert "of the dev split" in Page(write_report(tmp_path, split="dev")).words
    assert "of the test split" in Page(write_report(tmp_path, split="test")).words
    with pytest.raises(RunError, match=r"there is no .*ablation-train\.json"):
        write_report(tmp_path, split="train")


def test_a_folder_that_is_no_result_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a complete run"):
        write_report(tmp_path)


def test_a_seed_that_lacks_a_video_is_refused_by_name(study, tmp_path):
    shutil.copytree(study / "grid", tmp_path / "grid")
    path = tmp_path / "grid" / "cells" / "linear-avg+linear" / "seed-1" / "predictions.csv"
    lines = [line for line in path.read_text().splitlines() if " 02" not in line]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"seed-1/predictions\.csv is damaged: it lacks .* 02"):
        write_report(tmp_path / "grid")


def test_a_damaged_table_is_refused_with_the_field(tmp_path):
    damaged = made_up_table()
    damaged["rows"][1]["srocc"] = "high"
    (tmp_path / "ablation.json").write_text(json.dumps(damaged))
    with pytest.raises(RunError, match=r"'rows\.1\.srocc' is 'high'"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
