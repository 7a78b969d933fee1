import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from made_up import config, dataset, spec, videos
from scipy.stats import spearmanr

from memfeat.errors import CacheError, ConfigError, RunError, TrainingError, UnknownNameError
from memfeat.models import HEADS
from memfeat.runs import Run
from memfeat.training import evaluate_run, predict_run, score, train
from memfeat.training.seeds import git_commit


def contents(folder):
    """Every file's bytes, but for the one that may differ between identical runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


# Determinism


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_generators_say(
    tmp_path, monkeypatch
):
    made, labels = dataset()
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        torch.manual_seed(len(written))
        np.random.seed(len(written))
        train(made, labels, config("run", seeds=(3, 4)))
        written.append(contents(tmp_path / name / "run"))
    assert written[0] == written[1]
    assert {"config.json", "seed-3/model.safetensors", "seed-4/history.jsonl"} <= set(written[0])
    assert written[0]["seed-3/model.safetensors"] != written[0]["seed-4/model.safetensors"]


def test_the_callers_generators_and_threads_are_left_alone(tmp_path):
    made, labels = dataset()
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist()
    torch.manual_seed(1)
    np.random.seed(1)
    seen = []
    settings = config(tmp_path / "run", threads=threads + 1)
    run = train(made, labels, settings, on_epoch=lambda _: seen.append(torch.get_num_threads()))
    run.regressors()
    assert seen == [threads + 1] * 3
    assert torch.get_num_threads() == threads
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist()) == expected


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_memfeats_own_checkout_if_it_has_one(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    package = tmp_path / "memfeat" / "__init__.py"
    monkeypatch.setattr("memfeat.__file__", str(package))
    assert git_commit() is None
    git("init")
    assert git_commit() is None
    git("commit", "--allow-empty", "-m", "first")
    assert git_commit() == git("rev-parse", "HEAD")
    inner = tmp_path / "site-packages" / "memfeat" / "__init__.py"
    monkeypatch.setattr("memfeat.__file__", str(inner))
    assert git_commit() is None


# Several seeds, and going on where an earlier run left off


def reports(made, labels, settings):
    told = []
    run = train(made, labels, settings, on_epoch=told.append)
    return run, told


def test_more_seeds_are_added_without_training_the_others_again(tmp_path, monkeypatch):
    made, labels = dataset()
    for name in ("grown", "at_once"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "grown":
            train(made, labels, config("run", seeds=(0, 1)))
        _, told = reports(made, labels, config("run", seeds=(0, 1, 2)))
        assert {r.seed for r in told} == ({2} if name == "grown" else {0, 1, 2})
    assert contents(tmp_path / "grown") == contents(tmp_path / "at_once")


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_a_run_of_an_early_version_is_told_what_is_familiar_and_keeps_its_models(tmp_path, seeds):
    made, labels = dataset()
    settings = config(tmp_path / "run", seeds=seeds)
    train(made, labels, settings)
    whole = contents(tmp_path / "run")
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("model.*")}
    for path in (tmp_path / "run").rglob("familiar.safetensors"):
        path.unlink()
    assert train(made, labels, settings).familiar() is not None
    assert contents(tmp_path / "run") == whole
    assert {path: path.stat().st_mtime_ns for path in models} == models


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_complete_run_is_kept_as_it_is(tmp_path, seeds):
    made, labels = dataset()
    settings = config(tmp_path / "run", seeds=seeds)
    train(made, labels, settings)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    _, told = reports(made, labels, settings)
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_an_interrupted_run_is_incomplete_and_then_ends_like_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    made, labels = dataset()
    monkeypatch.chdir(tmp_path)
    settings = config("run", seeds=(0, 1))

    def interrupt(report):
        if (report.seed, report.epoch) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, labels, settings, on_epoch=interrupt)
    with pytest.raises(RunError, match="not a complete run"):
        Run.load(tmp_path / "run")
    _, told = reports(made, labels, settings)
    assert {r.seed for r in told} == {1}
    resumed = contents(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    train(made, labels, settings)
    assert contents(tmp_path / "run") == resumed


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"learning_rate": 0.5}, "learning_rate is 0.003 there and 0.5 here"),
        ({}, {"aggregator": "avg"}, "aggregator is 'bigru' there and 'avg' here"),
        (
            {},
            {"aggregators": {"bigru": {"hidden": 4}}},
            "aggregators is {'bigru': {'hidden': 3, .* there and {'bigru': {'hidden': 4,",
        ),
        ({"seeds": (0, 1)}, {"seeds": (0, 1, 2), "monitor": "plcc"}, "monitor is 'l1' there"),
        ({}, {"seeds": (0, 1)}, r"seeds is \[0\] there and \[0, 1\] here"),
        ({"seeds": (0, 1)}, {}, r"seeds is \[0, 1\] there and \[0\] here"),
    ],
)
def test_a_folder_with_other_settings_is_refused_before_training(tmp_path, first, second, message):
    made, labels = dataset()
    train(made, labels, config(tmp_path / "run", **first, max_epochs=1))
    before = contents(tmp_path)
    with pytest.raises(RunError, match=message) as caught:
        train(made, labels, config(tmp_path / "run", **second, max_epochs=1))
    assert "another folder with --run, or delete" in str(caught.value)
    assert contents(tmp_path) == before


def test_a_folder_trained_on_other_data_is_refused(tmp_path):
    made, labels = dataset()
    settings = config(tmp_path / "run", aggregator="avg")
    train(made, labels, settings)
    changed = [labels[0].model_copy(update={"score": 0.123}), *labels[1:]]
    other_spec = dataclasses.replace(made, spec=spec(6, weights_sha256="1" * 64))
    other_values = dataclasses.replace(made, values=made.values + np.float16(1))
    for table_, labels_, message in (
        (made, changed, "its videos, scores or features of train and dev differ"),
        (other_values, labels, "its videos, scores or features of train and dev differ"),
        (other_spec, labels, "its features are of made-up with RANDOM WEIGHTS"),
    ):
        with pytest.raises(RunError, match=message):
            train(table_, labels_, settings)


def test_several_seeds_are_summed_up_by_mean_spread_and_mean_prediction(tmp_path):
    made, labels = dataset(dev=8)
    run = train(made, labels, config(tmp_path / "run", seeds=(0, 1, 5), head="linear"))
    members = [Run.load(folder) for folder in run.members]
    assert [member.folder.name for member in members] == ["seed-0", "seed-1", "seed-5"]
    each = [member.predictions() for member in members]
    dev = np.array(each[0].split) == "dev"
    srocc = [spearmanr(p.score[dev], p.prediction[dev]).statistic for p in each]
    mse = [np.mean((p.score[dev] - p.prediction[dev]) ** 2) for p in each]
    metrics = run.metrics["dev"]
    assert metrics["srocc"] == pytest.approx(np.mean(srocc))
    assert metrics["srocc_std"] == pytest.approx(np.std(srocc, ddof=1))
    assert metrics["mse"] == pytest.approx(np.mean(mse))
    assert metrics["mse_std"] == pytest.approx(np.std(mse, ddof=1))
    assert metrics["seeds"] == [0, 1, 5]
    mean = np.mean([p.prediction for p in each], axis=0)
    np.testing.assert_allclose(run.predictions().prediction, mean, atol=1e-15)
    assert len(run.regressors()) == 3


# Input that cannot be trained on


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_split_without_scored_videos_is_refused(tmp_path, split):
    made, labels = dataset()
    without = [record for record in labels if record.split != split]
    withheld = [
        record.model_copy(update={"score": None}) if record.split == split else record
        for record in labels
    ]
    count = sum(record.split == split for record in labels)
    for labels_, message in (
        (without, f"of the {len(without)} videos with features, the {split} split has no video"),
        (withheld, f"the {split} split has {count} videos, none with a score"),
        ([], "of the 0 videos with features, the train split has no video"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(made, labels_, config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_videos_with_withheld_scores_are_predicted_but_not_trained_on(tmp_path):
    made, labels = dataset()
    hidden = {0, 14, 20}
    withheld = [
        record.model_copy(update={"score": None}) if i in hidden else record
        for i, record in enumerate(labels)
    ]
    one = train(made, withheld, config(tmp_path / "one"))
    kept = [i for i in range(len(labels)) if i not in hidden]
    other = train(made, [labels[i] for i in kept], config(tmp_path / "other"))
    predicted = one.predictions()
    assert np.flatnonzero(np.isnan(predicted.score)).tolist() == sorted(hidden)
    assert np.isfinite(predicted.prediction).all()
    files = [contents(run.folder) for run in (one, other)]
    assert files[0]["model.safetensors"] == files[1]["model.safetensors"]
    assert one.metrics == other.metrics


def test_videos_without_a_record_and_records_without_features_go_unused(tmp_path):
    made, labels = dataset()
    stranger = labels[0].model_copy(update={"video_id": "stranger"})
    run = train(made, [stranger, *labels[1:]], config(tmp_path / "run"))
    assert run.predictions().video_id == made.video_ids[1:]


def test_features_that_are_no_numbers_are_refused_before_training_with_advice(tmp_path):
    made, labels = dataset()
    made.values[5, 2] = np.nan
    with pytest.raises(CacheError, match=r"features of video 'v\d' are damaged: .*nan.*repair"):
        train(made, labels, config(tmp_path / "run", aggregator="avg"))
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_written_shows_before_training(tmp_path):
    made, labels = dataset()
    (tmp_path / "run").write_text("a file")
    told = []
    with pytest.raises(RunError, match=r"cannot write to run folder .*run: .*another with --run"):
        train(made, labels, config(tmp_path / "run"), on_epoch=told.append)
    assert told == []


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device 'gpu' is not one of: auto, cpu, cuda"),
        ("mps", "device 'mps' is not one of: auto, cpu, cuda"),
        ("cuda:99", r"device 'cuda:99' is not there: torch sees \d+ GPUs"),
    ],
)
def test_a_device_that_is_not_there_is_refused(tmp_path, device, message):
    made, labels = dataset()
    with pytest.raises(ConfigError, match=message):
        train(made, labels, config(tmp_path / "run", device=device))


def test_names_and_options_are_checked_before_anything_is_written(tmp_path):
    made, labels = dataset()
    for changes, error, message in (
        ({"aggregator": "nope"}, UnknownNameError, "unknown aggregator 'nope'.*bigru-pool"),
        ({"head": "nope"}, UnknownNameError, "unknown head 'nope'.*linear, mlp"),
        ({"heads": {"mpl": {}}}, UnknownNameError, "unknown head 'mpl'. Did you mean 'mlp'"),
        ({"heads": {"mlp": {"hidden": [0]}}}, ConfigError, "head 'mlp': hidden.0 = 0 is not"),
    ):
        with pytest.raises(error, match=message):
            train(made, labels, config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", list(HEADS))
def test_the_config_written_holds_every_option_of_the_model_used(tmp_path, head):
    made, labels = dataset()
    train(made, labels, config(tmp_path / "run", aggregator="bigru-pool", head=head, max_epochs=1))
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["aggregators"] == {"bigru-pool": {"hidden": 3, "layers": 2, "dropout": 0.2}}
    options = {"hidden": [6, 4], "dropout": 0.0} if head == "mlp" else {}
    assert written["heads"] == {head: options}


# Evaluation of a finished run


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_evaluating_a_run_on_its_own_data_repeats_its_metrics(tmp_path, seeds):
    made, labels = dataset()
    run = train(made, labels, config(tmp_path / "run", seeds=seeds))
    metrics = evaluate_run(run, made, labels)
    assert list(metrics) == ["train", "dev", "test"]
    for split, found in metrics.items():
        for name, value in json.loads(json.dumps(found.as_dict())).items():
            assert value == pytest.approx(run.metrics[split][name], abs=1e-6), (split, name)


def test_a_run_is_evaluated_on_another_datasets_videos(tmp_path):
    made, labels = dataset(train=60, dev=20)
    run = train(made, labels, config(tmp_path / "run"))
    other, other_labels = dataset(0, 0, 30, seed=9)
    metrics = evaluate_run(run, other, other_labels)
    predicted = score(run.regressors()[0], videos(other))
    truth = np.array([record.score for record in other_labels])
    assert list(metrics) == ["test"]
    assert metrics["test"].n == 30
    assert metrics["test"].mse == pytest.approx(np.mean((truth - predicted) ** 2))
    assert metrics["test"].bias == pytest.approx(np.mean(predicted - truth))


def test_a_run_refuses_features_of_another_encoder_naming_field_and_values(tmp_path):
    made, labels = dataset()
    run = train(made, labels, config(tmp_path / "run", max_epochs=1))
    other = dataclasses.replace(made, spec=spec(6, activation="quickgelu"))
    with pytest.raises(RunError, match="activation is 'quickgelu', not 'none'"):
        evaluate_run(run, other, labels)
    with pytest.raises(TrainingError, match="none of the 0 videos has features among the 24"):
        predict_run(run, made, [])
