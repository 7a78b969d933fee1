import pytest
import torch

from memfeat.devices import CPU
from memfeat.models.dropout import Dropout

ROWS, WIDTH = 2001, 63  # the last of the words that are drawn is used in part


@pytest.mark.parametrize("probability", [0.0, 0.07, 0.2, 0.5])
def test_each_state_is_dropped_with_its_probability_and_the_mean_is_kept(probability):
    torch.manual_seed(0)
    dropout = Dropout.draw(probability, ROWS, WIDTH, CPU)
    kept = dropout.of(torch.ones(ROWS, WIDTH, dtype=torch.float64))
    dropped = kept == 0
    assert set(kept.unique().tolist()) <= {0.0, dropout.scale}
    assert dropout.scale == pytest.approx(1 / (1 - probability), rel=1e-5)
    # Four standard errors of a share: over all states, over each unit's.
    error = 4 * (probability * (1 - probability)) ** 0.5
    assert abs(dropped.double().mean() - probability) <= error / (ROWS * WIDTH) ** 0.5 + 1e-5
    assert (dropped.double().mean(0) - probability).abs().max() <= error / ROWS**0.5 + 1e-5
    if probability:
        together = dropped.double().T.corrcoef() - torch.eye(WIDTH)
        assert together.abs().max() < 5.5 / ROWS**0.5


def test_what_is_dropped_follows_from_torchs_generator():
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(Dropout.draw(0.3, 5, 6, CPU).bits)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
