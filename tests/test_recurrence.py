"""The recurrence, on whatever runs it, beside torch's own nn.GRU one unpadded video at a time."""

from functools import cache

import pytest
import torch
from compilers import needs_compiler
from torch import nn
from torch.autograd import gradcheck
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from memfeat.errors import ConfigError, MemfeatError
from memfeat.models.gru import BACKENDS, BiGru, backend_for, using_backend
from memfeat.models.native import kernel

DIM, HIDDEN, LAYERS, TIME = 12, 8, 2, 34
LENGTHS = torch.tensor([31, 1, 12, 20, 2, 30])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}

on = [pytest.param(name, marks=needs_compiler if name == "native" else ()) for name in BACKENDS]
every_backend = pytest.mark.parametrize("backend", on)
our_loops = pytest.mark.parametrize("backend", on[:2])
every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def bigru(hidden=HIDDEN, dropout=0.0, dtype=torch.float32, layers=LAYERS):
    torch.manual_seed(0)
    return BiGru(DIM, hidden, layers, dropout).to(dtype)


def batch(lengths=LENGTHS, dtype=torch.float32, filler=0.0, time=TIME):
    """Random frames that carry gradients, the same ones whatever the padding holds."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(len(lengths), TIME, DIM, dtype=dtype, generator=generator)[:, :time]
    padded = torch.arange(time) >= lengths.unsqueeze(1)
    return frames.masked_fill(padded.unsqueeze(2), filler).requires_grad_(), lengths


def with_gradients(states, frames, gru):
    """Of states weighted at random: the states, then the gradients of frames and parameters."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(states.shape, dtype=states.dtype, generator=generator).to(states.device)
    wanted = {"frames": frames, **dict(gru.named_parameters())}
    found = torch.autograd.grad((states * weight).sum(), list(wanted.values()))
    return {"states": states.detach(), **dict(zip(wanted, found, strict=True))}


def states_and_gradients(gru, frames, lengths, backend):
    with using_backend(backend):
        return with_gradients(gru(frames, lengths), frames, gru)


@cache
def those_of_nn_gru(hidden, dtype):
    """What `states_and_gradients` must be."""
    ours, (frames, lengths) = bigru(hidden, dtype=dtype), batch(dtype=dtype)
    gru = nn.GRU(DIM, hidden, LAYERS, batch_first=True, bidirectional=True).to(dtype)
    gru.load_state_dict(ours.state_dict())
    alone = [gru(frames[i : i + 1, :n])[0][0] for i, n in enumerate(lengths)]
    states = pad_sequence([*alone, frames.new_empty(TIME, 2 * hidden)], batch_first=True)[:-1]
    return with_gradients(states, frames, gru)


def assert_near(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name] - value).norm() / value.norm().clamp(min=1e-30)
        assert error < tolerance, name


def assert_equal(found, expected):
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


# Whole vectors and not, of either width
HIDDENS = [("native", n) for n in (1, 3, 16, 64, 65)] + [(name, HIDDEN) for name in BACKENDS]


@pytest.mark.parametrize(
    ("backend", "hidden"),
    [pytest.param(*each, marks=needs_compiler if each[0] == "native" else ()) for each in HIDDENS],
)
@every_dtype
def test_states_and_all_gradients_are_those_of_nn_gru(backend, hidden, dtype):
    frames, lengths = batch(dtype=dtype, filler=float("nan"))
    found = states_and_gradients(bigru(hidden, dtype=dtype), frames, lengths, backend)
    assert found["states"].dtype is dtype
    assert_near(found, those_of_nn_gru(hidden, dtype), TOLERANCE[dtype])
    assert not found["states"][torch.arange(TIME) >= LENGTHS.unsqueeze(1)].any()


@our_loops
def test_any_number_of_sequences_may_run(backend):
    gru = bigru(16, dtype=torch.float64, layers=1)
    for count in range(1, 18):
        lengths = torch.tensor([2 * count - i for i in range(count)])
        frames, _ = batch(lengths, torch.float64)
        found = [states_and_gradients(gru, frames, lengths, name) for name in (backend, "library")]
        assert_near(*found, 1e-10)


@our_loops
@pytest.mark.parametrize("lengths", [[1], [4, 1, 3, 3]])
def test_gradients_are_finite_differences(backend, lengths):
    torch.manual_seed(0)
    gru = BiGru(2, 3, 1, dropout=0.0).double()  # narrow: each number costs two passes
    frames = torch.randn(len(lengths), 4, 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in gru.named_parameters()]

    def call(frames, *weights):
        given = dict(zip(names, weights, strict=True)), (frames, torch.tensor(lengths))
        return torch.func.functional_call(gru, *given)

    with using_backend(backend):
        assert gradcheck(call, (frames, *gru.parameters()))


@pytest.mark.parametrize(
    ("backend", "hidden"),
    [
        *(pytest.param("native", n, marks=needs_compiler) for n in (HIDDEN, 65)),
        ("plain", HIDDEN),
    ],
)
def test_a_seed_drops_the_same_states_on_every_backend(backend, hidden):
    gru, found = bigru(hidden, dropout=0.4, dtype=torch.float64), []
    for name, seed in ((backend, 5), ("library", 5), ("library", 6)):
        torch.manual_seed(seed)
        found.append(states_and_gradients(gru, *batch(dtype=torch.float64), name))
    assert_near(found[0], found[1], 1e-10)
    dropped = [each["states"][0, :31] == 0 for each in found]
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[1], dropped[2])


@every_backend
def test_repeated_runs_are_identical_and_padding_changes_no_bit(backend):
    gru, found = bigru(dropout=0.3), []
    for changes in ({}, {}, {"filler": float("inf")}, {"time": 31}):
        torch.manual_seed(2)
        found.append(states_and_gradients(gru, *batch(**changes), backend))
    for other in found[1:3]:
        assert_equal(other, found[0])
    # Its states' weights are others, as they are fewer.
    assert torch.equal(found[3]["states"], found[0]["states"][:, :31])


@every_backend
def test_the_same_loss_may_be_differentiated_again(backend):
    with using_backend(backend):
        gru = bigru(dropout=0.3)
        loss = gru(*batch()).square().sum()
        first, again = (
            torch.autograd.grad(loss, list(gru.parameters()), retain_graph=True) for _ in range(2)
        )
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


@every_backend
def test_states_without_gradients_are_the_same_bits(backend):
    with using_backend(backend):
        expected = bigru()(*batch())
        with torch.inference_mode():
            assert torch.equal(bigru()(*batch()), expected)


def test_parameters_are_those_of_nn_gru_by_name_and_value():
    torch.manual_seed(0)
    oracle = nn.GRU(DIM, HIDDEN, 6, batch_first=True, bidirectional=True)
    gru = bigru(layers=6)
    assert list(gru.state_dict()) == list(oracle.state_dict())
    assert "bias_hh_l5_reverse" in gru.state_dict()
    assert_equal(gru.state_dict(), oracle.state_dict())


@our_loops
def test_the_frames_gradient_is_computed_only_where_needed(backend):
    flops = []
    for needed in (True, False):
        frames, lengths = batch()
        with using_backend(backend):
            states = bigru(layers=1)(frames.detach().requires_grad_(needed), lengths)
            with FlopCounterMode(display=False) as counter:
                states.sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] - flops[1] == 2 * int(LENGTHS.sum()) * 2 * 3 * HIDDEN * DIM


@pytest.mark.parametrize("lengths", [[3, 0], [3, 6], [-1, 2]])
def test_a_length_that_is_not_allowed_is_named(lengths):
    message = rf"sequence lengths \[{lengths[0]}, {lengths[1]}\] must lie in \[1, 5\]"
    with pytest.raises(MemfeatError, match=message):
        bigru()(torch.zeros(2, 5, DIM), torch.tensor(lengths))


def test_the_backend_follows_from_the_device_and_what_can_be_built():
    assert backend_for(torch.device("cpu")) == ("native" if kernel() else "plain")
    assert backend_for(torch.device("cuda")) == "library"


def test_an_unknown_backend_is_refused_with_the_choices():
    message = r"no backend 'fast' here; choose one of .*plain, library"
    with pytest.raises(ConfigError, match=message), using_backend("fast"):
        pass
