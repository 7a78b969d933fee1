from contextlib import nullcontext
from functools import cache

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from memfeat.errors import ConfigError, MemfeatError
from memfeat.models.gru import BACKENDS, GruWeights, backend_for, gru_layer, using_backend
from memfeat.models.native import kernel
from memfeat.models.packing import Packing
from memfeat.models.recurrence import BiGru

DIM, HIDDEN, LAYERS, TIME = 12, 8, 3, 103
KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
LENGTHS = torch.tensor(
    [
        [100, 1, 37, 64, 2, 99],
        [5, 5, 5, 5, 5, 5],
        [1, 100, 99, 98, 97, 1],
        [24, 31, 50, 77, 92, 100],
        [3, 1, 1, 1, 1, 1],
    ]
)

every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
every_number_of_models = pytest.mark.parametrize("models", [1, 5])


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    """Every test runs on every backend."""
    if request.param == "native" and not kernel():
        pytest.skip("needs a C++ compiler")
    with using_backend(request.param) if request.param else nullcontext():
        yield request.param


def oracles(models, dtype, dim=DIM, hidden=HIDDEN, layers=LAYERS):
    torch.manual_seed(0)
    grus = [
        nn.GRU(dim, hidden, layers, batch_first=True, bidirectional=True) for _ in range(models)
    ]
    return [gru.to(dtype) for gru in grus]


def stacked(grus, layer):
    """The weights of one layer of several nn.GRUs, in ours' order."""
    names = [[f"{kind}_l{layer}{end}" for end in ("", "_reverse")] for kind in KINDS]
    return GruWeights(
        *(
            torch.stack([torch.stack([getattr(gru, n) for n in pair]) for gru in grus])
            for pair in names
        )
    )


def ours(grus, frames, lengths):
    packing = Packing.of(lengths, frames.shape[2], len(grus))
    packed = packing.pack(frames)
    for layer in range(grus[0].num_layers):
        packed = gru_layer(packed, stacked(grus, layer), packing)
    return packing.pad(packed)


def theirs(gru, frames, lengths):
    packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=frames.shape[1])[0]


def batch(models, dtype, filler=0.0):
    generator = torch.Generator().manual_seed(1)
    lengths = LENGTHS[:models]
    frames = torch.randn(*lengths.shape, TIME, DIM, dtype=dtype, generator=generator)
    padded = torch.arange(TIME) >= lengths.unsqueeze(2)
    frames = frames.masked_fill(padded.unsqueeze(3), filler).requires_grad_()
    weight = torch.randn(*lengths.shape, TIME, 2 * HIDDEN, dtype=dtype, generator=generator)
    return frames, lengths, weight


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@cache
def states_and_gradients_of_nn_gru(models, dtype):
    frames, lengths, weight = batch(models, dtype)
    grus = oracles(models, dtype)
    states = torch.stack([theirs(*each) for each in zip(grus, frames, lengths, strict=True)])
    (states * weight).sum().backward()
    gradients = {(i, n): p.grad for i, gru in enumerate(grus) for n, p in gru.named_parameters()}
    return states.detach(), frames.grad, gradients


@pytest.mark.parametrize("filler", [0.0, float("nan")])
@every_number_of_models
@every_dtype
def test_states_and_all_gradients_are_those_of_nn_gru(dtype, models, filler):
    expected, d_frames, gradients = states_and_gradients_of_nn_gru(models, dtype)
    frames, lengths, weight = batch(models, dtype, filler)
    grus = oracles(models, dtype)
    states = ours(grus, frames, lengths)
    (states * weight).sum().backward()
    assert states.dtype is dtype
    assert error(states, expected) < TOLERANCE[dtype]
    assert error(frames.grad, d_frames) < TOLERANCE[dtype]
    for i, gru in enumerate(grus):
        for name, parameter in gru.named_parameters():
            assert error(parameter.grad, gradients[i, name]) < TOLERANCE[dtype], (i, name)


@every_number_of_models
@every_dtype
def test_states_without_gradients_are_the_same(dtype, models):
    frames, lengths, _ = batch(models, dtype)
    grus = oracles(models, dtype)
    with torch.inference_mode():
        states = ours(grus, frames, lengths)
    assert torch.equal(states, ours(grus, frames, lengths))


@pytest.mark.parametrize(
    ("models", "lengths"),
    [(1, [[1]]), (1, [[4, 1, 3, 3]]), (2, [[3, 1, 2], [1, 1, 1]]), (2, [[2, 4]])],
)
def test_gradients_of_a_layer_are_its_finite_differences(models, lengths):
    lengths = torch.tensor(lengths)
    packing = Packing.of(lengths, time=4, models=models)
    # Narrow: each of the weights and frames costs two passes.
    weights = stacked(oracles(models, torch.float64, dim=2, hidden=3, layers=1), 0)
    frames = torch.randn(*lengths.shape, 4, 2, dtype=torch.float64, requires_grad=True)

    def layer(frames, *weights):
        return packing.pad(gru_layer(packing.pack(frames), GruWeights(*weights), packing))

    weights = [weight.detach().requires_grad_() for weight in weights]
    assert gradcheck(layer, (frames, *weights))


def test_a_model_among_others_computes_what_it_does_alone():
    frames, lengths, weight = batch(5, torch.float64)
    together, alone = oracles(5, torch.float64), oracles(5, torch.float64)
    states = ours(together, frames, lengths)
    (states * weight).sum().backward()
    for i, gru in enumerate(alone):
        one = slice(i, i + 1)
        expected = ours([gru], frames[one], lengths[one])
        (expected * weight[one]).sum().backward()
        torch.testing.assert_close(states[one], expected, atol=1e-12, rtol=0)
        for (name, theirs), ours_ in zip(
            gru.named_parameters(), together[i].parameters(), strict=True
        ):
            assert error(ours_.grad, theirs.grad) < 1e-12, name


def test_a_model_packs_its_frames_as_it_does_alone():
    """So that what is drawn for each packed row, such as dropout, can be the same."""
    frames, lengths, _ = batch(5, torch.float64)
    packed = Packing.of(lengths, TIME, 5).pack(frames)
    for i, rows in enumerate(packed):
        alone = Packing.of(lengths[i : i + 1], TIME).pack(frames[i : i + 1])[0]
        assert torch.equal(rows[: len(alone)], alone)
        assert not rows[len(alone) :].any()


def test_models_may_share_one_batch():
    frames, lengths, _ = batch(1, torch.float64)
    weight = torch.randn(5, 6, TIME, 2 * HIDDEN, dtype=torch.float64)
    shared, apart = oracles(5, torch.float64), oracles(5, torch.float64)
    states = ours(shared, frames, lengths)
    (states * weight).sum().backward()
    repeated = frames.detach().expand(5, -1, -1, -1).clone().requires_grad_()
    expected = ours(apart, repeated, lengths.expand(5, -1))
    (expected * weight).sum().backward()
    torch.testing.assert_close(states, expected, atol=1e-12, rtol=0)
    assert error(frames.grad, repeated.grad.sum(0, keepdim=True)) < 1e-12
    for one, other in zip(shared, apart, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert error(a.grad, b.grad) < 1e-12


def trained_once(frames, lengths):
    torch.manual_seed(2)
    gru = BiGru(DIM, HIDDEN, LAYERS, dropout=0.3)
    states = gru(frames, lengths)
    states.square().sum().backward()
    return [states.detach(), *(parameter.grad for parameter in gru.parameters())]


def test_repeated_runs_are_identical():
    frames, lengths, _ = batch(1, torch.float32)
    args = frames.detach()[0], lengths[0]
    for first, again in zip(trained_once(*args), trained_once(*args), strict=True):
        assert torch.equal(first, again)


def test_padding_changes_no_bit_of_states_or_gradients():
    frames, lengths, _ = batch(1, torch.float32)
    tight = trained_once(frames.detach()[0, :, :100], lengths[0])
    filled, _, _ = batch(1, torch.float32, filler=float("inf"))
    wide = trained_once(filled.detach()[0], lengths[0])
    assert not wide[0][:, 100:].any()
    assert torch.equal(wide[0][:, :100], tight[0])
    for one, other in zip(tight[1:], wide[1:], strict=True):
        assert torch.equal(one, other)


def test_the_same_loss_may_be_differentiated_again():
    frames, lengths, _ = batch(1, torch.float32)
    gru = BiGru(DIM, HIDDEN, LAYERS, dropout=0.0)
    loss = gru(frames.detach()[0], lengths[0]).square().sum()
    first = torch.autograd.grad(loss, list(gru.parameters()), retain_graph=True)
    again = torch.autograd.grad(loss, list(gru.parameters()))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


@every_dtype
def test_bigru_is_nn_gru_when_nothing_is_dropped(dtype):
    (oracle,) = oracles(1, dtype)
    gru = BiGru(DIM, HIDDEN, LAYERS, dropout=0.5).to(dtype).eval()
    gru.load_state_dict(oracle.state_dict())
    frames, lengths, weight = batch(1, dtype)
    states = gru(frames[0], lengths[0])
    (states * weight[0]).sum().backward()
    expected, _, gradients = states_and_gradients_of_nn_gru(1, dtype)
    assert error(states, expected[0]) < TOLERANCE[dtype]
    for name, parameter in gru.named_parameters():
        assert error(parameter.grad, gradients[0, name]) < TOLERANCE[dtype], name


def test_bigrus_parameters_are_those_of_nn_gru_by_name_and_value():
    torch.manual_seed(4)
    oracle = nn.GRU(DIM, HIDDEN, 6, batch_first=True, bidirectional=True)
    torch.manual_seed(4)
    gru = BiGru(DIM, HIDDEN, 6, dropout=0.2)
    assert list(gru.state_dict()) == list(oracle.state_dict())
    assert "bias_hh_l5_reverse" in gru.state_dict()
    for name, value in oracle.state_dict().items():
        assert torch.equal(gru.state_dict()[name], value), name


def test_dropout_is_drawn_from_torchs_generator():
    gru = BiGru(DIM, HIDDEN, 2, dropout=0.4)
    frames, lengths = torch.randn(1, 9, DIM), torch.tensor([9])
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append(gru(frames, lengths))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_frames_gradient_is_computed_only_where_needed():
    lengths = LENGTHS[:1]
    packing = Packing.of(lengths, TIME)
    flops = []
    for needed in (True, False):
        frames = torch.randn(1, int(lengths.sum()), DIM, requires_grad=needed)
        states = gru_layer(frames, stacked(oracles(1, torch.float32), 0), packing)
        with FlopCounterMode(display=False) as counter:
            states.sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] - flops[1] == 2 * int(lengths.sum()) * 2 * 3 * HIDDEN * DIM


@pytest.mark.parametrize("lengths", [[3, 0], [3, 6], [-1, 2]])
def test_a_length_that_is_not_allowed_is_named(lengths):
    gru = BiGru(DIM, HIDDEN, 1, dropout=0.0)
    message = rf"sequence lengths \[\[{lengths[0]}, {lengths[1]}\]\] must lie in \[1, 5\]"
    with pytest.raises(MemfeatError, match=message):
        gru(torch.zeros(2, 5, DIM), torch.tensor(lengths))


@pytest.mark.parametrize("backend", [None], indirect=True)
def test_the_backend_follows_from_the_device_and_what_can_be_built():
    assert backend_for(torch.device("cpu")) == ("native" if kernel() else "plain")
    assert backend_for(torch.device("cuda")) == "library"


def test_an_unknown_backend_is_refused_with_the_choices():
    message = r"no backend 'fast' here; choose one of .*plain, library"
    with pytest.raises(ConfigError, match=message), using_backend("fast"):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", [None], indirect=True)
def test_a_gpu_gives_the_same_states_and_gradients():
    frames, lengths, weight = batch(1, torch.float64)
    gru = BiGru(DIM, HIDDEN, LAYERS, dropout=0.0).double()
    (gru(frames[0], lengths[0]) * weight[0]).sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in gru.named_parameters()}
    gru.zero_grad()
    gru.cuda()
    (gru(frames[0].cuda(), lengths[0]) * weight[0].cuda()).sum().backward()
    for name, parameter in gru.named_parameters():
        assert error(parameter.grad.cpu(), expected[name]) < 1e-10, name
