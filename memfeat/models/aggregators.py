"""Aggregators: a video's frame embeddings to one vector."""

from functools import lru_cache
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from memfeat.config import Settings
from memfeat.models.gru import BiGru
from memfeat.registry import Registry


class Aggregated(NamedTuple):
    """What an aggregator makes of a batch.

    Attributes:
        vector: (batch, width).
        weights: (batch, time), each frame's weight, zero where padded; None if it has none.
    """

    vector: Tensor
    weights: Tensor | None


class Aggregator(nn.Module):
    """Base of all aggregators; `forward` is theirs to write.

    Whatever finite values stand in the padding, the result is the same.

    Attributes:
        options: the settings it was built with, defaults filled in.
        width: length of the vector it makes; that of a frame unless set.
        cost: roughly how long it takes, the average taking 1.
        of_the_mean: whether a video's mean frame alone gives what its frames give.
        of_tokens: whether its frames are all of their vectors, end to end; the others' are the
            class token's alone, which come first.
    """

    cost: ClassVar[int] = 1
    of_the_mean: ClassVar[bool] = False
    of_tokens: ClassVar[bool] = False

    class Options(Settings):
        """Nothing to set."""

    def __init__(self, dim: int, options: Settings) -> None:
        super().__init__()
        self.options = options
        self.width = dim

    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Aggregate frames (batch, time, dim) of which the first lengths (batch,) are real."""
        raise NotImplementedError


MOST_LAYERS = 256  # so that no file of settings can ask for layers without end
AGGREGATORS: Registry[type[Aggregator]] = Registry("aggregator")


@AGGREGATORS.register("avg")
class Average(Aggregator):
    """The mean over time: no parameters (Table 1, rows 6-8)."""

    of_the_mean = True

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Return the mean of each video's frames, (batch, dim)."""
        return Aggregated(mean_over_time(frames, lengths), None)


@AGGREGATORS.register("linear-avg")
class LinearAverage(Aggregator):
    """A linear layer on each frame, then the mean over time (Table 1, rows 1 and 9-11)."""

    of_the_mean = True

    class Options(Settings):
        """The paper does not tell the width."""

        width: int = Field(512, ge=1, description="outputs of the linear layer (ours)")

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        self.width = options.width
        self.linear = nn.Linear(dim, options.width)

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Return (batch, width)."""
        # The mean of linear images is the linear image of the mean, at a frame's cost.
        return Aggregated(self.linear(mean_over_time(frames, lengths)), None)


class Recurrent(Aggregator):
    """Base of those that pool the states of a Bi-GRU."""

    cost = 25

    class Options(Settings):
        """The paper's recurrence (section 2)."""

        hidden: int = Field(64, ge=1, description="units per direction")
        layers: int = Field(6, ge=1, le=MOST_LAYERS, description="bidirectional layers")
        dropout: float = Field(0.2, ge=0, lt=1, description="after each layer, the last included")

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        self.gru = BiGru(dim, options.hidden, options.layers, options.dropout)


@AGGREGATORS.register("bigru-pool")
class BiGruPool(Recurrent):
    """The mean over time of the Bi-GRU's states (Table 1, rows 2-3; pooling ours)."""

    def __init__(self, dim: int, options: Recurrent.Options) -> None:
        super().__init__(dim, options)
        self.width = 2 * options.hidden

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Return (batch, 2 * hidden)."""
        return Aggregated(mean_over_time(self.gru(frames, lengths), lengths), None)


@AGGREGATORS.register("bigru")
class BiGruAttention(Recurrent):
    """The paper's temporal attention (section 2, Eq. 1): e_v = 1/T sum_t e_t w_t.

    w_t is linear in the Bi-GRU's state, with no softmax or sigmoid, so it may be negative; T is
    the video's own length, not the batch's.
    """

    def __init__(self, dim: int, options: Recurrent.Options) -> None:
        super().__init__(dim, options)
        self.weight = nn.Linear(2 * options.hidden, 1)

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Return e_v (batch, dim) and w (batch, time)."""
        weights = self.weight(self.gru(frames, lengths)).squeeze(-1)
        weights = weights.masked_fill(padding(frames, lengths), 0.0)
        total = torch.bmm(weights.unsqueeze(1), frames).squeeze(1)
        return Aggregated(total / lengths.to(frames.device).unsqueeze(1), weights)


@AGGREGATORS.register("transformer")
class Transformer(Aggregator):
    """A small Transformer encoder, then the mean over time (Table 1, row 5; its sizes ours)."""

    cost = 100

    class Options(Settings):
        """All ours: the paper gives no sizes."""

        width: int = Field(256, ge=2, multiple_of=2, description="model width")
        layers: int = Field(2, ge=1, le=MOST_LAYERS, description="encoder layers")
        heads: int = Field(4, ge=1, description="attention heads; divides the width")
        feedforward: int = Field(1024, ge=1, description="width between a layer's linear maps")
        dropout: float = Field(0.1, ge=0, lt=1, description="within each layer")

        @model_validator(mode="after")
        def _heads_divide_width(self) -> Self:
            if self.width % self.heads:
                raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
            return self

    def __init__(self, dim: int, options: Options) -> None:
        super().__init__(dim, options)
        self.width = options.width
        self.project = nn.Linear(dim, options.width)
        # Frames have unit length. Under torch's own initial weights their content would be a
        # fortieth of the position code added to it, and many a seed would learn a constant; unit
        # variance is what Vaswani et al. 2017, section 3.4, give it by their factor sqrt(width).
        nn.init.normal_(self.project.weight)
        layer = nn.TransformerEncoderLayer(
            options.width, options.heads, options.feedforward, options.dropout, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False)

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Return (batch, width)."""
        tokens = self.project(frames) + sinusoids(frames.shape[1], self.width, frames.device)
        states = self.encoder(tokens, src_key_padding_mask=padding(frames, lengths))
        return Aggregated(mean_over_time(states, lengths), None)


@AGGREGATORS.register("spatial")
class SpatialAttention(BiGruAttention):
    """Attention over each frame's tokens, then the paper's over time.

    The paper names attention over patches as future work: all but the temporal part is ours. A
    frame's vector is f_t = sum_n a_tn x_tn over its class token and pooled patch tokens x_tn,
    and a_t the softmax over n of a linear map of x_tn. It is a softmax, unlike the weights of
    time, so that f_t starts as the tokens' mean, and has their size.
    """

    of_tokens = True

    def __init__(self, dim: int, options: Recurrent.Options) -> None:
        super().__init__(dim, options)
        self.dim = dim
        self.look = nn.Linear(dim, 1, bias=False)  # a softmax would not see one

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Aggregate frames (batch, time, tokens * dim), of which the first lengths are real."""
        tokens = frames.reshape(*frames.shape[:2], -1, self.dim)
        shares = self.look(tokens).softmax(2)
        return super().forward(torch.matmul(shares.mT, tokens).squeeze(2), lengths)


def padding(frames: Tensor, lengths: Tensor) -> Tensor:
    """Return a mask, bool (batch, time), true where `frames` (batch, time, ...) are no frames."""
    position = torch.arange(frames.shape[1], device=frames.device)
    return position >= lengths.to(frames.device).unsqueeze(1)


def mean_over_time(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean (batch, dim) of each sequence's real steps; `sequence` (batch, time, dim)."""
    total = sequence.masked_fill(padding(sequence, lengths).unsqueeze(-1), 0.0).sum(1)
    return total / lengths.to(sequence.device).unsqueeze(1)


@lru_cache(maxsize=32)
def sinusoids(time: int, width: int, device: torch.device) -> Tensor:
    """Return the position code of Vaswani et al. 2017, section 3.5, float32 (time, width)."""
    with torch.inference_mode(False):  # it is used again in training
        frequency = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angle = torch.arange(time, dtype=torch.float64).unsqueeze(1) * frequency
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float().to(device)
