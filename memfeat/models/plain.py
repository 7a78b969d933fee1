"""The time loops of a GRU layer in plain torch, for machines without a C++ compiler.

A step is a few calls that cost as much to launch as to do. So both directions are one batched
product, and what does not depend on the step before is done for all steps at once, before or after
the loop.

Here frames are in the order of steps, (steps, 2, batch, ...), the backward direction's sequences
reversed within their own lengths. Sequences that have ended go on idly: nothing reads their states,
and no gradient comes from them.
"""

import torch
from torch import Tensor

from memfeat.models.dropout import Dropout

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def forward(  # noqa: PLR0917
    projected: Tensor,
    bias: Tensor,
    w_hidden: Tensor,
    b_new: Tensor,
    batch_sizes: Tensor,
    dropout: Dropout | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run through time; as `memfeat.models.native.NativeLoops.forward`."""
    rows, _, width = projected.shape
    hidden = width // 3
    steps, batch = len(batch_sizes), int(batch_sizes[0])
    index = _index_of_steps(batch_sizes)
    gates = projected.new_zeros(steps, 2, batch, width)
    gates.view(-1, width)[index] = (projected + bias).view(-1, width)
    new = gates[..., 2 * hidden :].clone()
    gates[..., 2 * hidden :] = b_new.unsqueeze(1)
    states = gates.new_zeros(steps + 1, 2, batch, hidden)
    # In this order, the product with so few rows takes two thirds of the time.
    weight = w_hidden.mT.contiguous()
    r_and_z, parts = gates[..., : 2 * hidden], gates.chunk(3, dim=-1)
    for gate, rz, r, z, c, n, before, after in zip(
        gates, r_and_z, *parts, new, states[:-1], states[1:], strict=True
    ):
        gate.baddbmm_(before, weight)
        rz.sigmoid_()
        n.addcmul_(r, c).tanh_()
        torch.lerp(n, before, z, out=after)
    kept = states[1:].view(-1, hidden)[index].view(rows, 2 * hidden)
    if dropout is not None:
        kept = dropout.of(kept)
    return kept, (gates, new, states, index)


def backward(
    d_kept: Tensor, saved: tuple[Tensor, ...], w_hidden: Tensor, dropout: Dropout | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run back through time; as `memfeat.models.native.NativeLoops.backward`."""
    gates, n, states, index = saved
    hidden = n.shape[-1]
    if dropout is not None:
        d_kept = dropout.of(d_kept)
    r, z, c = gates.chunk(3, dim=-1)
    before = states[:-1]
    d_states = torch.zeros_like(states)
    d_states[1:].view(-1, hidden)[index] = d_kept.reshape(-1, hidden)
    # A gate's gradient is a factor times its state's. The factors of all steps are found at once.
    d_gates = torch.empty_like(gates)
    d_r, d_z, d_c = d_gates.chunk(3, dim=-1)
    d_n = _tanh_backward(1 - z, n)
    _sigmoid_backward(d_n * c, r, grad_input=d_r)
    _sigmoid_backward(before - n, z, grad_input=d_z)
    torch.mul(d_n, r, out=d_c)
    factors = d_gates.view(*z.shape[:-1], 3, hidden)
    steps = zip(factors, d_gates, z, d_states[1:], d_states[:-1], strict=True)
    for factor, d_gate, kept, d_after, d_before in reversed(list(steps)):
        factor.mul_(d_after.unsqueeze(-2))
        d_before.addcmul_(d_after, kept).baddbmm_(d_gate, w_hidden)
    d_n *= d_states[1:]
    by_row = (each.flatten(0, 2)[index].view(-1, 2, each.shape[-1]) for each in (d_gates, d_n))
    return *by_row, before.flatten(0, 2)[index].view(-1, 2, hidden)  # type: ignore[return-value]


def _index_of_steps(batch_sizes: Tensor) -> Tensor:
    """Return where in (steps, 2, batch) each row's two directions are, int64 (rows * 2,)."""
    batch = int(batch_sizes[0])
    lengths = (batch_sizes.unsqueeze(1) > torch.arange(batch)).sum(0)
    time = torch.arange(len(batch_sizes)).repeat_interleave(batch_sizes)
    sequence = torch.arange(len(time)) - (batch_sizes.cumsum(0) - batch_sizes)[time]
    from_the_end = lengths[sequence] - 1 - time
    return (
        torch.stack([2 * time, 2 * from_the_end + 1], dim=1)
        .mul_(batch)
        .add_(sequence.unsqueeze(1))
        .flatten()
    )
