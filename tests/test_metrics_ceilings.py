"""Ceilings against simulations whose truth is known, and against answers split one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from memfeat.manifest import VideoRecord
from memfeat.metrics import known_ceiling, split_half_ceiling

SHARES = stats.beta(8, 2)  # of all people; mean .8, as memorability scores have


def record(
    number: int, score: float | None, noise_free: float | None = None, answers: int | None = None
) -> VideoRecord:
    return VideoRecord(
        video_id=f"v{number}",
        path=Path(f"/v{number}.mp4"),
        score=score,
        split="test",
        noise_free_score=noise_free,
        n_annotations=answers,
    )


def simulated(videos: int, answers: np.ndarray | int, seed: int) -> list[VideoRecord]:
    """Ask `answers` people about each video, whose true shares are drawn from `SHARES`."""
    generator = np.random.default_rng(seed)
    counts = np.broadcast_to(answers, videos)
    seen = generator.binomial(counts, SHARES.rvs(videos, random_state=generator))
    return [record(i, seen[i] / counts[i], answers=counts[i]) for i in range(videos)]


def test_the_known_ceiling_is_what_a_perfect_model_reaches():
    generator = np.random.default_rng(0)
    noise_free = generator.random(60)
    scores = np.clip(noise_free + 0.1 * generator.standard_normal(60), 0, 1)
    records = [record(number, scores[number], noise_free[number]) for number in range(60)]
    ceiling = known_ceiling([*records, record(60, None, 0.5)])
    assert ceiling is not None
    assert ceiling.n == 60
    assert ceiling.srocc == pytest.approx(stats.spearmanr(noise_free, scores).statistic)
    assert ceiling.bias == pytest.approx(np.mean(noise_free - scores))


def test_there_is_no_known_ceiling_where_some_noise_free_score_is_unknown():
    assert known_ceiling([]) is None
    assert known_ceiling([record(1, 0.5, 0.4), record(2, 0.5, None)]) is None


@pytest.mark.parametrize("answers", [10, 41, 90])
def test_a_simulated_ceiling_is_recovered_without_bias_and_within_its_interval(answers):
    # A perfect model knows the true shares p; binomial noise adds E[p (1 - p)] / n to their
    # variance, so its correlation with the scores follows.
    noise = SHARES.expect(lambda p: p * (1 - p)) / answers
    population = np.sqrt(SHARES.var() / (SHARES.var() + noise))
    found = [split_half_ceiling(simulated(200, answers, s), bootstrap=100) for s in range(30)]
    ceilings = np.array([each.plcc for each in found])
    assert abs(ceilings.mean() - population) < 3 * ceilings.std(ddof=1) / np.sqrt(30) + 0.002
    held = sum(each.plcc_interval[0] <= population <= each.plcc_interval[1] for each in found)
    assert held >= 25


def test_halves_agree_as_they_do_when_single_answers_are_dealt_out():
    generator = np.random.default_rng(2)
    counts = generator.integers(2, 40, 150)
    answers = [generator.random(n) < SHARES.rvs(random_state=generator) for n in counts]
    expected = {"plcc": [], "srocc": []}
    for _ in range(150):
        halves = []
        for each in answers:
            dealt = generator.permutation(each)
            middle = (len(each) + generator.integers(2)) // 2
            halves.append((dealt[:middle].mean(), dealt[middle:].mean()))
        first, second = np.transpose(halves)
        expected["plcc"].append(stats.pearsonr(first, second).statistic)
        expected["srocc"].append(stats.spearmanr(first, second).statistic)
    records = [record(i, each.mean(), answers=len(each)) for i, each in enumerate(answers)]
    found = split_half_ceiling(records, bootstrap=0)
    for name, values in expected.items():
        half = getattr(found, f"half_{name}")
        assert half == pytest.approx(np.mean(values), abs=4 * np.std(values) / np.sqrt(10))
        assert getattr(found, f"reliability_{name}") == pytest.approx(2 * half / (1 + half))
        assert getattr(found, name) == pytest.approx(np.sqrt(2 * half / (1 + half)))


def test_videos_without_answers_to_split_are_left_out_and_told():
    known = simulated(50, 30, 0)
    unknown = [record(50, 0.1), record(51, 0.2, answers=1), record(52, 0.3, answers=0)]
    found = split_half_ceiling([*known, *unknown, record(53, None, answers=30)])
    assert (found.n, found.left_out, found.answers) == (50, 3, 30)
    assert found.srocc == split_half_ceiling(known).srocc
    assert "3 videos without a number of answers left out" in found.describe()


def test_normalised_scores_have_no_ceiling_and_a_few_odd_ones_are_rounded():
    exact = simulated(50, 30, 0)
    moved = [record(i, r.score * 0.99 + 0.005, answers=30) for i, r in enumerate(exact)]
    found = split_half_ceiling(moved)
    assert found.srocc is None
    assert f"{found.inexact} of 50 scores are not a share of their number" in found.describe()
    few = split_half_ceiling([*moved[:5], *exact[5:]])
    assert few.srocc == split_half_ceiling(exact).srocc
    halves = f"one half against the other SROCC {few.half_srocc:.3f}, stepped up to all answers"
    assert f"{halves} {few.reliability_srocc:.3f} (Spearman-Brown)" in few.describe()
    assert 0 < few.inexact <= 5
    assert f"{few.inexact} scores of no whole number of answers" in few.describe()
    printed = [record(i, round(r.score, 3), answers=30) for i, r in enumerate(exact)]
    assert split_half_ceiling(printed).inexact == 0


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([], "0 videos with two answers or more; a correlation needs 3"),
        (simulated(2, 30, 0), "2 videos with two answers or more"),
        ([record(i, 0.9) for i in range(5)], "0 videos with two answers or more"),
        ([record(i, 1.0, answers=9) for i in range(5)], "half the viewers score all 5 videos al"),
    ],
)
def test_where_there_is_nothing_to_split_the_reason_is_told(records, reason):
    found = split_half_ceiling(records)
    assert (found.plcc, found.srocc, found.srocc_interval, found.half_plcc) == (None,) * 4
    assert reason in found.undefined
    assert found.describe().startswith(f"unknown: {reason}")


def test_a_split_half_ceiling_goes_into_json_whole():
    found = split_half_ceiling(simulated(40, 30, 0))
    assert json.loads(json.dumps(found.as_dict()))["srocc_interval"] == list(found.srocc_interval)
