"""The regressor: an aggregator and a head, from frames to a score."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from memfeat.config import Settings, build
from memfeat.models.aggregators import AGGREGATORS, Aggregated, Aggregator
from memfeat.models.heads import HEADS, Head

NO_OPTIONS: Mapping[str, Any] = {}


class Prediction(NamedTuple):
    """What a regressor says about a batch.

    Attributes:
        scores: (batch,), each in (0, 1).
        weights: (batch, time), each frame's weight, zero where padded; None if it has none.
    """

    scores: Tensor
    weights: Tensor | None


class Regressor(nn.Module):
    """Frames to score. Its parameters are called `aggregator.*` and `head.*`.

    Attributes:
        aggregator: frames to vector; `aggregator.options` are its settings.
        head: vector to score; `head.options` are its settings.
    """

    def __init__(self, aggregator: Aggregator, head: Head) -> None:
        super().__init__()
        self.aggregator = aggregator
        self.head = head

    def forward(self, frames: Tensor, lengths: Tensor) -> Prediction:
        """Score frames, float32 (batch, time, dim), of which the first lengths (batch,) are real.

        Lengths are int64, at least 1, and best left on the CPU.
        """
        aggregated: Aggregated = self.aggregator(frames, lengths)
        return Prediction(self.head(aggregated.vector), aggregated.weights)


def build_regressor(
    dim: int,
    aggregator: str,
    head: str,
    aggregator_options: Mapping[str, Any] = NO_OPTIONS,
    head_options: Mapping[str, Any] = NO_OPTIONS,
) -> Regressor:
    """Build a regressor, its weights drawn from torch's global generator.

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
    pool = AGGREGATORS.get(aggregator)(
        dim, resolve_aggregator_options(aggregator, aggregator_options)
    )
    return Regressor(pool, HEADS.get(head)(pool.width, resolve_head_options(head, head_options)))


def resolve_aggregator_options(name: str, options: Mapping[str, Any]) -> Settings:
    """Return all options of aggregator `name`, defaults filled in.

    Raises:
        UnknownNameError: no such aggregator.
        ConfigError: an option is unknown or not allowed.
    """
    return build(AGGREGATORS.get(name).Options, dict(options), f"aggregator {name!r}")


def resolve_head_options(name: str, options: Mapping[str, Any]) -> Settings:
    """Return all options of head `name`, defaults filled in.

    Raises:
        UnknownNameError: no such head.
        ConfigError: an option is unknown or not allowed.
    """
    return build(HEADS.get(name).Options, dict(options), f"head {name!r}")


def parameter_count(module: nn.Module) -> int:
    """Return how many numbers training adjusts in `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
