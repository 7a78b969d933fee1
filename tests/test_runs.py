import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up import config, dataset, spec, videos
from scipy.stats import pearsonr, spearmanr

from memfeat.errors import RunError
from memfeat.models import build_regressor
from memfeat.runs import (
    Predictions,
    Run,
    begin_run,
    finish_seed,
    is_complete,
    read_predictions,
    split_metrics,
    write_scores,
)
from memfeat.runs.predictions import write_predictions
from memfeat.training import resolve_options, score, train

SPLITS = ("train",) * 3 + ("dev",) * 4 + ("test",) * 2
TRUTH = np.array([0.1, 0.5, 0.9, 0.2, 0.4, np.nan, 0.6, np.nan, np.nan])
PREDICTED = np.array([0.2, 0.4, 0.8, 0.3, 0.1, 0.5, 0.7, 0.6, 0.4])


def predictions(prediction=PREDICTED):
    return Predictions(tuple(f"v{i}" for i in range(9)), SPLITS, TRUTH, np.asarray(prediction))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one seed, and one of several; the tests change copies of them."""
    folder = tmp_path_factory.mktemp("runs")
    made, labels = dataset()
    train(made, labels, config(folder / "one", max_epochs=1))
    train(made, labels, config(folder / "several", max_epochs=1, seeds=(0, 1)))
    return folder


@pytest.fixture
def one(trained, tmp_path):
    return Run.load(shutil.copytree(trained / "one", tmp_path / "one"))


@pytest.fixture
def several(trained, tmp_path):
    return Run.load(shutil.copytree(trained / "several", tmp_path / "several"))


ROWS = st.lists(
    st.tuples(
        st.text(
            st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\."),
            min_size=1,
            max_size=50,
        ),
        st.sampled_from(["train", "dev", "test"]),
        st.none() | st.floats(0, 1),
        st.floats(0, 1),
    ),
    min_size=1,
    unique_by=lambda row: row[0],
)


@given(ROWS)
def test_predictions_read_back_exactly(tmp_path_factory, rows):
    ids, split, truth, predicted = zip(*rows, strict=True)
    scores = np.array([np.nan if value is None else value for value in truth])
    path = tmp_path_factory.getbasetemp() / "predictions.csv"
    write_predictions(path, Predictions(ids, split, scores, np.array(predicted)))
    found = read_predictions(path)
    assert (found.video_id, found.split) == (ids, split)
    np.testing.assert_array_equal(found.score, scores)
    np.testing.assert_array_equal(found.prediction, predicted)


def test_a_withheld_score_is_an_empty_field(tmp_path):
    write_scores(tmp_path, predictions(), bootstrap=0)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "video_id,split,score,prediction"
    assert lines[1] == "v0,train,0.1,0.2"
    assert lines[6] == "v5,dev,,0.5"


def test_metrics_are_those_of_each_splits_scored_videos(tmp_path):
    write_scores(tmp_path, predictions(), bootstrap=50)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["train", "dev"]
    truth, predicted = TRUTH[[3, 4, 6]], PREDICTED[[3, 4, 6]]
    assert metrics["dev"]["n"] == 3
    assert metrics["dev"]["plcc"] == pytest.approx(pearsonr(truth, predicted).statistic)
    assert metrics["dev"]["srocc"] == pytest.approx(spearmanr(truth, predicted).statistic)
    assert metrics["dev"]["mse"] == pytest.approx(np.mean((truth - predicted) ** 2))
    assert metrics["dev"]["bias"] == pytest.approx(np.mean(predicted - truth))


def test_a_seed_with_undefined_correlations_leaves_their_mean_undefined_with_the_reason():
    metrics = split_metrics([predictions(), predictions(np.full(9, 0.5))], bootstrap=0)["train"]
    assert metrics.srocc is None
    assert metrics.plcc is None
    assert "predictions are constant" in metrics.undefined
    errors = [(PREDICTED[:3] - TRUTH[:3]) ** 2, (0.5 - TRUTH[:3]) ** 2]
    assert metrics.mse == pytest.approx(np.mean(errors))


def test_a_loaded_run_knows_its_settings_features_and_sources(one, trained):
    run = Run.load(one.folder)
    settings = config(trained / "one", max_epochs=1)
    assert run.config == resolve_options(settings)
    assert run.specs == (spec(6),)
    assert run.members == (one.folder,)
    assert run.sources() == [
        "features: made-up with RANDOM WEIGHTS: its features carry no learned content (6-d)",
        "scores: made up for a test",
    ]
    assert run.provenance["datasets"] == ["made up for a test"]
    assert set(run.provenance["versions"]) >= {"memfeat", "torch", "python"}


def test_loaded_models_repeat_the_runs_predictions(several):
    made, _ = dataset()
    scores = [score(regressor, videos(made)) for regressor in Run.load(several.folder).regressors()]
    np.testing.assert_allclose(np.mean(scores, axis=0), several.predictions().prediction, atol=1e-7)
    assert not any(regressor.training for regressor in several.regressors())


def test_loading_models_draws_nothing_from_the_global_generator(one):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one.regressors()
    assert torch.equal(torch.rand(1), expected)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"there is no run folder .*nowhere"):
        Run.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"not a complete run: it holds no metrics.json"):
        Run.load(tmp_path)


def test_a_run_is_complete_only_once_its_metrics_are_written(tmp_path):
    settings = config(tmp_path / "run")
    regressor = build_regressor(6, "avg", "linear")
    begin_run(settings, [spec(6)])
    with pytest.raises(ValueError, match="JSON"):
        finish_seed(settings, [], regressor, predictions(), {"seconds": np.nan})
    assert not is_complete(settings.run)
    finish_seed(settings, [], regressor, predictions(), {"seconds": 1.0})
    assert is_complete(settings.run)
    begin_run(settings, [spec(6)])
    assert not is_complete(settings.run)


def test_a_run_without_one_of_its_seeds_is_refused(several):
    (several.folder / "seed-1" / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"several is incomplete: .*seed-1 holds no metrics.json"):
        Run.load(several.folder)


@pytest.mark.parametrize(
    "name", ["config.json", "cache_spec.json", "provenance.json", "metrics.json"]
)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"run": ', "is damaged: Expecting value"),
        (b"\xff\xfe", "is damaged: 'utf-8' codec can't decode"),
        (b"[1, 2]", r"is damaged: it holds '\[1, 2\]', not an object"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(one, name, content, message):
    (one.folder / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} {message}.*delete the run folder and train again"):
        Run.load(one.folder)


def test_a_setting_that_this_version_does_not_know_is_named(one):
    path = one.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"learning_rte": 1}))
    with pytest.raises(RunError, match=r"config.json: unknown setting 'learning_rte'"):
        Run.load(one.folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "starts with '', not 'video_id,split,score,prediction'"),
        ("id,score\n", "starts with 'id,score', not"),
        ("video_id,split,score,prediction\nv,dev,0.5\n", "is damaged: not enough values"),
        ("video_id,split,score,prediction\nv,dev,0.5,high\n", "is damaged: could not convert"),
        ("video_id,split,score,prediction\nv,dev,0.5,nan\n", "'nan' is not a finite number"),
        ("video_id,split,score,prediction\nv,val,0.5,1\n", "'val' is not a split"),
        ("video_id,split,score,prediction\nv,dev,5,1\n", r"a score is not in \[0, 1\]"),
        ("video_id,split,score,prediction\nv,dev,,1\nv,dev,,1\n", "it holds a video twice"),
        ("video_id,split,score,prediction\na/b,dev,,1\n", "id 'a/b' is not a plain name"),
    ],
)
def test_damaged_predictions_are_refused(one, content, message):
    (one.folder / "predictions.csv").write_text(content)
    with pytest.raises(RunError, match=message):
        one.predictions()


def believe(folder):
    """Take away the hash that a checkpoint is checked by, as an author of forgeries would."""
    path = folder / "provenance.json"
    content = json.loads(path.read_text())
    del content["model_sha256"]
    path.write_text(json.dumps(content))


def test_one_changed_weight_is_found(one):
    path = one.folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"is not the checkpoint .*SHA-256 is in provenance.json"):
        one.regressors()


def test_settings_that_name_a_model_beyond_memory_are_refused_before_it_is_made(one):
    path = one.folder / "config.json"
    content = json.loads(path.read_text())
    content["aggregators"]["bigru"]["hidden"] = 10**6
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"does not hold the weights of bigru\+mlp.*size mismatch"):
        Run.load(one.folder).regressors()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("metrics.json", {"dev": 3}, r"'dev' is 3"),
        (
            "metrics.json",
            {"val": {}},
            r"'val.* is 'val': Input should be 'train', 'dev', 'test' or 'folds'",
        ),
        ("provenance.json", {"datasets": "x"}, r"'datasets' is 'x'"),
        ("provenance.json", {"versions": {"a\x1b": "1"}}, r"it holds a control character"),
    ],
)
def test_files_that_hold_something_else_than_expected_are_refused(one, name, change, message):
    path = one.folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=rf"{name} is damaged: .*{message}"):
        Run.load(one.folder)


def test_a_truncated_checkpoint_is_refused(one):
    path = one.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"model.safetensors is not the checkpoint that its train"):
        one.regressors()
    believe(one.folder)
    with pytest.raises(RunError, match=r"cannot read checkpoint .*model.safetensors"):
        one.regressors()
    path.unlink()
    with pytest.raises(RunError, match=r"cannot read checkpoint .*model.safetensors"):
        one.regressors()


@pytest.mark.parametrize("changes", [{"aggregator": "transformer"}, {"head": "linear"}])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, one, changes):
    made, labels = dataset()
    other = train(made, labels, config(tmp_path / "other", max_epochs=1, **changes))
    (one.folder / "model.safetensors").write_bytes(
        (other.folder / "model.safetensors").read_bytes()
    )
    believe(one.folder)
    with pytest.raises(RunError, match=r"does not hold the weights of bigru\+mlp on 6-d features"):
        one.regressors()


def test_a_checkpoint_for_features_of_another_width_is_refused(one):
    path = one.folder / "cache_spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dim": 7}))
    with pytest.raises(RunError, match=r"weights of bigru\+mlp on 7-d features"):
        Run.load(one.folder).regressors()
