import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from memfeat.errors import MemfeatError, UnknownNameError
from memfeat.metrics import evaluate, fit_line, paired_difference

N = 60
# Few distinct values, so that there are many ties.
SHORT = 25
SERIES = arrays(np.float64, SHORT, elements=st.integers(-6, 6).map(float))
STATISTICS = {
    "plcc": lambda truth, prediction: stats.pearsonr(truth, prediction).statistic,
    "srocc": lambda truth, prediction: stats.spearmanr(truth, prediction).statistic,
    "mse": lambda truth, prediction: np.mean((truth - prediction) ** 2),
}


def noisy(n=N, seed=0, noise=0.5):
    generator = np.random.default_rng(seed)
    truth = generator.random(n)
    return truth, truth + noise * generator.standard_normal(n)


@settings(deadline=None)
@given(truth=SERIES, prediction=SERIES)
def test_correlations_are_scipys_with_ties(truth, prediction):
    assume(np.ptp(truth) and np.ptp(prediction))
    metrics = evaluate(truth, prediction, bootstrap=0)
    assert metrics.n == SHORT
    for name, statistic in STATISTICS.items():
        assert getattr(metrics, name) == pytest.approx(statistic(truth, prediction), abs=1e-12)
    assert metrics.bias == pytest.approx(np.mean(prediction - truth), abs=1e-12)
    assert metrics.undefined is None


def test_mse_and_bias_of_a_worked_example():
    metrics = evaluate([0.0, 0.5, 1.0], [0.5, 0.5, 2.0])
    assert metrics.mse == pytest.approx((0.25 + 0 + 1) / 3)
    assert metrics.bias == pytest.approx(0.5)


@pytest.mark.parametrize("tiny", [5e-324, 1e-200, 1e-12])
def test_the_smallest_spread_of_predictions_still_correlates(tiny):
    metrics = evaluate([1, 2, 3, 4], np.array([0, 1, 2, 3]) * tiny, bootstrap=0)
    assert metrics.plcc == pytest.approx(1)
    assert metrics.srocc == pytest.approx(1)


@pytest.mark.parametrize(
    ("truth", "prediction", "reason"),
    [
        ([0.8] * 4, [1, 2, 3, 4], "the truth is constant: 0.8 for all 4 videos"),
        ([1, 2, 3, 4], [0.5] * 4, "the predictions are constant: 0.5 for all 4 videos"),
        ([0.1] * 3, [0.1] * 3, "the truth is constant: 0.1 for all 3 videos"),
        ([1, 2], [1, 2], "2 videos; a correlation needs at least 3"),
        ([1], [1], "1 video; a correlation needs at least 3"),
    ],
)
def test_an_undefined_correlation_is_none_and_says_why(truth, prediction, reason):
    metrics = evaluate(truth, prediction)
    assert metrics.undefined == reason
    assert (metrics.plcc, metrics.srocc) == (None, None)
    assert (metrics.plcc_interval, metrics.srocc_interval) == (None, None)
    assert metrics.mse == pytest.approx(np.mean((np.array(truth) - prediction) ** 2))


def test_no_videos_give_no_numbers():
    metrics = evaluate([], [])
    assert (metrics.plcc, metrics.srocc, metrics.mse, metrics.bias) == (None,) * 4


@pytest.mark.parametrize("ties", [False, True])
def test_intervals_are_percentiles_of_scipys_values_over_the_seeded_resamples(ties):
    truth, prediction = noisy()
    if ties:
        truth, prediction = truth.round(1), prediction.round(1)
    metrics = evaluate(truth, prediction, bootstrap=200, seed=7)
    drawn = np.random.default_rng(7).integers(N, size=(200, N))
    for name, statistic in STATISTICS.items():
        values = [statistic(truth[rows], prediction[rows]) for rows in drawn]
        interval = metrics.as_dict()[f"{name}_interval"]
        assert interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12)


def test_intervals_do_not_depend_on_how_many_resamples_are_held_at_once(monkeypatch):
    whole = evaluate(*noisy(), bootstrap=100)
    monkeypatch.setattr("memfeat.metrics.resampling.BLOCK", 7 * N)
    assert evaluate(*noisy(), bootstrap=100) == whole


def test_resamples_without_a_correlation_are_dropped_and_too_few_give_no_interval():
    prediction = np.arange(8.0)
    rare = evaluate([0, 0, 0, 1, 0, 0, 1, 0], prediction)
    assert rare.srocc_interval is not None
    assert np.isfinite(rare.srocc_interval).all()
    three = evaluate([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    assert three.plcc == pytest.approx(0.5)
    # Only the 12 of 27 resamples that draw both the first and the last video vary in both.
    assert three.plcc_interval is None
    assert three.mse_interval is not None


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    assert evaluate(*noisy(), seed=3) == evaluate(*noisy(), seed=3)
    assert evaluate(*noisy(), seed=3).srocc_interval != evaluate(*noisy(), seed=4).srocc_interval


def test_no_resamples_give_points_without_intervals():
    metrics = evaluate(*noisy(), bootstrap=0)
    assert metrics.srocc is not None
    assert metrics.srocc_interval is metrics.plcc_interval is metrics.mse_interval is None


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([1, 2, 3], [1, np.nan, np.nan], "prediction has 2 of 3 .* the first nan at position 1"),
        ([1, 2, np.inf], [1, 2, 3], "truth has 1 of 3 .* the first inf at position 2"),
        ([1, 2, 3], [1, 2], r"\(seeds, videos\); got .*'truth': \(3,\), 'prediction': \(2,\)"),
        ([[1, 2]], [[1, 2]], r"got .*'truth': \(1, 2\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(truth, prediction, message):
    with pytest.raises(MemfeatError, match=message):
        evaluate(truth, prediction)


@pytest.mark.parametrize("metric", STATISTICS)
def test_a_paired_difference_is_taken_within_each_resample(metric):
    truth, first = noisy(seed=1)
    second = noisy(seed=1, noise=1.0)[1]
    difference = paired_difference(truth, first, second, metric=metric, bootstrap=200, seed=5)
    statistic = STATISTICS[metric]
    drawn = np.random.default_rng(5).integers(N, size=(200, N))
    values = [
        statistic(truth[rows], first[rows]) - statistic(truth[rows], second[rows]) for rows in drawn
    ]
    assert difference.value == pytest.approx(statistic(truth, first) - statistic(truth, second))
    assert difference.value != 0
    assert difference.interval == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12)


def test_a_difference_with_an_undefined_side_is_none():
    truth, prediction = noisy()
    difference = paired_difference(truth, prediction, np.full(N, 0.5))
    assert (difference.value, difference.interval) == (None, None)
    with pytest.raises(UnknownNameError, match=r"unknown metric 'sroc'.* 'srocc'"):
        paired_difference(truth, prediction, prediction, metric="sroc")


def test_metrics_go_into_json_whole():
    metrics = evaluate(*noisy())
    loaded = json.loads(json.dumps(metrics.as_dict()))
    assert list(loaded) == [
        *("n", "plcc", "srocc", "mse", "bias", "plcc_std", "srocc_std", "mse_std"),
        *("plcc_interval", "srocc_interval", "mse_interval", "undefined"),
    ]
    assert loaded["srocc"] == metrics.srocc


def test_of_several_seeds_each_figure_is_the_mean_and_the_spread_stands_beside_it():
    truth, first = noisy()
    seeds = np.stack([first, noisy(noise=0.2)[1], noisy(noise=0.9)[1]])
    own = [evaluate(truth, seed, bootstrap=0) for seed in seeds]
    joint = evaluate(truth, seeds)
    for name in ("plcc", "srocc", "mse"):
        values = [getattr(each, name) for each in own]
        assert getattr(joint, name) == pytest.approx(np.mean(values))
        assert getattr(joint, f"{name}_std") == pytest.approx(np.std(values, ddof=1))
        assert getattr(own[0], f"{name}_std") is None
    assert joint.bias == pytest.approx(np.mean(seeds - truth))


def test_the_interval_of_several_seeds_is_that_of_their_mean():
    truth, first = noisy()
    second = noisy(noise=0.9)[1]
    both = evaluate(truth, [first, second], bootstrap=100)
    samples = [
        np.mean([STATISTICS["srocc"](truth[drawn], seed[drawn]) for seed in (first, second)])
        for drawn in np.random.default_rng(0).integers(N, size=(100, N))
    ]
    assert both.srocc_interval == pytest.approx(np.percentile(samples, [2.5, 97.5]), abs=1e-9)
    assert evaluate(truth, [first, first]).srocc_interval == evaluate(truth, first).srocc_interval


def test_one_constant_seed_leaves_the_correlation_undefined():
    truth, first = noisy()
    metrics = evaluate(truth, [first, np.full(N, 0.5)])
    assert metrics.srocc is None
    assert metrics.srocc_std is None
    assert metrics.undefined == "the predictions are constant: 0.5 for all 60 videos"


def test_a_paired_difference_is_between_means_over_seeds():
    truth, first = noisy()
    second = noisy(noise=0.9)[1]
    difference = paired_difference(truth, [first, second], second)
    joint, alone = evaluate(truth, [first, second]), evaluate(truth, second)
    assert difference.value == pytest.approx(joint.srocc - alone.srocc)


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_numpys_polynomial_of_degree_one(seed):
    generator = np.random.default_rng(seed)
    prediction = generator.normal(0.8, 0.02, 50)
    truth = 0.3 * prediction + generator.normal(0.5, 0.1, 50)
    line = fit_line(prediction, truth)
    assert tuple(line) == pytest.approx(np.polyfit(prediction, truth, 1), rel=1e-9)
    assert line([0.2, 0.9]) == pytest.approx(np.polyval(line, [0.2, 0.9]))


def test_constant_predictions_become_the_mean_of_the_truth():
    assert fit_line([0.7, 0.7, 0.7], [0.1, 0.2, 0.6]) == (0, pytest.approx(0.3))


def test_without_videos_there_is_no_line():
    with pytest.raises(MemfeatError, match="no scored videos to fit a line to"):
        fit_line([], [])
