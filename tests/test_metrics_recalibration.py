import numpy as np
import pytest

from memfeat.errors import MemfeatError
from memfeat.metrics import fit_line


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_numpys_polynomial_of_degree_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    prediction = generator.normal(0.8, 0.02, 50)
    truth = 0.3 * prediction + generator.normal(0.5, 0.1, 50)
    line = fit_line(prediction, truth)
    assert tuple(line) == pytest.approx(np.polyfit(prediction, truth, 1), rel=1e-9)
    assert line([0.2, 0.9]) == pytest.approx(np.polyval(line, [0.2, 0.9]))


def test_a_line_undoes_another_scale_and_mean() -> None:
    truth = np.random.default_rng(0).random(30)
    line = fit_line(0.25 * truth + 0.6, truth)
    assert line(0.25 * truth + 0.6) == pytest.approx(truth)


def test_constant_predictions_become_the_mean_of_the_truth() -> None:
    assert fit_line([0.7, 0.7, 0.7], [0.1, 0.2, 0.6]) == (0, pytest.approx(0.3))


def test_without_videos_there_is_no_line() -> None:
    with pytest.raises(MemfeatError, match="no scored videos to fit a line to"):
        fit_line([], [])
