import pytest
import torch

from memfeat.models.dropout import Dropout
from memfeat.models.packing import Packing

LENGTHS = torch.tensor([[1000, 990, 1010], [700, 1, 1299]])
WIDTH = 63  # not a multiple of the words that are drawn


def draw(probability, lengths=LENGTHS):
    generators = [torch.Generator().manual_seed(i) for i in range(len(lengths))]
    packing = Packing.of(lengths, int(lengths.max()), len(lengths))
    return Dropout.draw(probability, packing, WIDTH, generators), packing


@pytest.mark.parametrize("probability", [0.0, 0.07, 0.2, 0.5])
def test_each_state_is_dropped_with_its_probability_and_the_mean_is_kept(probability):
    dropout, packing = draw(probability)
    kept = dropout.of(torch.ones(2, 3000, WIDTH, dtype=torch.float64))
    for states, count in zip(kept, packing.frames, strict=True):
        dropped = states[:count] == 0
        assert set(states[:count].unique().tolist()) <= {0.0, dropout.scale}
        assert dropout.scale == pytest.approx(1 / (1 - probability), rel=1e-5)
        # Four standard errors of a share: over all states, over each unit's, each row's.
        error = 4 * (probability * (1 - probability)) ** 0.5
        assert abs(dropped.double().mean() - probability) <= error / (count * WIDTH) ** 0.5 + 1e-5
        assert (dropped.double().mean(0) - probability).abs().max() <= error / count**0.5 + 1e-5
        if probability:
            together = dropped.double().T.corrcoef() - torch.eye(WIDTH)
            assert together.abs().max() < 5.5 / count**0.5
    if probability:
        assert not torch.equal(kept[0, :2000], kept[1, :2000])


def test_what_a_model_gets_hangs_on_its_generator_and_frames_alone():
    together, packing = draw(0.3)
    (alone, own), generator = draw(0.3, LENGTHS[:1]), torch.Generator().manual_seed(1)
    assert torch.equal(together.bits[0, : own.frames[0]], alone.bits[0])
    single = Packing.of(LENGTHS[1:], 1299)
    alone = Dropout.draw(0.3, single, WIDTH, [generator])
    assert torch.equal(together.bits[1, : packing.frames[1]], alone.bits[0])
