"""Where the frames of padded sequences lie while recurrent layers run over them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from memfeat.errors import MemfeatError

DIRECTIONS = 2
# A run costs as much as a step, so steps are given some more sequences than they need for fewer.
SPARE = 4 / 3


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
class Layout:
    """Two orders of the frames of a padded batch, and the ways between them.

    - Packed, (models, rows, ...): each model's real frames by time, the longest sequence first.
      Where models have batches of their own, the shorter ones end in rows that are no frames.
    - Stepped, (places, ...): by step, model, direction and sequence, the backward direction's
      sequences turned round within their own lengths. A step is one contiguous batch of matrices.
      Some places are idle: they hold something finite that nothing depends on.

    Attributes:
        padded: models or 1 if they share one batch, batch and time of the padded frames.
        runs: the steps, cut so that each run is given about the sequences still running.
        source: int64 (models, rows), which row of the padded (models * batch * time, ...) a
            packed one is.
        real: bool (models, rows), false for rows that are no frames.
        to_stepped: int64, the row of the packed (models * rows * 2, ...) at each place.
        to_packed: int64, the place of each row of the packed (models * rows * 2, ...).
        idle: int64, the idle places.
        before: int64, where each place finds its state before the step among the states, if the
            first step's zeros lead them.
    """

    padded: tuple[int, int, int]
    runs: tuple[Run, ...]
    source: Tensor
    real: Tensor
    to_stepped: Tensor
    to_packed: Tensor
    idle: Tensor
    before: Tensor

    @classmethod
    def of(cls, lengths: Tensor, time: int, models: int = 1) -> Self:
        """Lay out a padded batch.

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
        groups = models * DIRECTIONS
        ordered, order = lengths.expand(models, -1).sort(descending=True, stable=True)
        steps = torch.arange(int(ordered.max()))
        running = steps.unsqueeze(1) < ordered.unsqueeze(1)
        runs = tuple(_runs(running.sum(2).amax(0).tolist(), groups))
        size = torch.tensor([run.shape[2] for run in runs for _ in range(run.shape[0])])
        first = groups * (size.cumsum(0) - size)

        def place(step: Tensor, group: Tensor, sequence: Tensor) -> Tensor:
            return first[step] + group * size[step] + sequence

        model, step, sequence = running.nonzero(as_tuple=True)
        frames = ordered.sum(1, keepdim=True)
        real = torch.arange(int(frames.max())) < frames
        source = torch.zeros(real.shape, dtype=torch.int64)
        source[real] = (model * batch + order[model, sequence]) * time + step
        turned = ordered[model, sequence] - 1 - step
        forward = place(step, DIRECTIONS * model, sequence)
        backward = place(turned, DIRECTIONS * model + 1, sequence)
        used = torch.stack([forward, backward], dim=1)

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
        return cls(
            (inputs, batch, time),
            runs,
            source,
            real,
            to_stepped,
            to_packed.flatten(),
            idle,
            torch.where(step == 0, within, before),
        )

    def pack(self, frames: Tensor) -> Tensor:
        """Return frames, (models or 1, batch, time, dim), as (models, rows, dim).

        Rows that are no frames are zero.
        """
        source, real = self.source[: len(frames)], self.real[: len(frames)]
        packed = frames.flatten(0, 2).index_select(0, source.flatten()).view(*source.shape, -1)
        if not real.all():
            packed.masked_fill_(~real.unsqueeze(-1), 0.0)
        return packed.expand(len(self.source), -1, -1)

    def pad(self, packed: Tensor) -> Tensor:
        """Return packed (models, rows, dim) as (models, batch, time, dim), zero where padded."""
        models, _, dim = packed.shape
        shape = (models, *self.padded[1:], dim)
        size = models * self.padded[1] * self.padded[2]
        # Rows that are no frames go to one place more, which is cut off.
        target = self.source.where(self.real, size).flatten()
        padded = packed.new_zeros(size + 1, dim).index_copy(0, target, packed.flatten(0, 1))
        return padded[:-1].view(shape)

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
