"""A bidirectional GRU layer of several models at once, in plain torch with its own backward.

The mathematics is that of `torch.nn.GRU`; what differs is how little is left to do at a time step.
Both directions of all models are one batched product, sequences that have ended take no part, and
what does not hang on the step before is done for all steps at once, before or after the loop.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from memfeat.models.layout import DIRECTIONS, Layout

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


class GruWeights(NamedTuple):
    """One layer's weights: those of `nn.GRU`, stacked over models and directions.

    Attributes:
        input: `weight_ih`, (models, 2, 3 * hidden, dim); the gates are reset, update, new.
        hidden: `weight_hh`, (models, 2, 3 * hidden, hidden).
        input_bias: `bias_ih`, (models, 2, 3 * hidden).
        hidden_bias: `bias_hh`, (models, 2, 3 * hidden).
    """

    input: Tensor
    hidden: Tensor
    input_bias: Tensor
    hidden_bias: Tensor


def gru_layer(frames: Tensor, weights: GruWeights, layout: Layout) -> Tensor:
    """Run one bidirectional layer of each model.

    Args:
        frames: (models, rows, dim), packed.
        weights: the layer's weights, of the same floating type.
        layout: what packed the frames.

    Returns:
        (models, rows, 2 * hidden), packed: the states of the forward, then of the backward
        direction. It can be differentiated once.
    """
    states: Tensor = _GruLayer.apply(frames, layout, *weights)
    return states


class _GruLayer(Function):
    """One layer; `r z n` are its gates, and `c` what r is multiplied with inside n."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, layout: Layout, *weights: Tensor) -> Tensor:
        w_input, w_hidden, b_input, b_hidden = weights
        models, _, width, hidden = w_hidden.shape
        both = 2 * hidden
        bias = b_input.clone()
        bias[..., :both] += b_hidden[..., :both]
        weight = w_input.flatten(1, 2).mT
        projected = torch.baddbmm(bias.view(models, 1, -1), frames, weight).view(-1, width)

        gates = projected.index_select(0, layout.to_stepped)
        n = gates[:, both:].clone()
        b_new = b_hidden[..., both:].reshape(-1, 1, hidden)
        for run in layout.runs:
            run.grid(gates)[..., both:] = b_new
        states = _run(gates, n, w_hidden.flatten(0, 1), layout)
        ctx.layout = layout
        ctx.save_for_backward(frames, w_input, w_hidden, gates, n, states)
        reached = states[-len(gates) :]
        return reached.index_select(0, layout.to_packed).view(models, -1, DIRECTIONS * hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        frames, w_input, w_hidden, gates, n, states = ctx.saved_tensors
        models, _, width, hidden = w_hidden.shape
        both = 2 * hidden

        before = states.index_select(0, layout.before)
        d_states = gradient.reshape(-1, hidden).index_select(0, layout.to_stepped)
        d_states.index_fill_(0, layout.idle, 0)
        d_gates, d_n = _factors(gates, n, before)
        _run_back(d_states, d_gates, gates[:, hidden:both], w_hidden.flatten(0, 1), layout)
        d_n *= d_states

        d_packed = d_gates.index_select(0, layout.to_packed)
        d_gates = d_packed.view(models, -1, DIRECTIONS, width)
        before = before.index_select(0, layout.to_packed).view(models, -1, DIRECTIONS, hidden)
        d_w_hidden = torch.stack(
            [(before[:, :, i].mT @ d_gates[:, :, i]).mT for i in range(DIRECTIONS)], dim=1
        )
        d_b_hidden = d_gates.sum(1)
        # The inputs go into n itself, where the states go into c; into r and z they go alike.
        torch.index_select(d_n, 0, layout.to_packed, out=d_packed[:, both:])
        d_b_input = d_b_hidden.clone()
        d_b_input[..., both:] = d_gates[..., both:].sum(1)
        d_projected = d_gates.flatten(2)
        d_w_input = (d_projected.mT @ frames).view_as(w_input)
        d_frames = None
        # Not needed of the first layer, whose product is the largest.
        if ctx.needs_input_grad[0]:
            d_frames = d_projected @ w_input.flatten(1, 2)
        return d_frames, None, d_w_input, d_w_hidden, d_b_input, d_b_hidden


def _run(gates: Tensor, n: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    """Run through time: five calls a step, each of which costs as much to launch as to do.

    Args:
        gates: stepped (places, 3 * hidden): r, z and c without their products with the state;
            complete afterwards.
        n: stepped (places, hidden): without c; complete afterwards.
        weight: (models * 2, 3 * hidden, hidden).
        layout: the order of things.

    Returns:
        The states, (places, hidden), behind the zeros before the first step.
    """
    hidden = weight.shape[2]
    # In this order, the product with so few rows takes two thirds of the time.
    weight = weight.mT.contiguous()
    zeros = len(weight) * layout.runs[0].shape[2]
    states = gates.new_empty(zeros + len(gates), hidden)
    after = layout.steps(states[zeros:])
    start = states[:zeros].zero_().view_as(after[0])
    for gate, rz, r, z, c, new, before, state in zip(
        layout.steps(gates),
        layout.steps(gates[:, : 2 * hidden]),
        *(layout.steps(part) for part in gates.chunk(3, dim=1)),
        layout.steps(n),
        [start, *layout.at_next_step(after)],
        after,
        strict=True,
    ):
        gate.baddbmm_(before, weight)
        rz.sigmoid_()
        new.addcmul_(r, c).tanh_()
        torch.lerp(new, before, z, out=state)
    return states


def _factors(gates: Tensor, n: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a state's gradient is multiplied with to give its gates'.

    No factor hangs on a gradient, so those of all steps are found at once.

    Returns:
        Stepped (places, 3 * hidden) for r, z and c, and (places, hidden) for n, each before its
        nonlinearity.
    """
    r, z, c = gates.chunk(3, dim=1)
    factors = torch.empty_like(gates)
    of_r, of_z, of_c = factors.chunk(3, dim=1)
    # In place, for memory is slower than arithmetic here.
    of_n = 1 - z
    _tanh_backward(of_n, n, grad_input=of_n)
    torch.mul(of_n, c, out=of_r)
    _sigmoid_backward(of_r, r, grad_input=of_r)
    torch.sub(before, n, out=of_z)
    _sigmoid_backward(of_z, z, grad_input=of_z)
    torch.mul(of_n, r, out=of_c)
    return factors, of_n


def _run_back(d_states: Tensor, factors: Tensor, z: Tensor, weight: Tensor, layout: Layout) -> None:
    """Run back through time, three calls a step.

    Args:
        d_states: stepped (places, hidden): the states' gradients but for what comes from later
            steps; complete afterwards.
        factors: stepped (places, 3 * hidden), of r, z and c; afterwards their gradients.
        z: stepped (places, hidden).
        weight: (models * 2, 3 * hidden, hidden).
        layout: the order of things.
    """
    d_after = layout.steps(d_states)
    steps = zip(
        layout.steps(factors.view(len(factors), 3, -1)),
        layout.steps(factors),
        layout.steps(d_states.unsqueeze(1)),
        layout.steps(z),
        d_after,
        # The state before the first step is a constant.
        [None, *layout.at_next_step(d_after)],
        strict=True,
    )
    for factor, d_gates, d_rows, kept, d_state, d_before in reversed(list(steps)):
        factor.mul_(d_rows)
        if d_before is not None:
            d_before.addcmul_(d_state, kept).baddbmm_(d_gates, weight)
