"""The bidirectional recurrence behind both Bi-GRU aggregators.

The mathematics is that of `torch.nn.GRU`. What runs a layer is one of three: C++ on a CPU
(`native`), plain torch where no C++ can be built (`plain`), torch's own layer (`library`), which is
cuDNN's, on a GPU. Dropout is drawn here, so that a seed's masks are the same with all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from memfeat.errors import ConfigError, MemfeatError
from memfeat.models import plain
from memfeat.models.dropout import Dropout
from memfeat.models.native import kernel

Backend = Literal["native", "plain", "library"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
KINDS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"

_chosen: ContextVar[Backend | None] = ContextVar("backend", default=None)


def backend_for(device: torch.device) -> Backend:
    """Return what runs a layer there.

    On a GPU each call of a step is a launch, and cuDNN's one kernel a layer is faster.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    if device.type != "cpu":
        return "library"
    return "native" if kernel() else "plain"


@contextmanager
def using_backend(name: Backend) -> Iterator[None]:
    """Run all layers with `name` inside the `with` block, to compare or to test.

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


class BiGru(nn.GRU):
    """Bidirectional GRU layers with dropout after each, the last included.

    It is an `nn.GRU`, so weights go from one to the other by name. What differs is the last
    dropout, which `nn.GRU` leaves out, and that a sequence's own length bounds both directions:
    the backward one starts at the last real frame and never sees padding.
    """

    def __init__(self, dim: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__(dim, hidden, layers, batch_first=True, bidirectional=True)
        self.dropout = dropout

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Return the last layer's states; in training, dropout asks torch's own generator.

        Args:
            frames: (batch, time, dim).
            lengths: int64 (batch,), each in [1, time]; on the CPU it costs no synchronisation.

        Returns:
            (batch, time, 2 * hidden), forward then backward direction; zero where padded. It can
            be differentiated once.

        Raises:
            MemfeatError: a length is out of range.
        """
        lengths, time = lengths.cpu(), frames.shape[1]
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= time:
            raise MemfeatError(
                f"sequence lengths {lengths.tolist()} must lie in [1, {time}], the steps of their "
                "batch; give each sequence its number of real frames, and leave out empty ones"
            )
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        states, width = packed.data, 2 * self.hidden_size
        run = _library_layer if backend_for(frames.device) == "library" else _looped_layer
        for layer in range(self.num_layers):
            dropout = None
            if self.training and self.dropout:
                dropout = Dropout.draw(self.dropout, len(states), width, states.device)
            states = run(states, packed.batch_sizes, dropout, self.layer_parameters(layer))
        packed = packed._replace(data=states)
        return pad_packed_sequence(packed, batch_first=True, total_length=time)[0]

    def layer_parameters(self, layer: int) -> list[Tensor]:
        """Return a layer's `KINDS` of the forward direction, then of the backward one."""
        return [getattr(self, f"{k}_l{layer}{end}") for end in ("", "_reverse") for k in KINDS]

    def flatten_parameters(self) -> None:
        """Give each layer's weights one block of memory, as cuDNN wants those of one call."""
        if not self.weight_ih_l0.is_cuda:
            return
        for layer in range(self.num_layers):
            own = self.layer_parameters(layer)
            single = nn.GRU(own[0].shape[1], self.hidden_size, bidirectional=True, device="meta")
            for name, parameter in zip(list(single._parameters), own, strict=True):
                setattr(single, name, parameter)
            single.flatten_parameters()


def _library_layer(
    rows: Tensor, batch_sizes: Tensor, dropout: Dropout | None, weights: list[Tensor]
) -> Tensor:
    """Run torch's own layer."""
    start = rows.new_zeros(2, int(batch_sizes[0]), weights[1].shape[1])
    # Biases, one layer, no dropout, whether to train (cuDNN asks), both directions.
    options = True, 1, 0.0, torch.is_grad_enabled(), True
    states, _ = torch.gru(rows, batch_sizes, start, weights, *options)
    return states if dropout is None else dropout.of(states)


def _looped_layer(
    rows: Tensor, batch_sizes: Tensor, dropout: Dropout | None, weights: list[Tensor]
) -> Tensor:
    loops = plain if backend_for(rows.device) == "plain" else kernel()
    states: Tensor = _LoopedLayer.apply(rows, batch_sizes, dropout, loops, *weights)
    return states


class _LoopedLayer(Function):
    """One layer around loops over time, before and after which all frames' products are made."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        batch_sizes: Tensor,
        dropout: Dropout | None,
        loops: Any,
        *weights: Tensor,
    ) -> Tensor:
        both_directions = zip(weights[:4], weights[4:], strict=True)
        w_input, w_hidden, b_input, b_hidden = (torch.stack(pair) for pair in both_directions)
        _, width, hidden = w_hidden.shape
        b_input[:, : 2 * hidden] += b_hidden[:, : 2 * hidden]
        b_new = b_hidden[:, 2 * hidden :].contiguous()
        projected = (rows @ w_input.flatten(0, 1).T).view(-1, 2, width)
        kept, saved = loops.forward(projected, b_input, w_hidden, b_new, batch_sizes, dropout)
        ctx.dropout, ctx.loops = dropout, loops
        ctx.save_for_backward(rows, w_input, w_hidden, *saved)
        return kept  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, w_input, w_hidden, *saved = ctx.saved_tensors
        hidden = w_hidden.shape[-1]
        d_gates, d_new, before = ctx.loops.backward(
            gradient.contiguous(), saved, w_hidden, ctx.dropout
        )
        d_w_hidden = [d_gates[:, i].T @ before[:, i] for i in (0, 1)]
        d_b_hidden = d_gates.sum(0)
        # The inputs go into the new gate itself, where the states go into what the reset gate is
        # multiplied with; into the other two gates they go alike.
        d_gates[..., 2 * hidden :] = d_new
        d_b_input = d_b_hidden.clone()
        d_b_input[:, 2 * hidden :] = d_new.sum(0)
        d_projected = d_gates.flatten(1)
        d_w_input = (d_projected.T @ rows).view_as(w_input)
        # Not needed of the first layer, whose product is the largest.
        d_rows = d_projected @ w_input.flatten(0, 1) if ctx.needs_input_grad[0] else None
        kinds = d_w_input, d_w_hidden, d_b_input, d_b_hidden
        return d_rows, None, None, None, *(kind[i] for i in (0, 1) for kind in kinds)
