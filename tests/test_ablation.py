"""Grids on made-up features: what is planned, what is compared, what survives."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import SMALL, records, spec
from processes import descendants, eventually, exists, parent_of, start, workers_of

from memfeat.ablation import GridProgress, plan_cells, run_ablation, train_seeds
from memfeat.ablation.notes import table_notes
from memfeat.ablation.progress import ProgressCounter
from memfeat.ablation.scheduler import group_by_data, local_slots
from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.config import AblationConfig, TrainConfig
from memfeat.devices import cpu_cores
from memfeat.errors import ConfigError, RunError, TrainingError, UnknownNameError
from memfeat.manifest import read_manifest, write_manifest
from memfeat.metrics import evaluate, paired_difference, split_half_ceiling
from memfeat.report import write_report
from memfeat.runs import Run, read_folds, read_predictions, write_predictions
from memfeat.training import EpochReport, train, training_device

DIM = 6
TABLES = "ablation.json", "ablation-dev.json"
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
            assert row["versus"]["srocc"] == pytest.approx(difference.value)
            assert row["versus"]["interval"] == pytest.approx(difference.interval)


def test_rows_of_different_caches_are_compared_on_the_videos_that_all_have(home):
    without = [video(i) for i in range(len(SPLITS)) if i != 20]
    write_shard(home / "b", spec(DIM), without)
    missing = EncodedVideo("v20", np.empty((0, DIM), np.float16), np.empty(0), "failed", "missing")
    write_shard(home / "b", spec(DIM), [missing])
    table = run(home, caches=("a", "b"), aggregators=("avg",))
    assert table["n"] == SPLITS.count("test") - 1
    assert any("1 video not in every row's cache" in note for note in table["notes"])
    assert len(table["rows"]) == 2
    assert table["failed"] == []


def test_where_answers_are_counted_people_set_a_ceiling_beside_the_rows(home):
    known = read_manifest(home / "m.csv").records
    counted = [
        r.model_copy(update={"n_annotations": 50, "score": round(r.score * 50) / 50}) for r in known
    ]
    write_manifest(home / "m.csv", counted)
    table = run(home, aggregators=("avg",))
    found = split_half_ceiling([r for r in counted if r.split == "test"], bootstrap=60)
    assert table["split_half"] == {"what": found.describe(), **found.as_dict()}
    assert table["split_half"]["srocc"] > 0.8  # uniform scores, each from fifty people
    assert table["ceiling"] is None


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_grid_of_other_settings_is_refused_and_changes_no_file(home):
    run(home)
    before = files(home / "grid")
    config = grid(home, heads=("linear", "mlp"))
    message = r"2 of 4 rows do not fit .*'avg\+linear' first: .*max_epochs is 1 there and 2 here"
    with pytest.raises(RunError, match=message):
        run_ablation(config, plan_cells(config, recipe(home, max_epochs=2)))
    assert files(home / "grid") == before


def test_each_split_has_a_table_of_its_own(home):
    of_test = run(home)
    of_dev = run(home, split="dev")
    again = run(home)
    kept = [json.loads((home / "grid" / n).read_text()) for n in TABLES]
    assert kept == [json.loads(json.dumps(table)) for table in (again, of_dev)]
    assert again == of_test
    assert any("The dev split chose each model's epoch" in note for note in of_dev["notes"])
    assert not any("chose each model's" in note for note in of_test["notes"])


def test_a_split_without_scores_is_refused_before_anything_is_trained(home):
    withheld = [
        r.model_copy(update={"score": None}) if r.split == "test" else r
        for r in read_manifest(home / "m.csv").records
    ]
    write_manifest(home / "m.csv", withheld)
    with pytest.raises(ConfigError, match=r"'test' of .* has 8 videos and no score .*--split"):
        run(home)
    assert not (home / "grid").exists()


def test_a_table_with_failed_rows_does_not_replace_a_whole_one(home):
    write_shard(home / "b", spec(DIM), [video(i) for i in range(len(SPLITS))])
    run(home, caches=("a", "b"))
    whole = (home / "grid" / "ablation.json").read_bytes()
    (home / "b").rename(home / "away")
    failed = run(home, caches=("a", "b"))
    assert (home / "grid" / "ablation.json").read_bytes() == whole
    written = json.loads((home / "grid" / "ablation-incomplete.json").read_text())
    assert written == json.loads(json.dumps(failed))
    assert [each["name"] for each in failed["failed"]] == ["b avg+linear", "b linear-avg+linear"]


def test_rows_of_a_cache_that_could_not_be_completed_fail(home):
    config = grid(home)
    table = run_ablation(
        config, plan_cells(config, recipe(home)), broken={home / "a": "CUDA error: gone"}
    )
    assert [each["error"] for each in table["failed"]] == [f"{home / 'a'}: CUDA error: gone"] * 2
    assert not (home / "grid" / "cells").exists()


def changed_test_scores(home: Path) -> None:
    records = read_manifest(home / "m.csv").records
    changes = {r.video_id: {"score": round(1 - r.score, 3)} for r in records if r.split == "test"}
    write_manifest(
        home / "m.csv", [r.model_copy(update=changes.get(r.video_id, {})) for r in records]
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_training_does_not_use_is_scored_anew_and_nothing_is_trained_again(home, seeds):
    config = grid(home, seeds=seeds)
    run_ablation(config, plan_cells(config, recipe(home)))
    trained = {path: path.stat().st_mtime_ns for path in home.rglob("model.safetensors")}
    changed_test_scores(home)
    changes = {"bootstrap": 50, "threads": 2, "device": "auto"}
    again = run_ablation(config, plan_cells(config, recipe(home, **changes)))
    assert again["failed"] == []
    assert {p: p.stat().st_mtime_ns for p in home.rglob("model.safetensors")} == trained
    fresh = config.model_copy(update={"run": home / "fresh"})
    expected = run_ablation(fresh, plan_cells(fresh, recipe(home, **changes)))
    for rows in (again["rows"], expected["rows"]):
        for each in rows:
            del each["seconds"]
    assert again["rows"] == expected["rows"]
    for name in ("predictions.csv", "metrics.json"):
        for path in (home / "grid").rglob(name):
            own = home / "fresh" / path.relative_to(home / "grid")
            assert path.read_bytes() == own.read_bytes()


def test_scores_that_training_uses_make_another_run(home):
    run(home)
    records = read_manifest(home / "m.csv").records
    write_manifest(home / "m.csv", [records[0].model_copy(update={"score": 0.5}), *records[1:]])
    errors = [each["error"] for each in run(home)["failed"]]
    assert all("its videos, scores or features of train and dev differ" in e for e in errors)
    assert len(errors) == 2


def test_groups_and_files_that_splits_share_are_noted_once(home):
    groups = {"v0": "film", "v1": "film", "v12": "film", "v3": "advert", "v20": "advert"}
    known = read_manifest(home / "m.csv").records
    write_manifest(
        home / "m.csv",
        [r.model_copy(update={"group": groups.get(r.video_id, "")}) for r in known],
    )
    shared = [
        replace(video(i), source_sha256="ab" * 32 if i in (2, 13) else f"{i:064x}")
        for i in range(len(SPLITS))
    ]
    write_shard(home / "b", spec(DIM), shared)
    notes = run(home, caches=("b",), aggregators=("avg",))["notes"]
    assert [note for note in notes if "more than one split" in note] == [
        "2 groups in more than one split, 'v0' in train and 'v12' in dev first: what is learnt of "
        "one video gives the others away.",
        "1 video file in more than one split, 'v2' in train and 'v13' in dev first: what is learnt "
        "of one video gives the others away.",
    ]


def test_training_that_did_not_work_out_is_noted(home):
    rows = [row("late", max_epochs=2), row("still", learning_rate=1e-30, patience_epochs=1)]
    config = grid(home, rows=rows, aggregators=(), controls=("avg+linear",))
    table = run_ablation(config, plan_cells(config, recipe(home, max_epochs=40)))
    notes = "\n".join(table["notes"])
    assert re.search("late: [12] of 2 models still improved in the last of 2 epochs", notes)
    assert not re.search("still: [12] of 2 models still improved", notes)
    assert "still does no better than its control, trained on shuffled scores" in notes


def test_an_ensemble_averages_rows_and_is_compared_like_any(home):
    members = ["avg+linear", "linear-avg+linear", "avg+ridge"]
    ensembles = [
        {"name": "alike", "members": members[:2]},
        {"name": "fitted", "members": members, "weights": "dev"},
    ]
    table = run(home, baselines=("ridge",), ensembles=ensembles)
    columns = [read_predictions(home / "grid" / "cells" / m / "predictions.csv") for m in members]
    stacked = np.stack([each.prediction for each in columns])
    rows = {row["name"]: row for row in table["rows"]}
    dev, test = columns[0].scored("dev"), columns[0].scored("test")
    found = {
        name: read_predictions(home / "grid" / rows[name]["run"] / "predictions.csv").prediction
        for name in ("alike", "fitted")
    }
    np.testing.assert_allclose(found["alike"], stacked[:2].mean(axis=0), rtol=1e-12)
    metrics = evaluate(columns[0].score[test], found["alike"][test], bootstrap=60)
    assert rows["alike"]["srocc"] == metrics.srocc
    assert (rows["alike"]["kind"], rows["alike"]["seeds"]) == ("ensemble", [])
    # The best convex combination up to its scale: no member's weight can be moved to gain on dev.
    truth = columns[0].score[dev]
    weights, *_ = np.linalg.lstsq(stacked.T, found["fitted"], rcond=None)
    assert (weights > -1e-9).all()
    scale = truth @ found["fitted"][dev] / (found["fitted"][dev] @ found["fitted"][dev])
    best = np.square(scale * found["fitted"][dev] - truth).sum()
    for other in np.random.default_rng(0).dirichlet(np.ones(3), 200) * scale:
        assert np.square(other @ stacked[:, dev] - truth).sum() >= best - 1e-12
    assert any(
        "fitted averages predictions: " in n and "fitted on the dev" in n for n in table["notes"]
    )


@pytest.mark.parametrize(
    ("ensembles", "message"),
    [
        ([{"name": "e", "members": ["avg+linear", "nope"]}], "unknown ensemble's member 'nope'"),
        (
            [{"name": "avg+linear", "members": ["avg+linear"] * 2}],
            "called like each other or a row",
        ),
    ],
)
def test_an_ensemble_that_cannot_be_meant_is_refused(home, ensembles, message):
    with pytest.raises(ConfigError, match=message):
        plan_cells(grid(home, ensembles=ensembles), recipe(home))


@pytest.mark.parametrize(
    ("cell", "why"),
    [("x", "could not convert string to float: 'x'"), ("nan", "'nan' is not a finite number")],
)
def test_a_bad_cell_of_a_scorers_table_fails_its_row_alone(home, cell, why):
    path = home / "grid/scores/vitmem.csv"
    path.parent.mkdir(parents=True)
    cells = [0.5] * 3 + [cell] + [0.5] * (len(SPLITS) - 4)
    path.write_text("video_id,score\n" + "".join(f"v{i},{each}\n" for i, each in enumerate(cells)))
    table = run(home, aggregators=("avg",), seeds=(0,), scorers=("vitmem",))
    assert [row["name"] for row in table["rows"]] == ["avg+linear"]
    (failed,) = table["failed"]
    assert f"{path}, line 5, column score: {why}; delete the file and" in failed["error"]


def test_an_ensemble_without_one_of_its_members_fails(home):
    rows = [row("sound"), row("wild", learning_rate=1e300)]
    ensembles = [{"name": "both", "members": ["sound", "wild"]}]
    config = grid(home, rows=rows, aggregators=(), ensembles=ensembles)
    table = run_ablation(config, plan_cells(config, recipe(home)))
    failed = {each["name"]: each["error"] for each in table["failed"]}
    assert failed["both"] == "its member 'wild' has no result"


def test_predictions_that_are_all_but_constant_are_noted(home):
    run(home)
    folder = home / "grid" / "cells" / "avg+linear" / "seed-0"
    flat = read_predictions(folder / "predictions.csv")
    flat = flat._replace(prediction=0.5 + 1e-4 * flat.prediction)
    write_predictions(folder / "predictions.csv", flat)
    (warning,) = Run.load(folder).warnings()
    assert warning.startswith("its predictions hardly differ from video to video")


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


def row(name: str, aggregator: str = "avg", **train) -> dict:
    return {"name": name, "cache": "a", "aggregator": aggregator, "head": "linear", "train": train}


def test_whatever_goes_wrong_with_a_cell_costs_the_others_nothing(home):
    rows = [row("sound"), row("wild", learning_rate=1e300), row("nowhere", device="cuda:99")]
    rows += [row("blocked"), row("half")]
    config = grid(home, rows=rows, aggregators=(), baselines=("ridge",))
    cells = plan_cells(config, recipe(home))
    by_name = {cell.name: cell.config.run for cell in cells}
    for path in (by_name["blocked"], by_name["half"] / "seed-1"):
        path.parent.mkdir(parents=True)
        path.write_text("a file where a folder should be")
    table = run_ablation(config, cells)
    assert sorted(row["name"] for row in table["rows"]) == ["avg+ridge", "sound"]
    errors = {failed["name"]: failed["error"] for failed in table["failed"]}
    assert re.search("^seed 0 diverged: .*; seed 1 diverged: in epoch 0", errors.pop("wild"))
    assert re.search("^device 'cuda:99' is not there.*without$", errors.pop("nowhere"))
    assert "blocked" in errors.pop("blocked")
    assert re.search("^seed 1: cannot write to run folder .*half/seed-1", errors.pop("half"))
    assert errors == {}
    assert (by_name["half"] / "seed-0" / "metrics.json").is_file()


def test_a_cache_that_cannot_be_used_fails_its_own_cells(home):
    other = records([0.5] * 26, ["train"] * 26)
    write_manifest(home / "other.csv", other)
    rows = [row("sound"), row("no dev"), row("no manifest")]
    config = grid(home, rows=rows, aggregators=())
    cells = plan_cells(config, recipe(home))
    for index, name in ((1, "other.csv"), (2, "gone.csv")):
        changed = cells[index].config.model_copy(update={"manifest": home / name})
        cells[index] = replace(cells[index], config=changed)
    table = run_ablation(config, cells)
    assert [row["name"] for row in table["rows"]] == ["sound"]
    errors = {failed["name"]: failed["error"] for failed in table["failed"]}
    assert "the dev split has no video" in errors["no dev"]
    assert "gone.csv" in errors["no manifest"]


def test_the_cache_with_the_costliest_cell_comes_first(home):
    rows = [row("cheap"), row("dear", "bigru") | {"cache": "b"}, row("more") | {"cache": "b"}]
    groups = group_by_data(plan_cells(grid(home, rows=rows, aggregators=()), recipe(home)))
    assert [[cell.name for cell in group] for group in groups] == [
        ["b dear", "b more"],
        ["a cheap"],
    ]


@pytest.mark.parametrize(
    ("device", "workers", "seen"),
    [
        ("auto", 0, ["4", "2", "7"]),
        ("auto", 2, ["4", "2"]),
        ("auto", 4, ["4", "2", "7", "4"]),
        ("cuda:1", 0, [None]),
        ("cuda:2,cuda:0", 0, ["4", "7"]),
        ("cuda:1,cuda:2", 3, ["2", "7", "2"]),
        ("cpu", 3, [None, None, None]),
    ],
)
def test_each_gpu_gets_a_worker_that_sees_no_other(home, monkeypatch, device, workers, seen):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("memfeat.devices.unusable_gpu", lambda: "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,2,7")
    cells = plan_cells(grid(home), recipe(home, device=device))
    assert local_slots(cells, workers) == seen


def test_recurrent_models_train_on_the_cores_beside_a_gpu(home, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("memfeat.devices.unusable_gpu", lambda: "")
    cells = plan_cells(grid(home, aggregators=("bigru",)), recipe(home, device="auto"))
    assert local_slots(cells, 0) == [None] * cpu_cores()
    assert {str(training_device(cell.config)) for cell in cells} == {"cpu"}
    named = cells[0].config.model_copy(update={"device": "cuda:0"})
    assert training_device(named) == torch.device("cuda:0")


def mapped(pid: int, name: str) -> set[str]:
    """Return the files whose name contains `name` that a process has in its memory."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except FileNotFoundError:  # it has just ended
        return set()
    return {line.split(maxsplit=5)[5] for line in lines if name in line}


def test_workers_share_one_table_and_leave_no_file(home):
    seen: dict[int, set[str]] = {}

    def look(progress: GridProgress) -> None:
        assert len(list((home / "grid").glob(".*.part"))) == ("reading" not in progress.note)
        if "dev L1" in progress.note:
            for pid in descendants(os.getpid()):
                seen.setdefault(pid, set()).update(mapped(pid, "/grid/.features"))

    config = grid(home, aggregators=("bigru",), seeds=(0, 1), workers=2)
    made = recipe(home, max_epochs=6, **SMALL)
    run_ablation(config, plan_cells(config, made), on_progress=look)
    assert list((home / "grid").glob(".*")) == []
    tables = [files for files in seen.values() if files]
    assert len(tables) == 2
    assert tables[0] == tables[1]
    assert len(tables[0]) == 1


def test_a_table_is_given_up_before_the_next_is_made(home):
    for name in "bc":
        write_shard(home / name, spec(DIM), [video(i) for i in range(len(SPLITS))])
    counts = []
    config = grid(home, caches=("a", "b", "c"), aggregators=("avg",), baselines=("ridge",))
    run_ablation(
        config,
        plan_cells(config, recipe(home)),
        on_progress=lambda _: counts.append(len(list((home / "grid").glob(".*.part")))),
    )
    assert set(counts) == {0, 1}


def test_progress_adds_up_to_all_epochs_weighted_by_cost(home):
    told: list[GridProgress] = []
    rows = [row("wild", learning_rate=1e300), row("stopped", max_epochs=50, patience_epochs=1)]
    config = grid(home, rows=rows, aggregators=("avg", "bigru"), baselines=("ridge",))
    cells = plan_cells(config, recipe(home, max_epochs=3, **SMALL))
    run_ablation(config, cells, on_progress=told.append)
    # Two seeds of wild, avg and bigru, which costs 25; those of stopped; a baseline as an average.
    whole = 2 * (3 + 3 + 25 * 3) + 2 * 50 + 3
    assert {each.total for each in told} == {whole}
    done = [each.done for each in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, whole)
    # Each of the six models that do not fail is told about after each of its epochs.
    assert len(set(done)) > 6
    assert told[-1].note.startswith("9 of 9 models; ")
    assert any(
        re.search(r"models; bigru\+linear seed 1: dev L1 0\.\d{4}, SROCC ", t.note) for t in told
    )

    again: list[GridProgress] = []
    run_ablation(config, cells, on_progress=again.append)
    # What is finished is taken off; wild is tried again.
    assert (again[-1].done, again[-1].total) == (2 * 3, 2 * 3)
    assert again[-1].note.startswith("9 of 9 models")


def test_a_model_that_is_trained_again_from_the_start_does_not_set_progress_back(home):
    told: list[GridProgress] = []
    cells = plan_cells(grid(home, aggregators=("avg",)), recipe(home, max_epochs=4))
    counter = ProgressCounter(cells, told.append)
    for epoch in (0, 1, 2, 0, 1, 2, 3):
        report = EpochReport(0, epoch, 1e-4, 0.2, 0.2, None, None, best=False)
        counter.epoch(cells[0].config.run / "seed-0", report)
    assert [each.done for each in told] == [1, 2, 3, 3, 3, 3, 4]


def test_seeds_trained_in_parallel_write_what_they_write_one_after_another(home):
    config = TrainConfig(**recipe(home), cache=(home / "a",), aggregator=("avg",), seeds=(0, 1, 2))
    manifest, cache = read_manifest(home / "m.csv"), Cache.open(home / "a")
    tables = [cache.load([record.video_id for record in manifest.records])]
    runs = [
        train_seeds(config.model_copy(update={"run": home / "parallel"}), workers=2),
        train(tables, manifest.records, config.model_copy(update={"run": home / "in turn"})),
    ]
    written = [
        {path.relative_to(run.folder): path.read_bytes() for path in run.folder.rglob("*.*")}
        for run in runs
    ]
    different = {path for path in written[0] if written[0][path] != written[1].get(path)}
    assert written[0].keys() == written[1].keys()
    assert {path.name for path in different} == {"config.json", "provenance.json"}  # run, seconds
    assert runs[0].metrics == runs[1].metrics


def test_a_seed_that_cannot_be_trained_is_named_and_the_others_are_kept(home):
    (home / "run").mkdir()
    (home / "run" / "seed-1").write_text("a file where a folder should be")
    settings = recipe(home, cache=(home / "a",), aggregator=("avg",), seeds=(0, 1))
    with pytest.raises(TrainingError, match=r"^seed 1: cannot write to run folder .*seed-1"):
        train_seeds(TrainConfig(**settings, run=home / "run"), workers=2)
    assert (home / "run" / "seed-0" / "metrics.json").is_file()


FATAL = """
import os
import signal
import sys
from pathlib import Path
sys.path.insert(0, "tests")
import torch
from memfeat.models.aggregators import AGGREGATORS, BiGruPool
from test_ablation import grid, plan_cells, recipe, run_ablation

@AGGREGATORS.register("fatal")
class Fatal(BiGruPool):
    def __init__(self, dim, options):
        super().__init__(dim, options)
        if torch.initial_seed() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if torch.initial_seed() == 2:
            raise ArithmeticError("a bug")

if __name__ == "__main__":
    home = Path(sys.argv[1])
    config = grid(home, aggregators=("avg", "fatal"), seeds=(0, 1, 2), workers=2)
    run_ablation(config, plan_cells(config, recipe(home)))
"""


@pytest.mark.extras
def test_a_model_that_raises_or_kills_its_worker_fails_alone(home):
    script = home / "fatal.py"
    script.write_text(FATAL)
    subprocess.run([sys.executable, script, home], check=True, timeout=120)
    table = json.loads((home / "grid" / "ablation.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["avg+linear"]
    ((name, error),) = ((failed["name"], failed["error"]) for failed in table["failed"])
    assert name == "fatal+linear"
    killed, raised = error.split("; seed 2: ")
    assert killed.startswith("seed 1: its process died, perhaps for want of memory; run the same")
    assert raised == "ArithmeticError: a bug"
    finished = (home / "grid" / "cells" / "fatal+linear").glob("*/metrics.json")
    assert [path.parent.name for path in finished] == ["seed-0"]


def train_grid(home: Path, epochs: int, workers: int) -> None:
    long = {"max_epochs": epochs, "patience_epochs": 10**6} | SMALL
    rows = [row("one", "bigru", **long), row("two", "bigru", **long), row("quick")]
    config = grid(home, rows=rows, aggregators=(), workers=workers)
    run_ablation(config, plan_cells(config, recipe(home)))


def begin(home: Path, epochs: int, workers: int, until: str) -> tuple[BaseProcess, list[int]]:
    """Train the grid in another process; return it and its workers, when two `until` are there."""
    before = {*workers_of(os.getpid())}
    process = start(train_grid, home, epochs, workers, log=home / "log")
    assert eventually(lambda: len(list((home / "grid").rglob(until))) >= 2, seconds=120)
    pids = {*workers_of(os.getpid())} - before - {process.pid}
    return process, [pid for pid in pids if parent_of(pid) == parent_of(process.pid)]


def test_an_interrupt_leaves_no_worker_and_no_table(home):
    process, workers = begin(home, 10**6, 2, "seed-*/config.json")
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 1
    assert "KeyboardInterrupt" in (home / "log").read_text()
    assert len(workers) == 2
    assert eventually(lambda: not any(map(exists, workers)))
    assert list((home / "grid").glob(".features.*")) == []


def test_a_killed_worker_costs_no_cell(home):
    process, workers = begin(home, 20, 2, "seed-*/config.json")
    os.kill(workers[0], signal.SIGKILL)
    process.join(120)
    assert process.exitcode == 0
    table = json.loads((home / "grid" / "ablation.json").read_text())
    assert sorted(row["name"] for row in table["rows"]) == ["one", "quick", "two"]
    assert table["failed"] == []
    assert (home / "log").read_text() == ""


def test_after_a_kill_the_same_command_trains_only_what_is_missing(home):
    process, workers = begin(home, 20, 1, "metrics.json")
    process.kill()
    process.join()
    assert len(workers) == 1
    assert eventually(lambda: not any(map(exists, workers)))
    finished = {path.parent: path.stat() for path in (home / "grid").rglob("metrics.json")}
    assert 2 <= len(finished) < 9  # six seeds, three cells
    assert len(list((home / "grid").glob(".features.*"))) == 1
    train_grid(home, 20, 1)
    table = json.loads((home / "grid" / "ablation.json").read_text())
    assert sorted(row["name"] for row in table["rows"]) == ["one", "quick", "two"]
    assert list((home / "grid").glob(".features.*")) == []
    for folder, before in finished.items():
        after = (folder / "metrics.json").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# Folds


def test_rows_with_folds_are_compared_between_the_same_folds(home):
    known = read_manifest(home / "m.csv").records
    pairs = [r.model_copy(update={"group": f"g{i // 2}"}) for i, r in enumerate(known)]
    write_manifest(home / "m.csv", pairs)
    config = grid(
        home,
        split="dev",
        aggregators=("avg",),
        baselines=("ridge",),
        ensembles=({"name": "both", "members": ("avg+linear", "avg+ridge")},),
    )
    cells = plan_cells(config, recipe(home, folds=3))
    table = run_ablation(config, cells)
    assert (table["failed"], table["split"], table["n"]) == ([], "folds", 18)
    folders = {row["name"]: home / "grid" / row["run"] for row in table["rows"]}
    folds = read_folds(folders["avg+linear"])
    assert folds.fold.tolist() == read_folds(folders["avg+ridge"]).fold.tolist()
    groups = folds.group[:18]
    found = {}
    for row in table["rows"]:
        folder = folders[row["name"]]
        seeds = [read_predictions(folder / f"seed-{s}" / "predictions.csv") for s in row["seeds"]]
        seeds = seeds or [read_predictions(folder / "predictions.csv")]
        truth = seeds[0].score[:18]
        found[row["name"]] = np.stack([seed.prediction[:18] for seed in seeds])
        metrics = evaluate(truth, found[row["name"]], bootstrap=60, groups=groups)
        assert row["srocc"] == pytest.approx(metrics.srocc)
        assert row["srocc_interval"] == pytest.approx(metrics.srocc_interval)
        of_folds = [
            evaluate(truth[own], found[row["name"]][:, own], bootstrap=0).srocc
            for own in (folds.fold[:18] == number for number in (1, 2, 3))
        ]
        assert row["per_fold"] == pytest.approx(of_folds)
    for row in table["rows"]:
        if row["versus"]:
            difference = paired_difference(
                truth, found[row["name"]], found[table["best"]], bootstrap=60, groups=groups
            )
            assert row["versus"]["interval"] == pytest.approx(difference.interval)
    notes = " ".join(table["notes"])
    assert "Between 3 folds (draw 0): each video is predicted by a model that saw neither" in notes
    assert "The videos are of 9 groups by 'group', and intervals are over groups." in notes
    assert "in more than one split" not in notes
    models = {path: path.stat().st_mtime_ns for path in home.rglob("model.safetensors")}
    assert len(models) == 3 * (2 + 1)
    again = run_ablation(config, cells)
    assert again == table
    assert {path: path.stat().st_mtime_ns for path in models} == models
    for folder in ("grid", "grid/cells/avg+linear"):
        page = Path(write_report(home / folder)).read_text().lower()
        assert "between folds" in page
        assert "folds split" not in page
        assert "95 % interval over groups of videos" in page


def test_folds_are_of_all_rows_and_leave_no_dev_split_to_fit_weights_on(home):
    row = {"cache": "a", "aggregator": "avg", "head": "linear", "train": {"folds": 3}}
    with pytest.raises(ConfigError, match="its train may not set folds"):
        plan_cells(grid(home, rows=(row,)), recipe(home))
    two = ("avg+linear", "linear-avg+linear")
    fitted = grid(home, ensembles=({"name": "e", "members": two, "weights": "dev"},))
    with pytest.raises(ConfigError, match="'e' fits its weights on the dev split, and with folds"):
        plan_cells(fitted, recipe(home, folds=3))


def test_a_note_on_many_rows_names_a_few():
    row = {"kind": "model", "srocc": 0.01, "srocc_interval": [-0.1, 0.1]}
    rows = [row | {"name": f"system-{number}"} for number in range(40)]
    (note,) = table_notes(AblationConfig.model_construct(), "test", rows, [], None)
    assert note.startswith("The interval of system-0, system-1, system-2, system-3, system-4, ")
    assert "system-5 and 34 more includes zero" in note
