"""The regressor: an aggregator for each stream and a head, from frames to a score."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memfeat.config import Settings, TrainConfig, build
from memfeat.models.aggregators import AGGREGATORS, Aggregated, Aggregator
from memfeat.models.heads import HEADS, Head
from memfeat.registry import Registry

NO_OPTIONS: Mapping[str, Any] = {}


class Padded(NamedTuple):
    """Some videos' embeddings of one cache, padded to the longest.

    Attributes:
        frames: float32 (batch, time, dim).
        lengths: int64 (batch,), how many of each video's frames are real, at least 1; best left
            on the CPU.
    """

    frames: Tensor
    lengths: Tensor


class Prediction(NamedTuple):
    """What a regressor says about a batch.

    Attributes:
        scores: (batch,), each in (0, 1).
        weights: for each stream (batch, time), each frame's weight, zero where padded; None if it
            has none.
    """

    scores: Tensor
    weights: tuple[Tensor | None, ...]


class Standardise(nn.Module):
    """Subtracts `mean` (dim,) from frames (..., dim), and divides by `scale`; both are set once."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def set(self, mean: Tensor, scale: Tensor) -> None:
        """Set both, (dim,); a number that never differs is not divided."""
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("scale").copy_(torch.where(scale > 0, scale, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Return frames, standardised."""
        return (frames - self.get_buffer("mean")) / self.get_buffer("scale")


class Regressor(nn.Module):
    """Frames to score. Its parameters are called `aggregators.0.*` and so on, and `head.*`.

    Several streams' vectors are concatenated (Table 1, rows 9-11).

    Attributes:
        inputs: what is done to each stream's frames first; empty for nothing.
        aggregators: frames to vector, one for each stream; their `options` are their settings.
        head: vector to score; `head.options` are its settings.
    """

    def __init__(
        self, aggregators: Sequence[Aggregator], head: Head, inputs: Sequence[Standardise] = ()
    ) -> None:
        super().__init__()
        self.inputs: Sequence[Standardise] = nn.ModuleList(inputs)  # type: ignore[assignment]
        self.aggregators: Sequence[Aggregator] = nn.ModuleList(aggregators)  # type: ignore[assignment]
        self.head = head

    def forward(self, *streams: tuple[Tensor, Tensor]) -> Prediction:
        """Score the same videos' frames in each stream, each a `Padded`."""
        if self.inputs:
            streams = tuple(
                Padded(standardise(frames), lengths)
                for standardise, (frames, lengths) in zip(self.inputs, streams, strict=True)
            )
        aggregated: list[Aggregated] = [
            aggregator(frames, lengths)
            for aggregator, (frames, lengths) in zip(self.aggregators, streams, strict=True)
        ]
        vector = torch.cat([each.vector for each in aggregated], dim=-1)
        return Prediction(self.head(vector), tuple(each.weights for each in aggregated))


def build_regressor(
    dim: int,
    aggregator: str,
    head: str,
    aggregator_options: Mapping[str, Any] = NO_OPTIONS,
    head_options: Mapping[str, Any] = NO_OPTIONS,
) -> Regressor:
    """Build a regressor of one stream, its weights drawn from torch's global generator.

    Args:
        dim: width of the frame embeddings.
        aggregator: a name from `AGGREGATORS`.
        head: a name from `HEADS`.
        aggregator_options: its options; those not given take their defaults.
        head_options: likewise.

    Raises:
        UnknownNameError: no such aggregator or head; the message lists the choices.
        ConfigError: an option is unknown or not allowed.
    """
    return _build([(dim, aggregator, aggregator_options)], head, head_options)


def regressor_of(config: TrainConfig, dims: Sequence[int]) -> Regressor:
    """Build the regressor that settings name, its weights drawn from torch's global generator.

    `dims` are the widths of each cache's embeddings.

    Raises:
        UnknownNameError, ConfigError: as for `build_regressor`.
    """
    streams = [
        (dim, name, config.aggregators.get(name, NO_OPTIONS))
        for dim, name in zip(dims, config.aggregator, strict=True)
    ]
    options = config.heads.get(config.head, NO_OPTIONS)
    return _build(streams, config.head, options, standardised=config.standardise)


def _build(
    streams: Sequence[tuple[int, str, Mapping[str, Any]]],
    head: str,
    options: Mapping[str, Any],
    *,
    standardised: bool = False,
) -> Regressor:
    aggregators = [
        AGGREGATORS.get(name)(dim, resolve_model_options(AGGREGATORS, name, given))
        for dim, name, given in streams
    ]
    width = sum(aggregator.width for aggregator in aggregators)
    return Regressor(
        aggregators,
        HEADS.get(head)(width, resolve_model_options(HEADS, head, options)),
        [Standardise(dim) for dim, *_ in streams] if standardised else (),
    )


def resolve_model_options(
    registry: Registry[type[Aggregator]] | Registry[type[Head]],
    name: str,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> Settings:
    """Return all options of an aggregator or head, defaults filled in.

    Raises:
        UnknownNameError: no such aggregator or head.
        ConfigError: an option is unknown or not allowed.
    """
    return build(registry.get(name).Options, dict(options), f"{registry.kind} {name!r}")


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers training adjusts in `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
