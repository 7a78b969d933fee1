"""Dropout of several models' packed states, each model's from a generator of its own."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Generator, Tensor

from memfeat.models.packing import Packing

WORD = 2**16  # what sixteen bits can tell apart


class Dropout(NamedTuple):
    """Sixteen random bits for each state, and the least that keeps it.

    So a probability is met to within 2 ** -17. Words are drawn much faster than `bernoulli_` draws.

    Attributes:
        bits: int16 (models, rows, width), packed; anything in rows that are no frames.
        threshold: states whose bits are below it become zero.
        scale: what the others are multiplied with, so that the mean stays.
    """

    bits: Tensor
    threshold: int
    scale: float

    @classmethod
    def draw(
        cls,
        probability: float,
        packing: Packing,
        width: int,
        generators: Sequence[Generator],
    ) -> Self:
        """Draw for states (models, rows, width); what a model gets hangs on its frames alone.

        Args:
            probability: of a state to become zero, in [0, 1).
            packing: of the states.
            width: numbers a state has.
            generators: each model's, on the device of the states.
        """
        dropped = round(probability * WORD)
        models, rows = packing.real.shape
        # Whole words a model, of which the last may be used in part.
        size = -(-rows * width // 4)
        words = torch.empty(models, size, dtype=torch.int64, device=generators[0].device)
        for own, count, generator in zip(words, packing.frames, generators, strict=True):
            drawn = own[: -(-count * width // 4)]
            drawn.random_(torch.iinfo(torch.int64).min, None, generator=generator)
        bits = words.view(torch.int16)[:, : rows * width].contiguous()
        return cls(bits.view(models, rows, width), dropped - WORD // 2, WORD / (WORD - dropped))

    def of(self, states: Tensor) -> Tensor:
        """Return what is left of states, or of their gradients, (models, rows, width)."""
        return states * (self.bits >= self.threshold).to(states.dtype).mul_(self.scale)
