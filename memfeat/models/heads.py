"""Heads: a video's vector to its memorability score."""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from memfeat.config import Settings
from memfeat.registry import Registry

Width = Annotated[int, Field(ge=1)]


class Head(nn.Module):
    """Base of all heads.

    Attributes:
        options: the settings it was built with, defaults filled in.
        width: length of the vector it takes.
    """

    class Options(Settings):
        """Nothing to set."""

    def __init__(self, width: int, options: Settings) -> None:
        super().__init__()
        self.options = options
        self.width = width

    def forward(self, vector: Tensor) -> Tensor:
        """Return scores (batch,), each in (0, 1), for vectors (batch, width)."""
        raise NotImplementedError


HEADS: Registry[type[Head]] = Registry("head")


@HEADS.register("linear")
class LinearHead(Head):
    """One linear layer and a sigmoid (Table 1, rows 1-3 and 5-8)."""

    def __init__(self, width: int, options: Head.Options) -> None:
        super().__init__(width, options)
        self.linear = nn.Linear(width, 1)

    def forward(self, vector: Tensor) -> Tensor:
        """Return scores (batch,)."""
        return torch.sigmoid(self.linear(vector)).squeeze(-1)


@HEADS.register("mlp")
class MlpHead(Head):
    """The paper's head (section 2): width-512-ReLU-128-ReLU-1-sigmoid.

    There is no ReLU before the sigmoid: it would pin every score at 0.5 or above.
    """

    class Options(Settings):
        """The paper's sizes."""

        hidden: tuple[Width, ...] = Field((512, 128), description="widths of the ReLU layers")
        dropout: float = Field(0.0, ge=0, lt=1, description="after each of them (ours)")

    def __init__(self, width: int, options: Options) -> None:
        super().__init__(width, options)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((width, *options.hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            layers += [nn.Dropout(options.dropout)] if options.dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear((width, *options.hidden)[-1], 1))

    def forward(self, vector: Tensor) -> Tensor:
        """Return scores (batch,)."""
        return torch.sigmoid(self.layers(vector)).squeeze(-1)
