"""Encoders that differ from another in a detail, to find out how features were made."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from memfeat.devices import CPU
from memfeat.encoders.encoder import FrameEncoder
from memfeat.encoders.family import Tower, activation_of
from memfeat.errors import EncoderError

Channels = tuple[float, float, float]


class QuickGELU(nn.Module):
    """The activation that OpenAI trained CLIP with."""

    def forward(self, values: Tensor) -> Tensor:
        """Return `x * sigmoid(1.702 x)`."""
        return values * torch.sigmoid(1.702 * values)


GELUS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu-tanh": lambda: nn.GELU("tanh"),
    "quickgelu": QuickGELU,
}


def build_variant(
    tower: Tower,
    *,
    activation: str,
    projected: bool,
    mean: Channels,
    std: Channels,
    precision: str,
    device: torch.device = CPU,
) -> FrameEncoder:
    """Build an encoder of a tower, which stays as it is, with other details.

    Args:
        tower: the weights.
        activation: one of `GELUS`, in the place of all of those; any other name changes nothing.
        projected: whether what the library computes next is part of it.
        mean: per channel, for pixels in [0, 1].
        std: likewise.
        precision: as in `create_encoder`.
        device: where it runs.

    Raises:
        EncoderError: the tower has nothing next.
    """
    module, dim = copy.deepcopy(tower.module), tower.dim
    if activation in GELUS:
        _replace_gelus(module, GELUS[activation])
    if projected:
        if tower.projection is None:
            raise EncoderError(f"nothing is known to follow the feature of {tower.name}")
        with torch.inference_mode():
            dim = tower.projection(torch.zeros(1, tower.dim)).shape[1]
        module = nn.Sequential(module, copy.deepcopy(tower.projection))
    changed = replace(tower, module=module, dim=dim, mean=mean, std=std)
    return FrameEncoder(changed, precision=precision, device=device)


def _replace_gelus(module: nn.Module, make: Callable[[], nn.Module]) -> None:
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if activation_of(child) in GELUS:
                setattr(parent, name, make())
