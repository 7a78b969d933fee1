"""The time loops of a bidirectional GRU layer in plain torch, several models at once.

A step is a few calls that cost as much to launch as to do. So both directions of all models are
one batched product, sequences that have ended take no part, and what does not hang on the step
before is done for all steps at once, before or after the loop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import torch
from torch import Tensor

from memfeat.models.packing import DIRECTIONS, Packing

# A run costs as much as a step, so steps are given some more sequences than they need for fewer.
SPARE = 4 / 3

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def forward(
    projected: Tensor, w_hidden: Tensor, b_new: Tensor, packing: Packing
) -> tuple[Tensor, ...]:
    """Run through time; see `memfeat.models.gru.Loops`."""
    models, rows, _, width = projected.shape
    hidden = width // 3
    both = 2 * hidden
    stepping = Stepping.of(packing)
    gates = projected.view(-1, width).index_select(0, stepping.to_stepped)
    n = gates[:, both:].clone()
    b_new = b_new.reshape(-1, 1, hidden)
    for run in stepping.runs:
        run.grid(gates)[..., both:] = b_new
    states = _run(gates, n, w_hidden.flatten(0, 1), stepping)
    reached = states[-len(gates) :].index_select(0, stepping.to_packed)
    return reached.view(models, rows, both), gates, n, states


def backward(
    d_states: Tensor, saved: tuple[Tensor, ...], w_hidden: Tensor, packing: Packing
) -> tuple[Tensor, Tensor, Tensor]:
    """Run back through time; see `memfeat.models.gru.Loops`."""
    models, rows, both = d_states.shape
    hidden = both // 2
    gates, n, states = saved
    stepping = Stepping.of(packing)
    before = states.index_select(0, stepping.before)
    d_stepped = d_states.reshape(-1, hidden).index_select(0, stepping.to_stepped)
    d_stepped.index_fill_(0, stepping.idle, 0)
    d_gates, d_n = _factors(gates, n, before)
    _run_back(d_stepped, d_gates, gates[:, hidden:both], w_hidden.flatten(0, 1), stepping)
    d_n *= d_stepped
    shape = models, rows, DIRECTIONS, -1
    return (
        d_gates.index_select(0, stepping.to_packed).view(shape),
        d_n.index_select(0, stepping.to_packed).view(shape),
        before.index_select(0, stepping.to_packed).view(shape),
    )


class Run(NamedTuple):
    """Consecutive steps given the same number of sequences.

    Attributes:
        rows: its stepped places.
        shape: steps, models * 2, sequences.
    """

    rows: slice
    shape: tuple[int, int, int]

    def grid(self, stepped: Tensor) -> Tensor:
        """Return the run's part of stepped rows, (steps, models * 2, sequences, ...)."""
        return stepped[self.rows].view(*self.shape, *stepped.shape[1:])


@dataclass(frozen=True, eq=False)
class Stepping:
    """The order of the loops, and the ways from packed rows to it and back.

    Stepped, (places, ...): by step, model, direction and sequence, the backward direction's
    sequences turned round within their own lengths. A step is one contiguous batch of matrices.
    Some places are idle: they hold something finite that nothing depends on.

    Attributes:
        runs: the steps, cut so that each run is given about the sequences still running.
        to_stepped: int64, the row of the packed (models * rows * 2, ...) at each place.
        to_packed: int64, the place of each row of the packed (models * rows * 2, ...).
        idle: int64, the idle places.
        before: int64, where each place finds its state before the step among the states, if the
            first step's zeros lead them.
    """

    runs: tuple[Run, ...]
    to_stepped: Tensor
    to_packed: Tensor
    idle: Tensor
    before: Tensor

    @classmethod
    @lru_cache(maxsize=1)  # for the layers of one batch
    def of(cls, packing: Packing) -> Self:
        """Order a packing's rows by steps."""
        ordered, real = packing.lengths, packing.real
        models, batch = ordered.shape
        groups = models * DIRECTIONS
        steps = torch.arange(packing.running.shape[1])
        runs = tuple(_runs(packing.running.amax(0).tolist(), groups))
        size = torch.tensor([run.shape[2] for run in runs for _ in range(run.shape[0])])
        first = groups * (size.cumsum(0) - size)

        def place(step: Tensor, group: Tensor, sequence: Tensor) -> Tensor:
            return first[step] + group * size[step] + sequence

        running = steps.unsqueeze(1) < ordered.unsqueeze(1)
        model, step, sequence = running.nonzero(as_tuple=True)
        turned = ordered[model, sequence] - 1 - step
        ahead = place(step, DIRECTIONS * model, sequence)
        back = place(turned, DIRECTIONS * model + 1, sequence)
        used = torch.stack([ahead, back], dim=1)

        places = runs[-1].rows.stop
        idle = torch.ones(places, dtype=torch.bool)
        idle[used] = False
        idle = idle.nonzero().squeeze(1)
        packed = torch.arange(real.numel() * DIRECTIONS).view(*real.shape, DIRECTIONS)
        to_stepped = torch.zeros(places, dtype=torch.int64)
        to_stepped[used] = packed[real]
        # Rows that are no frames look at an idle place; where there are such, there is one.
        to_packed = torch.full_like(packed, int(idle[0]) if len(idle) else 0)
        to_packed[real] = used

        step = steps.repeat_interleave(groups * size)
        within = torch.arange(places) - first[step]
        before = place(step - 1, within // size[step], within % size[step]) + groups * batch
        before = torch.where(step == 0, within, before)
        return cls(runs, to_stepped, to_packed.flatten(), idle, before)

    def steps(self, stepped: Tensor) -> list[Tensor]:
        """Return stepped rows as views (models * 2, sequences, ...), one for each step."""
        return [step for run in self.runs for step in run.grid(stepped).unbind()]

    def at_next_step(self, steps: list[Tensor]) -> list[Tensor]:
        """Return each step but the last without the sequences that the next is not given."""
        kept = steps[:-1]
        last = -1
        for run, following in zip(self.runs, self.runs[1:], strict=False):
            last += run.shape[0]
            kept[last] = kept[last][:, : following.shape[2]]
        return kept


def _runs(running: list[int], groups: int) -> Iterator[Run]:
    """Cut steps, of which each needs `running` sequences or more, into runs."""
    step = end = 0
    while step < len(running):
        size = running[step]
        steps = sum(n * SPARE > size for n in running[step:])
        start, end, step = end, end + steps * groups * size, step + steps
        yield Run(slice(start, end), (steps, groups, size))


def _run(gates: Tensor, n: Tensor, weight: Tensor, stepping: Stepping) -> Tensor:
    """Run through time: five calls a step, each of which costs as much to launch as to do.

    Args:
        gates: stepped (places, 3 * hidden): r, z and c without their products with the state;
            complete afterwards.
        n: stepped (places, hidden): without c; complete afterwards.
        weight: (models * 2, 3 * hidden, hidden).
        stepping: the order of things.

    Returns:
        The states, (places, hidden), behind the zeros before the first step.
    """
    hidden = weight.shape[2]
    # In this order, the product with so few rows takes two thirds of the time.
    weight = weight.mT.contiguous()
    zeros = len(weight) * stepping.runs[0].shape[2]
    states = gates.new_empty(zeros + len(gates), hidden)
    after = stepping.steps(states[zeros:])
    start = states[:zeros].zero_().view_as(after[0])
    for gate, rz, r, z, c, new, before, state in zip(
        stepping.steps(gates),
        stepping.steps(gates[:, : 2 * hidden]),
        *(stepping.steps(part) for part in gates.chunk(3, dim=1)),
        stepping.steps(n),
        [start, *stepping.at_next_step(after)],
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


def _run_back(
    d_states: Tensor, factors: Tensor, z: Tensor, weight: Tensor, stepping: Stepping
) -> None:
    """Run back through time, three calls a step.

    Args:
        d_states: stepped (places, hidden): the states' gradients but for what comes from later
            steps; complete afterwards.
        factors: stepped (places, 3 * hidden), of r, z and c; afterwards their gradients.
        z: stepped (places, hidden).
        weight: (models * 2, 3 * hidden, hidden).
        stepping: the order of things.
    """
    d_after = stepping.steps(d_states)
    steps = zip(
        stepping.steps(factors.view(len(factors), 3, -1)),
        stepping.steps(factors),
        stepping.steps(d_states.unsqueeze(1)),
        stepping.steps(z),
        d_after,
        # The state before the first step is a constant.
        [None, *stepping.at_next_step(d_after)],
        strict=True,
    )
    for factor, d_gates, d_rows, kept, d_state, d_before in reversed(list(steps)):
        factor.mul_(d_rows)
        if d_before is not None:
            d_before.addcmul_(d_state, kept).baddbmm_(d_gates, weight)
