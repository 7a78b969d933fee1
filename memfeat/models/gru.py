"""One bidirectional GRU layer of several models at once, its time loops left to one of three.

The mathematics is that of `torch.nn.GRU`. Products over all frames are made here, before and
after the loops; the steps between are C++ (`native`), plain torch (`plain`), or the whole layer
is torch's own (`library`), which is cuDNN's on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from memfeat.errors import ConfigError
from memfeat.models import plain
from memfeat.models.dropout import Dropout
from memfeat.models.native import kernel
from memfeat.models.packing import DIRECTIONS, Packing

Backend = Literal["native", "plain", "library"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
_chosen: ContextVar[Backend | None] = ContextVar("backend", default=None)


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


def backend_for(device: torch.device) -> Backend:
    """Return what runs a layer there.

    On a CPU it is C++ where that can be built, or else plain torch. On a GPU each call of a step
    is a launch, and one kernel a layer, cuDNN's, is faster.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    if device.type != "cpu":
        return "library"
    return "native" if kernel() else "plain"


@contextmanager
def using_backend(name: Backend) -> Iterator[None]:
    """Let `name` run all layers for the while, to compare or to test.

    Raises:
        ConfigError: there is no such backend, or not here.
    """
    if name not in BACKENDS or (name == "native" and not kernel()):
        here = [each for each in BACKENDS if each != "native" or kernel()]
        raise ConfigError(f"no backend {name!r} here; choose one of {', '.join(here)}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def gru_layer(
    frames: Tensor, weights: GruWeights, packing: Packing, dropout: Dropout | None = None
) -> Tensor:
    """Run one bidirectional layer of each model.

    Args:
        frames: (models, rows, dim), packed; (1, rows, dim) where models share them.
        weights: the layer's weights, of the same floating type.
        packing: what packed the frames.
        dropout: of the layer's states, if any.

    Returns:
        (models, rows, 2 * hidden), packed: the states of the forward, then of the backward
        direction. It can be differentiated once.
    """
    backend = backend_for(frames.device)
    if backend == "library":
        states = _library_layer(frames, weights, packing)
        return states if dropout is None else dropout.of(states)
    return _GruLayer.apply(frames, packing, dropout, backend == "native", *weights)  # type: ignore[no-any-return]


class _GruLayer(Function):
    """One layer; `r z n` are its gates, and `c` what r is multiplied with inside n."""

    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        packing: Packing,
        dropout: Dropout | None,
        native: bool,
        *weights: Tensor,
    ) -> Tensor:
        w_input, w_hidden, b_input, b_hidden = weights
        models, _, width, hidden = w_hidden.shape
        both = 2 * hidden
        bias = b_input.clone()
        bias[..., :both] += b_hidden[..., :both]
        b_new = b_hidden[..., both:].contiguous()
        every, weight = frames.expand(models, -1, -1), w_input.flatten(1, 2).mT
        loops = kernel() if native else None
        saved: tuple[Tensor, ...]
        if loops:
            gates = _product(every, weight).view(models, -1, DIRECTIONS, width)
            states, c, kept = loops.forward(gates, bias, w_hidden, b_new, packing.lengths, dropout)
            saved = gates, c, states
        else:
            projected = _product(every, weight, bias.flatten(1))
            projected = projected.view(models, -1, DIRECTIONS, width)
            states, *others = plain.forward(projected, w_hidden, b_new, packing)
            kept = states if dropout is None else dropout.of(states)
            saved = tuple(others)
        ctx.packing, ctx.dropout, ctx.loops = packing, dropout, loops
        ctx.save_for_backward(frames, w_input, w_hidden, *saved)
        return kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, w_input, w_hidden, *saved = ctx.saved_tensors
        models, _, _, hidden = w_hidden.shape
        gradient = gradient.contiguous()
        if ctx.loops:
            gates, c, states = saved
            d_gates, d_n, before = ctx.loops.backward(
                gradient, gates, c, states, w_hidden, ctx.packing.lengths, ctx.dropout
            )
        else:
            if ctx.dropout is not None:
                gradient = ctx.dropout.of(gradient)
            d_gates, d_n, before = plain.backward(gradient, tuple(saved), w_hidden, ctx.packing)
        d_w_hidden = torch.stack(
            [_product(d_gates[:, :, i].mT, before[:, :, i]) for i in range(DIRECTIONS)], dim=1
        )
        d_b_hidden = d_gates.sum(1)
        # The inputs go into n itself, where the states go into c; into r and z they go alike.
        d_gates[..., 2 * hidden :] = d_n
        d_b_input = d_b_hidden.clone()
        d_b_input[..., 2 * hidden :] = d_n.sum(1)
        d_projected = d_gates.flatten(2)
        d_w_input = _product(d_projected.mT, frames.expand(models, -1, -1)).view_as(w_input)
        d_frames = None
        # Not needed of the first layer, whose product is the largest.
        if ctx.needs_input_grad[0]:
            d_frames = _product(d_projected, w_input.flatten(1, 2))
            if len(frames) < models:
                d_frames = d_frames.sum(0, keepdim=True)
        return d_frames, None, None, None, d_w_input, d_w_hidden, d_b_input, d_b_hidden


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply each model's matrices, and add its bias (models, columns) to all rows.

    A single model's need no batch; in one, transposed matrices would be copied.
    """
    if len(a) == 1:
        one = a[0] @ b[0] if bias is None else torch.addmm(bias[0], a[0], b[0])
        return one.unsqueeze(0)
    return a @ b if bias is None else torch.baddbmm(bias.unsqueeze(1), a, b)


def _library_layer(frames: Tensor, weights: GruWeights, packing: Packing) -> Tensor:
    """Run torch's own layer, model by model; packed rows are the order that it knows, too."""
    states = []
    for model, (running, count) in enumerate(zip(packing.running, packing.frames, strict=True)):
        rows = frames[model if len(frames) > 1 else 0]
        params = [each[model, i] for i in range(DIRECTIONS) for each in weights]
        start = frames.new_zeros(DIRECTIONS, packing.padded[1], weights.hidden.shape[-1])
        # Biases, one layer, no dropout, whether to train (cuDNN asks), both directions.
        options = True, 1, 0.0, torch.is_grad_enabled(), True
        out, _ = torch.gru(rows[:count], running[running > 0], start, params, *options)
        states.append(torch.nn.functional.pad(out, (0, 0, 0, rows.shape[0] - count)))
    return torch.stack(states)
