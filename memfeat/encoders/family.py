"""A family of encoders: their names, the weights known for them, and how a model is built."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from memfeat.config import LAST_LAYER, Tokens
from memfeat.errors import ConfigError, EncoderError
from memfeat.registry import Registry

ACTIVATIONS = ("auto", "gelu", "quickgelu")  # to ask for
RANDOM = "random"
UNTRAINED = "nothing: random weights"  # what they were trained on
UNSTATED = "not stated: a checkpoint file"
_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUActivation": "gelu",  # of transformers
    "GELUTanh": "gelu-tanh",
    "Hardswish": "hardswish",
    "QuickGELU": "quickgelu",
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
}


@dataclass(frozen=True)
class Tower:
    """An image model with its weights in place and everything a cache must record about it.

    Attributes:
        name: encoder name.
        weights: tag, `file:NAME` or `random`.
        weights_sha256: over the image tower's tensors, whatever file they came in.
        trained_on: in words.
        activation: as found in the built modules.
        dim: length of one vector.
        image_size: height and width of its input in pixels.
        mean, std: per channel, for pixels in [0, 1].
        module: float32 (batch, 3, image_size, image_size), normalised -> (batch, width), where the
            width is `dim` times the number of tokens; or (batch, 3, clip_frames, image_size,
            image_size) of a tower that takes clips.
        tokens: which vectors of a frame it gives, such as `cls` or `cls+2x2`.
        clip_frames: consecutive frames that it makes one vector of.
        layer: after which block it ends, counted from 0; -1 for the last.
        half_precision: `float16` for weights that came in it, else `bfloat16`.
        projection: what the library computes next, (batch, dim) -> (batch, other), where that is
            known: a projection into the space of texts, or a classifier.
    """

    name: str
    weights: str
    weights_sha256: str
    trained_on: str
    activation: str
    dim: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    module: nn.Module
    tokens: Tokens = "cls"
    clip_frames: int = 1
    layer: int = LAST_LAYER
    half_precision: str = "bfloat16"
    projection: nn.Module | None = None


@dataclass(frozen=True)
class VectorShape:
    """The shape of what an encoder gives, known without its weights.

    Attributes:
        dim: length of one vector.
        num_tokens: vectors in a row.
        clip_frames: consecutive frames that one row is made of.
    """

    dim: int
    num_tokens: int = 1
    clip_frames: int = 1

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.dim * self.num_tokens


class EncoderFamily(ABC):
    """Encoders that are built alike. Registering a family makes its names choices everywhere.

    Attributes:
        default_weights: used if none are asked for.
        prefix: the start of all its names and of no other family's, so that a name is found without
            importing every family's library; empty if its names have none.
    """

    default_weights: ClassVar[str]
    prefix: ClassVar[str] = ""

    @staticmethod
    @abstractmethod
    def names() -> tuple[str, ...]:
        """Return the names of its encoders."""

    @staticmethod
    def tags(name: str) -> tuple[str, ...]:  # noqa: ARG004
        """Return the pretrained weights known for an encoder, best-known first."""
        return ()

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:  # noqa: ARG004
        """Return the file that holds the weights, if it is on this machine. Touches no network."""
        return None

    @staticmethod
    @abstractmethod
    def shape(name: str, tokens: Tokens = "cls") -> VectorShape:
        """Return what an encoder gives, without its weights.

        Raises:
            EncoderError, ConfigError: as `build` does of the architecture.
        """

    @staticmethod
    @abstractmethod
    def build(
        name: str, weights: str, activation: str, seed: int, *, tokens: Tokens = "cls"
    ) -> Tower:
        """Build an encoder's tower with the weights asked for.

        Raises:
            UnknownNameError: weights that are no tag of this encoder, no file and not `random`.
            EncoderError: the weights cannot be had or do not fit, they were trained with another
                activation or do not state it, the architecture has another than was asked
                for, or it does not turn a square image into one vector.
            ConfigError: patch tokens that it does not have.
        """


ENCODERS: Registry[type[EncoderFamily]] = Registry("encoder family")


def built_activation(module: nn.Module) -> str:
    """Name the activations found among a model's modules, such as `quickgelu` or `gelu+relu`."""
    found = {activation_of(part) for part in module.modules()} - {""}
    return "+".join(sorted(found)) or "none"


def refuse_activation(name: str, built: str, asked: str) -> None:
    """Refuse an activation where the architecture alone decides which it is.

    Raises:
        EncoderError: `asked` is neither `auto` nor what was built.
    """
    if asked not in ("auto", *built.split("+")):
        raise EncoderError(
            f"{name} is built with {built}, which --activation {asked} cannot change; leave it out"
        )


def refuse_tokens(name: str, tokens: Tokens) -> None:
    """Refuse patch tokens of an architecture that has none.

    Raises:
        ConfigError: `tokens` is not `cls`.
    """
    if tokens != "cls":
        raise ConfigError(
            f"{name} gives one vector a frame, so --tokens {tokens} is not to be had; leave it "
            "out, or choose a Vision Transformer such as ViT-L-14-336"
        )


def square_size(name: str, size: Sequence[int]) -> int:
    """Return the side of the square image, height and width `size`, that an encoder takes.

    Raises:
        EncoderError: it is not square.
    """
    height, width = size
    if height != width:
        raise EncoderError(
            f"{name} takes images of {height} x {width} pixels; memfeat squashes frames to a "
            "square, so choose an encoder with square input"
        )
    return height


def feature_width(name: str, tower: nn.Module, image_size: int) -> int:
    """Return the width of a tower's feature, from a run on torch's default device.

    Raises:
        EncoderError: it does not end in one vector an image.
    """
    with torch.inference_mode():
        feature = tower(torch.empty(1, 3, image_size, image_size))
    if not isinstance(feature, Tensor) or feature.ndim != 2:
        found = tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
        raise EncoderError(
            f"{name} does not end in one vector an image before its projection, but in {found}; "
            "choose another encoder"
        )
    return feature.shape[1]


def activation_of(part: nn.Module) -> str:
    """Name the activation that a module is, such as `gelu`; empty for any other module."""
    name = _ACTIVATIONS.get(type(part).__name__, "")
    return "gelu-tanh" if name == "gelu" and getattr(part, "approximate", "") == "tanh" else name
