"""Losses and options beside the paper's, each against a computation of its own."""

import json

import numpy as np
import pytest
import torch
from made_up import config, contents, dataset, table, videos

from memfeat.errors import ConfigError, RunError, TrainingError
from memfeat.models import build_regressor
from memfeat.models.regressor import Padded, Regressor, Standardise
from memfeat.runs import Run, read_predictions
from memfeat.training import predict_run, train
from memfeat.training.batches import Shuffle, epoch_batches
from memfeat.training.losses import HUBER_DELTA, LOSSES


def drawn(weighted: bool):
    generator = np.random.default_rng(3)
    predicted, truth = generator.random(9), generator.random(9)
    truth[4] = truth[7]  # a pair of equal scores
    return predicted, truth, generator.random(9) * 2 if weighted else None


def by_hand(name, predicted, truth, weights):
    """Loop over videos and pairs."""
    w = np.ones(len(truth)) if weights is None else weights
    error = np.abs(predicted - truth)
    each = {
        "l1": error,
        "mse": error**2,
        "huber": np.where(
            error < HUBER_DELTA, error**2 / 2, HUBER_DELTA * (error - HUBER_DELTA / 2)
        ),
    }
    if name in each:
        return np.mean(w * each[name])
    if name == "ccc":
        covariance = np.cov(predicted, truth, aweights=w, ddof=0)
        gap = np.average(predicted, weights=w) - np.average(truth, weights=w)
        return 1 - 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + gap**2)
    short, total = 0.0, 0.0
    for i in range(len(truth)):
        for j in range(len(truth)):
            if truth[i] > truth[j]:
                missing = (truth[i] - truth[j]) - (predicted[i] - predicted[j])
                short += w[i] * w[j] * max(0.0, missing)
                total += w[i] * w[j]
    return np.mean(w * error) + short / total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_is_what_its_definition_gives(name, weighted):
    values = drawn(weighted)
    tensors = [None if each is None else torch.from_numpy(each) for each in values]
    assert float(LOSSES[name](*tensors)) == pytest.approx(by_hand(name, *values), rel=1e-12)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_loss_has_a_gradient_where_all_predictions_and_scores_are_alike(name):
    predicted = torch.full((4,), 0.5, requires_grad=True)
    LOSSES[name](predicted, torch.full((4,), 0.5), None).backward()
    assert torch.isfinite(predicted.grad).all()


@pytest.fixture(scope="module")
def data():
    return dataset(40, 12, 12)


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": name} for name in LOSSES if name != "l1"),
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"standardise": True},
        {"heads": {"mlp": {"hidden": [6, 4], "dropout": 0.5}}},
    ],
)
def test_an_option_changes_what_is_learnt_and_its_run_is_read_back(tmp_path, data, changes):
    made, labels = data
    plain = train(made, labels, config(tmp_path / "plain", aggregator="avg"))
    run = train(made, labels, config(tmp_path / "changed", aggregator="avg", **changes))
    name = "predictions.csv"
    assert (run.folder / name).read_bytes() != (plain.folder / name).read_bytes()
    (scored,) = predict_run(Run.load(run.folder), made, labels)
    written = read_predictions(run.folder / name)
    np.testing.assert_allclose(scored.prediction, written.prediction, atol=1e-6)


def test_options_that_are_off_change_no_byte_of_what_is_learnt(tmp_path, data):
    made, labels = data
    plain = contents(train(made, labels, config(tmp_path / "a")).folder)
    off = {"loss": "l1", "optimizer": "adam", "standardise": False, "weight_by_annotations": False}
    same = contents(train(made, labels, config(tmp_path / "b", **off)).folder)
    for files in (plain, same):
        assert b'"inputs.' not in files["model.safetensors"]  # names of tensors are in its header
        del files["config.json"]  # which names the run folder
    assert plain == same


def test_a_standardised_model_is_a_plain_one_on_standardised_frames():
    torch.manual_seed(0)
    plain = build_regressor(6, "bigru", "linear", {"hidden": 3, "layers": 2}).eval()
    frames, lengths = torch.randn(4, 5, 6) * 3 + 1, torch.tensor([5, 3, 2, 1])
    mean, scale = torch.randn(6), torch.rand(6) + 0.5
    scale[2] = 0  # a number that is the same in all training videos
    standardise = Standardise(6)
    standardise.set(mean, scale)
    both = Regressor(plain.aggregators, plain.head, [standardise]).eval()
    scale[2] = 1
    expected = plain(Padded((frames - mean) / scale, lengths)).scores
    torch.testing.assert_close(both(Padded(frames, lengths)).scores, expected)


def test_standardising_takes_its_statistics_from_the_training_videos_alone(tmp_path, data):
    made, labels = data
    settings = config(tmp_path / "run", aggregator="avg", standardise=True, max_epochs=1)
    (regressor,) = train(made, labels, settings).regressors()
    means = np.stack([made.frames(i).mean(axis=0, dtype=np.float64) for i in range(40)])
    np.testing.assert_allclose(regressor.inputs[0].mean, means.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(regressor.inputs[0].scale, means.std(axis=0), rtol=1e-5)


def test_equal_numbers_of_answers_weigh_nothing_and_unknown_ones_are_refused(tmp_path, data):
    made, labels = data
    settings = config(tmp_path / "run", aggregator="avg", weight_by_annotations=True, max_epochs=30)
    with pytest.raises(TrainingError, match=r"40 of 40 training videos have no n_annotations"):
        train(made, labels, settings)
    alike = [r.model_copy(update={"n_annotations": 20}) for r in labels]
    plain = train(made, alike, config(tmp_path / "plain", aggregator="avg", max_epochs=30))
    same = train(made, alike, settings.model_copy(update={"run": tmp_path / "alike"}))
    expected = read_predictions(plain.folder / "predictions.csv").prediction
    found = read_predictions(same.folder / "predictions.csv").prediction
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_weights_go_with_their_videos_into_batches():
    made = videos(table([np.zeros((2, 3))] * 7))
    values = np.arange(7.0)
    for batch in epoch_batches(made, values, Shuffle(0, frames=True), 1, 3, weights=10 * values):
        assert torch.equal(batch.weights, 10 * batch.scores)
        assert batch.weights.dtype == torch.float32


def test_standardising_all_tokens_of_a_frame_is_refused(tmp_path, data):
    made, labels = data
    settings = config(tmp_path / "run", aggregator="spatial", standardise=True)
    with pytest.raises(ConfigError, match="class token"):
        train(made, labels, settings)


def test_a_run_made_before_there_was_an_option_is_still_the_same_run(tmp_path, data):
    made, labels = data
    run = train(made, labels, config(tmp_path / "run"))
    path = run.folder / "config.json"
    settings = json.loads(path.read_text())
    for name in ("loss", "optimizer", "standardise", "weight_by_annotations"):
        del settings[name]
    del settings["heads"]["mlp"]["dropout"]
    path.write_text(json.dumps(settings))
    before = (run.folder / "model.safetensors").stat().st_mtime_ns
    train(made, labels, config(tmp_path / "run"))
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RunError, match="loss is 'l1' there and 'mse' here"):
        train(made, labels, config(tmp_path / "run", loss="mse"))
