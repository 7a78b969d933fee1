"""Dropout of a recurrent layer's states, drawn here so that runs do not depend on the backend."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

WORD = 2**16  # what sixteen bits can tell apart


class Dropout(NamedTuple):
    """Sixteen random bits for each state, and the least that keeps it.

    So a probability is met to within 2 ** -17. Words are drawn much faster than `bernoulli_` draws.

    Attributes:
        bits: int16 (rows, width).
        threshold: states whose bits are below it become zero.
        scale: what the others are multiplied with, so that the mean stays.
    """

    bits: Tensor
    threshold: int
    scale: float

    @classmethod
    def draw(cls, probability: float, rows: int, width: int, device: torch.device) -> Self:
        """Draw for states (rows, width) from torch's own generator.

        Args:
            probability: of a state to become zero, in [0, 1).
            rows: number of states.
            width: numbers a state has.
            device: of the states.
        """
        dropped = round(probability * WORD)
        # Whole words, of which the last may be used in part.
        words = torch.empty(-(-rows * width // 4), dtype=torch.int64, device=device)
        words.random_(torch.iinfo(torch.int64).min, None)
        bits = words.view(torch.int16)[: rows * width].view(rows, width)
        return cls(bits, dropped - WORD // 2, WORD / (WORD - dropped))

    def of(self, states: Tensor) -> Tensor:
        """Return what is left of states, or of their gradients, (rows, width)."""
        return states * (self.bits >= self.threshold).to(states.dtype).mul_(self.scale)
