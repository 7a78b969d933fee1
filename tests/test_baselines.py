import json

import numpy as np
import pytest
from made_up import config, dataset, held_out_srocc, records, splits, table
from safetensors.torch import load_file
from scipy.stats import spearmanr

from memfeat.errors import RunError, TrainingError, UnknownNameError
from memfeat.runs import Run, read_predictions
from memfeat.training import Examples, evaluate_run, predict_run
from memfeat.training.baselines import BASELINES, fit_baseline, run_baseline


def linear(time, generator):
    """A video whose score is linear in the average of its frames, plus a little noise."""
    frames = generator.standard_normal((time, 6)) + generator.standard_normal(6)
    rule = np.array([0.05, -0.08, 0.0, 0.03, 0.0, 0.02])
    return frames, float(np.clip(0.5 + frames.mean(0) @ rule + generator.normal(0, 0.03), 0, 1))


def bowl(time, generator):
    """A video whose score is high in the middle and low on either side, in no way linear."""
    frames = generator.standard_normal((time, 2)) * 0.1 + generator.uniform(-2, 2, 2)
    return frames, float(np.exp(-np.square(frames.mean(0)).sum()))


def ridge_by_hand(features, scores, train, alpha):
    """Centred and scaled by the train split, then (X'X + alpha I) w = X'y."""
    x = (features - features[train].mean(0)) / features[train].std(0)
    y_mean = scores[train].mean()
    gram = x[train].T @ x[train] + alpha * np.eye(x.shape[1])
    return y_mean + x @ np.linalg.solve(gram, x[train].T @ (scores[train] - y_mean))


@pytest.mark.parametrize("monitor", ["l1", "srocc"])
def test_ridge_is_the_closed_form_fitted_on_train_with_the_penalty_best_on_dev(monitor):
    made, labels = dataset(40, 30, 20, rule=linear)
    features = np.stack([made.frames(i).astype(np.float64).mean(0) for i in range(90)])
    scores = np.array([record.score for record in labels])
    train, dev = np.arange(40), np.arange(40, 70)
    candidates = {
        alpha: ridge_by_hand(features, scores, train, alpha)
        for alpha in BASELINES.get("ridge").grid["alpha"]
    }

    def loss(alpha):
        predicted = candidates[alpha][dev]
        if monitor == "l1":
            return np.abs(predicted - scores[dev]).mean()
        return -spearmanr(predicted, scores[dev]).statistic

    fitted = fit_baseline("ridge", Examples.join(made, labels), monitor=monitor)
    best = min(candidates, key=loss)
    assert fitted.hyperparameters == {"alpha": best}
    np.testing.assert_allclose(fitted.predictions.prediction, candidates[best], atol=1e-8)
    assert fitted.predictions.video_id == made.video_ids


def test_both_baselines_learn_a_linear_rule():
    made, labels = dataset(80, 40, 60, rule=linear)
    for name in BASELINES:
        fitted = fit_baseline(name, Examples.join(made, labels))
        assert held_out_srocc(fitted.predictions) > 0.85, name


def test_svr_learns_what_ridge_cannot():
    made, labels = dataset(150, 60, 80, rule=bowl)
    assert held_out_srocc(fit_baseline("svr", Examples.join(made, labels)).predictions) > 0.85
    assert abs(held_out_srocc(fit_baseline("ridge", Examples.join(made, labels)).predictions)) < 0.4


@pytest.mark.parametrize("name", list(BASELINES))
def test_test_scores_have_no_influence(name):
    made, labels = dataset(30, 20, 20, rule=linear)
    changed = [r.model_copy(update={"score": 0.0}) if r.split == "test" else r for r in labels]
    one, other = (
        fit_baseline(name, Examples.join(made, each)).predictions for each in (labels, changed)
    )
    np.testing.assert_array_equal(one.prediction, other.prediction)


@pytest.mark.parametrize("name", list(BASELINES))
def test_constant_scores_and_withheld_ones_are_no_obstacle(name):
    generator = np.random.default_rng(0)
    made = table([generator.standard_normal((1, 4)) for _ in range(9)])
    labels = records([0.5] * 7 + [None, None], splits(4, 3, 2))
    predicted = fit_baseline(name, Examples.join(made, labels)).predictions
    np.testing.assert_allclose(predicted.prediction, 0.5, atol=0.11)
    assert np.isnan(predicted.score[7:]).all()


def test_an_empty_split_and_an_unknown_name_are_refused():
    made, labels = dataset()
    with pytest.raises(TrainingError, match="the dev split has no video"):
        fit_baseline("ridge", Examples.join(made, [r for r in labels if r.split != "dev"]))
    with pytest.raises(UnknownNameError, match=r"unknown baseline 'rigde'. Did you mean 'ridge'"):
        fit_baseline("rigde", Examples.join(made, labels))


def test_a_baselines_run_folder_holds_scores_and_how_they_came_about(tmp_path):
    made, labels = dataset(30, 20, 20, rule=linear)
    settings = config(tmp_path / "run", head="ridge")
    run_baseline(Examples.join(made, labels), settings)
    fitted = fit_baseline("ridge", Examples.join(made, labels))
    predicted = read_predictions(tmp_path / "run" / "predictions.csv")
    np.testing.assert_array_equal(predicted.prediction, fitted.predictions.prediction)
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["hyperparameters"] == fitted.hyperparameters
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["srocc"] == pytest.approx(held_out_srocc(predicted))


@pytest.mark.parametrize("name", ["ridge", "svr"])
def test_a_kept_baseline_scores_as_scikit_learn_does(tmp_path, name):
    made, labels = dataset(30, 20, 20, rule=linear)
    examples = Examples.join([made, made], labels)
    settings = config(tmp_path / "run", head=name, cache=["a", "b"], aggregator=["avg", "avg"])
    run_baseline(examples, settings)
    run = Run.load(settings.run)
    (scored,) = predict_run(run, [made, made], labels)
    expected = read_predictions(settings.run / "predictions.csv")
    np.testing.assert_allclose(scored.prediction, expected.prediction, rtol=0, atol=1e-12)
    found = evaluate_run(run, [made, made], labels)["test"]
    assert found.srocc == run.metrics["test"]["srocc"]
    assert "support" not in load_file(settings.run / "model.safetensors") or name == "svr"


def test_a_kept_baseline_of_another_width_is_refused(tmp_path):
    made, labels = dataset(30, 20, 20, rule=linear)
    run_baseline(Examples.join(made, labels), config(tmp_path / "run", head="ridge"))
    path = tmp_path / "run" / "cache_spec.json"
    path.write_text(path.read_text().replace('"dim": 6', '"dim": 7'))
    with pytest.raises(RunError, match=r"does not hold the ridge baseline on 7-d features"):
        Run.load(tmp_path / "run").regressors()


def test_a_finished_baseline_is_kept_until_its_data_change(tmp_path):
    made, labels = dataset(30, 20, 20, rule=linear)
    settings = config(tmp_path / "run", head="ridge")
    run_baseline(Examples.join(made, labels), settings)
    times = {path: path.stat().st_mtime_ns for path in settings.run.iterdir()}
    run_baseline(Examples.join(made, labels), settings)
    assert {path: path.stat().st_mtime_ns for path in settings.run.iterdir()} == times
    before = (settings.run / "predictions.csv").read_bytes()
    changed = [labels[0].model_copy(update={"score": 0.987}), *labels[1:]]
    run_baseline(Examples.join(made, changed), settings)
    assert (settings.run / "predictions.csv").read_bytes() != before
