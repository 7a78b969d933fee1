import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from memfeat.errors import MemfeatError
from memfeat.models.dropout import Dropout
from memfeat.models.native import kernel

DIM = 5
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
GATES = 3
KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
# Models of one case have one batch size but different totals.
MIXED = [
    [100, 99, 64, 37, 2, 1],
    [5, 5, 5, 5, 5, 5],
    [31, 1, 1, 1, 1, 1],
    [99, 98, 97, 96, 95, 94],
    [1, 1, 1, 1, 1, 1],
]
HIDDENS = [3, 8, 16, 64, 65]

needs_compiler = pytest.mark.skipif(kernel() is None, reason="needs a C++ compiler")
every_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


class Case:
    """Layers of nn.GRU and packed batches for them, with what autograd says of each."""

    def __init__(self, lengths, hidden, dtype):
        torch.manual_seed(0)
        self.lengths, self.hidden, self.dtype = torch.tensor(lengths), hidden, dtype
        self.frames = self.lengths.sum(1).tolist()
        self.grus = [nn.GRU(DIM, hidden, bidirectional=True).to(dtype) for _ in lengths]
        # (models, rows, ...), where the rows that are no frames hold what must not matter.
        self.inputs = torch.randn(len(lengths), max(self.frames), DIM, dtype=dtype)
        self.d_states = torch.randn(len(lengths), max(self.frames), 2 * hidden, dtype=dtype)

    def parameter(self, kind):
        """(models, 2, ...)"""
        names = f"{kind}_l0", f"{kind}_l0_reverse"
        return torch.stack(
            [torch.stack([getattr(gru, name).detach() for name in names]) for gru in self.grus]
        )

    @property
    def w_hidden(self):
        return self.parameter("weight_hh")

    @property
    def b_new(self):
        return self.parameter("bias_hh")[..., 2 * self.hidden :].contiguous()

    @property
    def bias(self):
        bias = self.parameter("bias_ih")
        bias[..., : 2 * self.hidden] += self.parameter("bias_hh")[..., : 2 * self.hidden]
        return bias

    def projected(self):
        weights = self.parameter("weight_ih")
        return torch.einsum("krx,kdgx->krdg", self.inputs, weights).contiguous()

    def run(self, projected=None):
        """What the loops give: all of forward, then all of backward."""
        gates = self.projected() if projected is None else projected
        states, new_hidden, kept = kernel().forward(
            gates, self.bias, self.w_hidden, self.b_new, self.lengths
        )
        assert kept is states
        saved = gates, new_hidden, states
        return (
            states,
            new_hidden,
            gates,
            *kernel().backward(self.d_states, *saved, self.w_hidden, self.lengths),
        )

    def oracle(self, model):
        """One model's states and the gradients of its inputs and parameters, by autograd."""
        gru, frames = self.grus[model], self.frames[model]
        lengths = self.lengths[model]
        inputs = self.inputs[model, :frames].clone().requires_grad_()
        running = (torch.arange(int(lengths.max())).unsqueeze(1) < lengths).sum(1)
        states = gru(PackedSequence(inputs, running))[0].data
        wanted = [inputs, *gru.parameters()]
        weighted = (states * self.d_states[model, :frames]).sum()
        gradients = torch.autograd.grad(weighted, wanted)
        names = "inputs", *(name for name, _ in gru.named_parameters())
        return states.detach(), dict(zip(names, gradients, strict=True))


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def gradients_of(case, model, results):
    """The gradients that follow from what the loops gave, under nn.GRU's names."""
    _, _, _, d_gates, d_new, before = (each[model] for each in results)
    d_projected = torch.cat([d_gates[..., : 2 * case.hidden], d_new], dim=-1)
    inputs, weight = case.inputs[model], case.parameter("weight_ih")[model]
    found = {"inputs": torch.einsum("rdg,dgx->rx", d_projected, weight)[: case.frames[model]]}
    for d, end in enumerate(("", "_reverse")):
        found[f"weight_ih_l0{end}"] = d_projected[:, d].mT @ inputs
        found[f"weight_hh_l0{end}"] = d_gates[:, d].mT @ before[:, d]
        found[f"bias_ih_l0{end}"] = d_projected[:, d].sum(0)
        found[f"bias_hh_l0{end}"] = d_gates[:, d].sum(0)
    return found


def check(case):
    results = case.run()
    for model, frames in enumerate(case.frames):
        states, gradients = case.oracle(model)
        assert error(results[0][model, :frames], states) < TOLERANCE[case.dtype]
        found = gradients_of(case, model, results)
        assert found.keys() == gradients.keys()
        for name, expected in gradients.items():
            if expected.any():
                assert error(found[name], expected) < TOLERANCE[case.dtype], (model, name)
            else:
                # The state before the only step of each sequence is zero.
                assert not found[name].any(), (model, name)
        for each in results:
            assert not each[model, frames:].any()


@needs_compiler
@pytest.mark.parametrize("hidden", HIDDENS)
@pytest.mark.parametrize("models", [1, 5])
@every_dtype
def test_states_and_gradients_are_those_of_nn_gru(dtype, models, hidden):
    check(Case(MIXED[:models], hidden, dtype))


@needs_compiler
@pytest.mark.parametrize("batch", range(1, 18))
@every_dtype
def test_any_number_of_sequences_may_run(dtype, batch):
    check(Case([[2 * batch - i for i in range(batch)]], 16, dtype))


@needs_compiler
@every_dtype
def test_a_model_of_no_frames_may_stand_among_others(dtype):
    check(Case([[0, 0], [3, 0]][1:], 8, dtype))
    case = Case([[3, 2], [0, 0]], 8, dtype)
    for each in case.run():
        assert not each[1].any()


@needs_compiler
@pytest.mark.parametrize("hidden", HIDDENS)
@every_dtype
def test_dropout_is_what_it_is_around_the_loops(dtype, hidden):
    case = Case(MIXED, hidden, dtype)
    bits = torch.randint(-(2**15), 2**15, case.d_states.shape).to(torch.int16)
    dropout = Dropout(bits, -7000, 1.3)
    plain = case.run()
    gates = case.projected()
    weights = case.bias, case.w_hidden, case.b_new, case.lengths
    states, new_hidden, kept = kernel().forward(gates, *weights, dropout)
    for found, expected in zip((states, new_hidden, gates), plain, strict=False):
        assert torch.equal(found, expected)
    assert 0.5 < (kept[states != 0] != 0).double().mean() < 0.9
    torch.testing.assert_close(kept, dropout.of(states), rtol=1e-6, atol=0)
    saved = gates, new_hidden, states
    back = kernel().backward(case.d_states, *saved, case.w_hidden, case.lengths, dropout)
    case.d_states = dropout.of(case.d_states)
    for found, expected in zip(back, case.run()[3:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@needs_compiler
@every_dtype
def test_repeated_calls_are_identical(dtype):
    case = Case(MIXED, 65, dtype)
    for one, other in zip(case.run(), case.run(), strict=True):
        assert torch.equal(one, other)


@needs_compiler
@every_dtype
def test_a_model_among_others_and_a_sequence_among_others_are_as_alone(dtype):
    case = Case([[9] * 13, [7] * 13], 20, dtype)
    together = case.run()
    projected, w_hidden, b_new = case.projected(), case.w_hidden, case.b_new
    for model, length in enumerate((9, 7)):
        for sequence in (0, 5, 12):
            rows = slice(sequence, length * 13, 13)
            one = slice(model, model + 1)
            gates = projected[one, rows].contiguous()
            lengths = torch.tensor([[length]])
            states, new_hidden, _ = kernel().forward(
                gates, case.bias[one], w_hidden[one], b_new[one], lengths
            )
            d_states = case.d_states[one, rows].contiguous()
            saved = gates, new_hidden, states
            back = kernel().backward(d_states, *saved, w_hidden[one], lengths)
            alone = states, new_hidden, gates, *back
            for found, expected in zip(alone, together, strict=True):
                assert torch.equal(found, expected[one, rows])


def loops_of_one_unit(inputs):
    """One step each of units without recurrent weights, fed with `inputs` through every gate."""
    projected = inputs.view(1, -1, 1, 1).expand(-1, -1, 2, GATES).contiguous()
    batch = len(inputs)
    weights = torch.zeros(1, 2, GATES, 1, dtype=inputs.dtype)
    biases = [torch.zeros(1, 2, n, dtype=inputs.dtype) for n in (3, 1)]
    lengths = torch.ones(1, batch, dtype=torch.int64)
    kernel().forward(projected, biases[0], weights, biases[1], lengths)
    assert torch.equal(projected[:, :, 0].nan_to_num(2), projected[:, :, 1].nan_to_num(2))
    return projected[0, :, 0].unbind(1)


@needs_compiler
@every_dtype
def test_the_nonlinearities_are_exact_to_a_few_units_in_the_last_place(dtype):
    small = torch.logspace(-30, 0, 4001, dtype=torch.float64)
    values = torch.cat([torch.linspace(-60, 60, 40_001, dtype=torch.float64), small, -small])
    values = values.to(dtype)
    epsilon = torch.finfo(dtype).eps
    r, z, n = loops_of_one_unit(values)
    exact = values.to(torch.float64)
    for found in (r, z):
        assert ((found - exact.sigmoid()) / exact.sigmoid()).abs().max() < 3 * epsilon
    expected = exact.tanh()
    assert torch.equal(n == 0, values == 0)
    assert ((n - expected) / expected.where(values != 0, 1)).abs().max() < 3 * epsilon


@needs_compiler
@every_dtype
def test_the_nonlinearities_saturate(dtype):
    big = torch.finfo(dtype).max
    values = torch.tensor([100, 1e4, big, float("inf")], dtype=dtype)
    for x in (values, -values):
        r, z, n = loops_of_one_unit(x)
        for found in (r, z):
            torch.testing.assert_close(found, x.sigmoid(), rtol=0, atol=1e-30)
        assert torch.equal(n, x.sign())


@needs_compiler
@every_dtype
@pytest.mark.parametrize("hidden", [8, 65])
def test_nan_comes_through(dtype, hidden):
    case = Case([[9, 7, 4]], hidden, dtype)
    for gate in range(GATES):
        projected = case.projected()
        projected[0, 6, 0, gate * hidden] = float("nan")  # time 2, sequence 0, forward
        states, *_, d_gates, d_new, _ = case.run(projected)
        assert states[0, 6, 0].isnan()
        row_of_time_8 = case.frames[0] - 1
        assert states[0, row_of_time_8, :hidden].isnan().all()
        assert not states[0, :6].isnan().any()
        assert not states[0, :, hidden:].isnan().any()
        assert d_gates[0, 0, 0].isnan().all()
        assert d_new[0, 0, 0].isnan().all()
        assert not d_gates[0, :, 1].isnan().any()


@needs_compiler
@pytest.mark.parametrize("lengths", [[2, 3], [4, -1], [4, 3]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    arguments = map(torch.zeros, ((1, 6, 2, 9), (1, 2, 9), (1, 2, 9, 3), (1, 2, 3)))
    message = rf"sequence lengths \[\[{lengths[0]}, {lengths[1]}\]\] .* no more than 6 frames"
    with pytest.raises(MemfeatError, match=message):
        kernel().forward(*arguments, torch.tensor([lengths]))


@needs_compiler
def test_a_type_that_has_no_loops_is_refused():
    arguments = map(torch.zeros, ((1, 6, 2, 9), (1, 2, 9), (1, 2, 9, 3), (1, 2, 3)))
    message = r"no loops for a layer of torch.float16; .* torch.float32, torch.float64"
    with pytest.raises(MemfeatError, match=message):
        kernel().forward(*(each.half() for each in arguments), torch.tensor([[3, 2]]))


@needs_compiler
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(1, 6, 2, 8)}, r"gates is torch.float32 \(1, 6, 2, 8\) .* \(1, 6, 2, 9\)"),
        ({1: torch.zeros(1, 2, 3)}, r"bias is torch.float32 \(1, 2, 3\) .* \(1, 2, 9\)"),
        ({2: torch.zeros(2, 2, 9, 3)}, r"w_hidden is torch.float32 \(2, 2, 9, 3\)"),
        ({2: torch.zeros(1, 2, 3, 9).mT}, "w_hidden is .* not contiguous"),
        ({3: torch.zeros(1, 2, 3).double()}, "b_new is torch.float64 .* must be torch.float32"),
        ({4: torch.ones(2, 2).long()}, r"lengths is torch.int64 \(2, 2\)"),
        ({4: torch.ones(1, 2)}, r"lengths is torch.float32 \(1, 2\) .* must be torch.int64"),
        ({0: torch.zeros(1, 6, 2, 9).half()}, "bias is torch.float32 .* be torch.float16"),
        (
            {5: Dropout(torch.zeros(1, 6, 6), 0, 1.0)},
            r"dropout is torch.float32 .* must be torch.int16 \(1, 6, 6\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message):
    arguments = [
        *map(torch.zeros, ((1, 6, 2, 9), (1, 2, 9), (1, 2, 9, 3), (1, 2, 3))),
        *(torch.tensor([[3, 2]]), None),
    ]
    for i, other in change.items():
        arguments[i] = other
    with pytest.raises(MemfeatError, match=message):
        kernel().forward(*arguments)
