"""The one order of frames in which recurrent layers pass them on: packed, no padding between."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from memfeat.errors import MemfeatError

DIRECTIONS = 2


@dataclass(frozen=True, eq=False)
class Packing:
    """How the real frames of padded batches are packed: by time, the longest sequence first.

    It is the order of torch's `PackedSequence`. Where several models run at once, each has its
    own rows; the models with fewer frames end in rows that are none.

    Attributes:
        padded: models or 1 if they share one batch, batch and time of the padded frames.
        lengths: int64 (models, batch), descending within each model.
        source: int64 (models, rows), which row of the padded (models * batch * time, ...) a
            packed one is.
        real: bool (models, rows), false for rows that are no frames.
    """

    padded: tuple[int, int, int]
    lengths: Tensor
    source: Tensor
    real: Tensor

    @classmethod
    def of(cls, lengths: Tensor, time: int, models: int = 1) -> Self:
        """Plan the packing of padded batches.

        Args:
            lengths: int64 (models, batch), or (1, batch) where models share one; in [1, time].
            time: steps of the padded batch.
            models: number of models.

        Raises:
            MemfeatError: a length is out of range.
        """
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= time:
            raise MemfeatError(
                f"sequence lengths {lengths.tolist()} must lie in [1, {time}], the steps of their "
                "batch; give each sequence its number of real frames, and leave out empty ones"
            )
        inputs, batch = lengths.shape
        ordered, order = lengths.sort(descending=True, stable=True)
        running = torch.arange(int(ordered.max())).unsqueeze(1) < ordered.unsqueeze(1)
        model, step, sequence = running.nonzero(as_tuple=True)
        frames = ordered.sum(1, keepdim=True)
        real = torch.arange(int(frames.max())) < frames
        source = torch.zeros(real.shape, dtype=torch.int64)
        source[real] = (model * batch + order[model, sequence]) * time + step
        return cls(
            (inputs, batch, time),
            ordered.expand(models, -1).contiguous(),
            source.expand(models, -1),
            real.expand(models, -1),
        )

    @cached_property
    def frames(self) -> list[int]:
        """How many frames each model has."""
        return self.lengths.sum(1).tolist()

    @cached_property
    def running(self) -> Tensor:
        """How many sequences of each model reach each step, int64 (models, steps)."""
        steps = torch.arange(int(self.lengths.max())).view(-1, 1)
        return (steps < self.lengths.unsqueeze(1)).sum(2)

    def pack(self, frames: Tensor) -> Tensor:
        """Return frames, (models or 1, batch, time, dim), as (models or 1, rows, dim).

        Rows that are no frames are zero.
        """
        source, real = self.source[: len(frames)], self.real[: len(frames)]
        source, rows = source.to(frames.device), real.shape[1]
        packed = frames.flatten(0, 2).index_select(0, source.flatten()).view(len(frames), rows, -1)
        if not real.all():
            packed.masked_fill_(~real.unsqueeze(-1).to(frames.device), 0.0)
        return packed

    def pad(self, packed: Tensor) -> Tensor:
        """Return packed (models, rows, dim) as (models, batch, time, dim), zero where padded."""
        models, _, dim = packed.shape
        _, batch, time = self.padded
        source, size = self.source, models * batch * time
        if self.padded[0] < models:
            source = source + batch * time * torch.arange(models).unsqueeze(1)
        # Rows that are no frames go to one place more, which is cut off.
        target = torch.where(self.real, source, size).flatten().to(packed.device)
        padded = packed.new_zeros(size + 1, dim).index_copy(0, target, packed.flatten(0, 1))
        return padded[:-1].view(models, batch, time, dim)
