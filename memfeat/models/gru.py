"""A bidirectional GRU layer in plain torch, of several models at once, with its own backward.

The mathematics is that of `torch.nn.GRU`; what differs is how little is done at each time step.
Both directions of all models are one batched product, each works on a sequence's real frames only
(the backward one on the sequence turned round within its own length), and whatever does not hang
on the step before is done for all steps at once, before or after the loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, once_differentiable

DIRECTIONS = 2


@dataclass(frozen=True)
class Layout:
    """Where the real frames of a batch of sequences lie, and in which order they are visited.

    The longest sequence comes first, so that those still running at a step are the first ones.
    Two orders of the same rows are in use:

    - packed, (models, rows, ...): the frames by time, then by sequence; each model has as many
      rows as any of them needs, and those it does not need are never `real`;
    - stepped, (rows * models * 2, ...): by step, model, direction and sequence, the backward
      direction's sequences turned round, so that a step is one contiguous batch of matrices.

    Attributes:
        models: number of models.
        running: how many sequences are still running at each step.
        source: int64 (inputs, rows), the padded batch's frame behind each packed row, the batch
            flattened to (inputs * batch * time, ...); inputs is 1 if the models share it.
        real: bool (inputs, rows), false where a model's sequences ended before another's;
            None where that happens nowhere.
        stepped: int64, the row of (models, rows, 2) that stands at each stepped place.
        packed: int64, the other way round.
        before: int64, the stepped place of the step before, counted behind the first step's zeros.
        group: int64, which of the (models, 2) recurrences a stepped place belongs to.
    """

    models: int
    running: tuple[int, ...]
    source: Tensor
    real: Tensor | None
    stepped: Tensor
    packed: Tensor
    before: Tensor
    group: Tensor

    @classmethod
    def of(cls, lengths: Tensor, time: int, models: int = 1) -> Self:
        """Lay out sequences of the given lengths.

        Args:
            lengths: int64 (inputs, batch), each in [1, time]; inputs is `models`, or 1 if they
                share their input.
            time: steps of the padded batch.
            models: number of models.
        """
        inputs, batch = lengths.shape
        ordered, order = lengths.sort(dim=1, descending=True, stable=True)
        # (time, batch): whether any model needs the row.
        needed = torch.arange(int(ordered.max())).unsqueeze(1) < ordered.amax(0)
        step, place = needed.nonzero(as_tuple=True)
        rows = len(step)
        row_of = torch.zeros(needed.shape, dtype=torch.int64)
        row_of[needed] = torch.arange(rows)
        length = ordered[:, place]
        real = step < length
        turned = row_of[torch.where(real, length - 1 - step, step), place]

        running = needed.sum(1)
        groups = models * DIRECTIONS
        # Stepped place of (group, row), and the packed row that belongs there.
        start = groups * (row_of[:, 0][step])
        group = torch.arange(groups).unsqueeze(1)
        at = start + group * running[step] + place
        
        return cls(models, tuple(running.tolist()), source, None if real.all() else real, stepped, packed, before, group)
