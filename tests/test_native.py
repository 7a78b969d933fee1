"""The C++ loops themselves; test_recurrence.py compares whole layers with torch's own."""

import pytest
import torch
from compilers import needs_compiler

from memfeat.errors import MemfeatError
from memfeat.models.dropout import Dropout
from memfeat.models.native import kernel

pytestmark = needs_compiler
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
BATCH_SIZES = torch.tensor([3] * 4 + [2] * 3 + [1] * 2)  # sequences of 9, 7 and 4 frames


def layer(rows, hidden, dtype):
    """Made-up projections and weights."""
    torch.manual_seed(0)
    shapes = (rows, 2, 3 * hidden), (2, 3 * hidden), (2, 3 * hidden, hidden), (2, hidden)
    return [torch.randn(shape, dtype=dtype) / 4 for shape in shapes]


def run(projected, bias, w_hidden, b_new, batch_sizes):
    """All that the loops give, of a loss that is the states' sum."""
    states, saved = kernel().forward(projected.clone(), bias, w_hidden, b_new, batch_sizes)
    return states, *saved[:2], *kernel().backward(torch.ones_like(states), saved, w_hidden)


@every_dtype
def test_a_sequence_among_others_gets_the_bits_that_it_gets_alone(dtype):
    count, steps = 13, 9
    projected, *weights = layer(count * steps, 20, dtype)
    together = run(projected, *weights, torch.full((steps,), count))
    for sequence in (0, 5, 12):
        rows = slice(sequence, None, count)
        alone = run(projected[rows].contiguous(), *weights, torch.ones(steps, dtype=torch.int64))
        for found, expected in zip(alone, together, strict=True):
            assert torch.equal(found, expected[rows])


def gates_of(inputs):
    """One step of units without recurrent weights, fed with `inputs` through every gate."""
    projected = inputs.view(-1, 1, 1).expand(-1, 2, 3).contiguous()
    shapes = (2, 3), (2, 3, 1), (2, 1)
    nothing = [torch.zeros(shape, dtype=inputs.dtype) for shape in shapes]
    _, (gates, *_) = kernel().forward(projected, *nothing, torch.tensor([len(inputs)]))
    assert torch.equal(gates[:, 0].nan_to_num(2), gates[:, 1].nan_to_num(2))
    return gates[:, 0].unbind(1)


@every_dtype
def test_the_nonlinearities_are_exact_to_a_few_units_in_the_last_place(dtype):
    small = torch.logspace(-30, 0, 4001, dtype=torch.float64)
    values = torch.cat([torch.linspace(-60, 60, 40_001, dtype=torch.float64), small, -small])
    values = values.to(dtype)
    epsilon = torch.finfo(dtype).eps
    r, z, n = gates_of(values)
    exact = values.to(torch.float64)
    for found in (r, z):
        assert ((found - exact.sigmoid()) / exact.sigmoid()).abs().max() < 3 * epsilon
    expected = exact.tanh()
    assert torch.equal(n == 0, values == 0)
    assert ((n - expected) / expected.where(values != 0, 1)).abs().max() < 3 * epsilon


@every_dtype
def test_the_nonlinearities_saturate(dtype):
    big = torch.finfo(dtype).max
    values = torch.tensor([100, 1e4, big, float("inf")], dtype=dtype)
    for x in (values, -values):
        r, z, n = gates_of(x)
        for found in (r, z):
            torch.testing.assert_close(found, x.sigmoid(), rtol=0, atol=1e-30)
        assert torch.equal(n, x.sign())


@every_dtype
@pytest.mark.parametrize("hidden", [8, 65])
def test_nan_comes_through(dtype, hidden):
    for gate in range(3):
        projected, *weights = layer(20, hidden, dtype)
        projected[6, 0, gate * hidden] = float("nan")  # time 2, sequence 0, forward
        states, _, _, d_gates, d_new, _ = run(projected, *weights, BATCH_SIZES)
        assert states[6, 0].isnan()
        assert states[-1, :hidden].isnan().all()
        assert not states[:6].isnan().any()
        assert not states[:, hidden:].isnan().any()
        assert d_gates[0, 0].isnan().all()
        assert d_new[0, 0].isnan().all()
        assert not d_gates[:, 1].isnan().any()


@pytest.mark.parametrize("sizes", [[2, 3], [6, 0], [7, -1], [3, 2], [4, 3]])
def test_batch_sizes_that_do_not_fit_are_refused(sizes):
    message = rf"batch sizes \[{sizes[0]}, {sizes[1]}\] .* add up to 6"
    with pytest.raises(MemfeatError, match=message):
        kernel().forward(*layer(6, 3, torch.float32), torch.tensor(sizes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(6, 2, 8)}, r"gates is torch.float32 \(6, 2, 8\) .* \(6, 2, 9\)"),
        ({1: torch.zeros(2, 3)}, r"bias is torch.float32 \(2, 3\) .* \(2, 9\)"),
        ({2: torch.zeros(1, 9, 3)}, r"w_hidden is torch.float32 \(1, 9, 3\)"),
        ({2: torch.zeros(2, 3, 9).mT}, "w_hidden is .* not contiguous"),
        ({3: torch.zeros(2, 3).double()}, "b_new is torch.float64 .* must be torch.float32"),
        ({4: torch.ones(2, 3).long()}, r"batch_sizes is torch.int64 \(2, 3\)"),
        ({4: torch.ones(6)}, r"batch_sizes is torch.float32 \(6,\) .* must be torch.int64"),
        ({0: torch.zeros(6, 2, 9).half()}, "bias is torch.float32 .* be torch.float16"),
        (
            {5: Dropout(torch.zeros(6, 6), 0, 1.0)},
            r"dropout is torch.float32 .* must be torch.int16 \(6, 6\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message):
    arguments = [*layer(6, 3, torch.float32), torch.tensor([3, 3]), None]
    for i, other in change.items():
        arguments[i] = other
    with pytest.raises(MemfeatError, match=message):
        kernel().forward(*arguments)


def test_a_type_that_has_no_loops_is_refused():
    message = r"no loops for a layer of torch.float16; .* torch.float32, torch.float64"
    with pytest.raises(MemfeatError, match=message):
        kernel().forward(*layer(6, 3, torch.float16), torch.tensor([3, 3]))
