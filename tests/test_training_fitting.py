import json

import numpy as np
import pytest
import torch
from made_up import config, dataset, held_out_srocc, marked_moments, records, splits, table

from memfeat.devices import CPU
from memfeat.errors import TrainingError
from memfeat.models import AGGREGATORS, build_regressor
from memfeat.runs import is_complete
from memfeat.training import (
    BestEpoch,
    DevResult,
    Examples,
    fit,
    resolve_options,
    train,
    train_seed,
)
from memfeat.training.baselines import fit_baseline


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def noise(time, generator):
    """A video whose score has nothing to do with its frames."""
    return generator.standard_normal((time, 6)), float(generator.uniform(0, 1))


def test_the_learning_rate_of_epochs_0_5_and_10_is_the_papers(tmp_path):
    made, labels = dataset()
    settings = config(
        tmp_path / "run", aggregator="avg", learning_rate=1e-4, max_epochs=11, patience_epochs=99
    )
    rates = [epoch["learning_rate"] for epoch in history(train(made, labels, settings).folder)]
    expected = [1e-4] * 5 + [9.5e-5] * 5 + [9.025e-5]
    assert rates == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rate", [1e-4, 3e-3])
def test_adams_first_step_moves_weights_by_the_learning_rate(tmp_path, rate):
    made, labels = dataset()
    settings = config(
        tmp_path / "run", aggregator="avg", learning_rate=rate, max_epochs=1, batch_size=99
    )
    regressor = train(made, labels, settings).regressors()[0]
    torch.manual_seed(0)
    start = build_regressor(6, "avg", "mlp", {}, {"hidden": [6, 4]})
    moved = torch.cat(
        [
            (new - old).abs().flatten()
            for new, old in zip(regressor.parameters(), start.parameters(), strict=True)
        ]
    )
    assert moved.max().item() == pytest.approx(rate, rel=1e-2)


@pytest.mark.parametrize("monitor", ["l1", "srocc", "plcc"])
def test_training_stops_five_epochs_after_the_best_which_is_restored(tmp_path, monitor):
    made, labels = dataset(rule=noise)
    settings = config(
        tmp_path / "run", aggregator="avg", monitor=monitor, learning_rate=0.05, max_epochs=100
    )
    run = train(made, labels, settings)
    epochs = history(run.folder)
    watched = [epoch[f"dev_{monitor}"] for epoch in epochs]
    best = int(np.argmin(watched) if monitor == "l1" else np.argmax(watched))
    assert len(epochs) == best + 6 < 100
    assert run.provenance["best_epoch"] == best
    assert run.provenance["stopped_because"] == f"5 epochs without improvement of dev {monitor}"
    assert [epoch["epoch"] for epoch in epochs if epoch["best"]][-1] == best
    predicted = run.predictions()
    dev = np.array(predicted.split) == "dev"
    error = np.abs(predicted.score - predicted.prediction)[dev].mean()
    assert error == pytest.approx(epochs[best]["dev_l1"], abs=1e-6)
    assert error != pytest.approx(epochs[-1]["dev_l1"], abs=1e-6)


def test_all_epochs_are_used_while_dev_improves(tmp_path):
    made, labels = dataset()
    run = train(made, labels, config(tmp_path / "run", aggregator="avg", learning_rate=1e-5))
    assert len(history(run.folder)) == 3
    assert run.provenance["stopped_because"] == "all 3 epochs done"


def test_only_a_strictly_better_epoch_is_an_improvement():
    best = BestEpoch("l1", 2)
    told = [
        best.improves(i, DevResult(l1, None, None)) for i, l1 in enumerate([3.0, 2.0, 2.0, 2.5])
    ]
    assert told == [True, True, False, False]
    assert best.epoch == 1
    assert not best.stops(2)
    assert best.stops(3)


def test_an_undefined_correlation_is_no_improvement():
    best = BestEpoch("srocc", 5)
    results = [None, -0.9, None, -0.8]
    told = [best.improves(i, DevResult(0.1, None, value)) for i, value in enumerate(results)]
    assert told == [True, True, False, True]


def test_a_correlation_that_is_never_defined_ends_training_with_the_reason(tmp_path):
    made, labels = dataset()
    labels = [r.model_copy(update={"score": 0.7}) if r.split == "dev" else r for r in labels]
    settings = config(tmp_path / "run", aggregator="avg", monitor="srocc", max_epochs=50)
    run = train(made, labels, settings)
    assert len(history(run.folder)) == 6
    assert run.provenance["best_epoch"] == 0
    assert run.provenance["stopped_because"].endswith("dev srocc, which was never defined")


def test_constant_scores_leave_correlations_undefined_with_the_reason(tmp_path):
    made, labels = dataset()
    labels = [record.model_copy(update={"score": 0.7}) for record in labels]
    metrics = train(made, labels, config(tmp_path / "run")).metrics
    for split in ("train", "dev", "test"):
        assert metrics[split]["srocc"] is None
        assert "constant" in metrics[split]["undefined"]
        assert metrics[split]["mse"] >= 0


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_videos_of_one_frame_are_trained_on(tmp_path, aggregator):
    generator = np.random.default_rng(0)
    made = table([generator.standard_normal((1, 6)) for _ in range(9)], tokens="cls+1x1")
    labels = records(generator.uniform(0, 1, 9), splits(4, 3, 2))
    settings = config(tmp_path / "run", aggregator=aggregator, max_epochs=1)
    assert np.isfinite(train(made, labels, settings).predictions().prediction).all()


def test_weight_decay_shrinks_weights(tmp_path):
    made, labels = dataset()
    norms = []
    for decay in (0.0, 10.0):
        settings = config(tmp_path / str(decay), aggregator="avg", weight_decay=decay, max_epochs=9)
        regressor = train(made, labels, settings).regressors()[0]
        norms.append(sum(p.square().sum().item() for p in regressor.parameters()))
    assert norms[1] < norms[0]


LEARN = {
    "aggregator": "bigru",
    "aggregators": {"bigru": {"hidden": 8, "layers": 2, "dropout": 0.0}},
    "heads": {"mlp": {"hidden": [16, 8]}},
    "learning_rate": 0.01,
    "batch_size": 16,
    "max_epochs": 12,
}


def test_attention_learns_which_moments_count_where_averages_cannot(tmp_path):
    made, labels = dataset(train=320, dev=80, test=120)
    run = train(made, labels, config(tmp_path / "run", **LEARN))
    assert held_out_srocc(run.predictions()) > 0.9
    assert held_out_srocc(fit_baseline("ridge", Examples.join(made, labels)).predictions) < 0.75
    frames = torch.from_numpy(np.stack([marked_moments(9, np.random.default_rng(5))[0]])).float()
    (weights,) = run.regressors()[0]((frames, torch.tensor([9]))).weights
    weights = weights[0].detach().abs()
    marked = frames[0, :, 0] > 0
    assert weights[marked].mean() > 3 * weights[~marked].mean()


def test_nothing_is_learnt_from_shuffled_scores(tmp_path):
    made, labels = dataset(train=320, dev=80, test=120)
    run = train(made, labels, config(tmp_path / "run", **LEARN, shuffle_labels=True))
    assert abs(held_out_srocc(run.predictions())) < 0.3
    assert run.predictions().score.tolist() == [record.score for record in labels]
    assert any(line.startswith("CONTROL") for line in run.sources())


@pytest.mark.parametrize("aggregator", ["avg", "bigru", "transformer"])
def test_fitting_twice_gives_the_same_bits_and_leaves_the_generators_alone(tmp_path, aggregator):
    examples = Examples.join(*dataset(train=24, dev=8, test=4))
    settings = resolve_options(config(tmp_path, aggregator=aggregator))
    torch.manual_seed(1)
    expected = torch.get_rng_state()
    one, other = (fit(examples, settings, device=CPU) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), expected)
    assert one.history == other.history
    for a, b in zip(one.regressor.parameters(), other.regressor.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_seed_that_diverges_ends_with_the_reason_and_no_run(tmp_path):
    made, labels = dataset()
    settings = resolve_options(config(tmp_path / "run", seeds=(1,), learning_rate=1e30))
    reason = r"seed 1 diverged: in epoch \d, at a learning rate of 1e\+30"
    with pytest.raises(TrainingError, match=reason):
        train_seed(Examples.join(made, labels), settings)
    assert not is_complete(tmp_path / "run")
