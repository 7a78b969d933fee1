"""ResMem's network, from the package `resmem`, and as an encoder the vector before its last layer.

An image is resized to 256 x 256 pixels, and the middle taken, as its authors do, but by the
interpolation of all encoders here; `memfeat predict resmem` repeats theirs exactly.
"""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from memfeat.config import Tokens
from memfeat.devices import seeded
from memfeat.encoders.checkpoints import tensors_sha256
from memfeat.encoders.family import (
    ENCODERS,
    EncoderFamily,
    Tower,
    VectorShape,
    built_activation,
    refuse_activation,
    refuse_tokens,
)
from memfeat.errors import ConfigError, UnknownNameError

NAME = "resmem"
DIM = 256
RESIZED, CROP = 256, 227  # pixels a side
START = round((RESIZED - CROP) / 2)  # as torchvision's CenterCrop has it


@ENCODERS.register(NAME)
class ResMem(EncoderFamily):
    """ResMem (Needell and Bainbridge 2022), whose package brings its weights."""

    default_weights = NAME

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the one name."""
        return (NAME,)

    @staticmethod
    def tags(name: str) -> tuple[str, ...]:
        """Return the one tag."""
        return (name,)

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:
        """Return the package's weights file, or None without the package."""
        package = importlib.util.find_spec(name) if tag == name else None
        return Path(package.origin).with_name("model.pt") if package and package.origin else None

    @staticmethod
    def shape(name: str, tokens: Tokens = "cls") -> VectorShape:
        """Return what a frame gives."""
        refuse_tokens(name, tokens)
        return VectorShape(DIM)

    @staticmethod
    def build(
        name: str,
        weights: str,
        activation: str,
        seed: int,  # noqa: ARG004
        *,
        tokens: Tokens = "cls",
    ) -> Tower:
        """Build the network up to its last layer."""
        refuse_tokens(name, tokens)
        if weights != NAME:
            raise UnknownNameError(f"{name} has no weights {weights!r}; leave --weights out")
        network = resmem_network()
        built = built_activation(network)
        refuse_activation(name, built, activation)
        return Tower(
            name=name,
            weights=NAME,
            weights_sha256=tensors_sha256(network),
            trained_on="people's memory for images, for non-commercial use only",
            activation=built,
            dim=DIM,
            image_size=RESIZED,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            module=_BeforeLast(network),
        )


class _BeforeLast(nn.Module):
    """The input of the network's last layer."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.network.fc12.register_forward_pre_hook(self._keep)
        # It takes a view of this layer's output, which encoders lay out with channels last.
        self.network.pool5.register_forward_hook(lambda _, __, output: output.contiguous())

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._vectors = inputs[0]

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (batch, 3, 256, 256) in [0, 1] into vectors (batch, 256)."""
        stop = START + CROP
        self.network(images[:, :, START:stop, START:stop])
        return self._vectors


def resmem_network() -> nn.Module:
    """Return the package's network: float32 (images, 3, 227, 227) in [0, 1] to (images, 1).

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from resmem import ResMem as Network  # noqa: PLC0415  it is optional
    except ImportError as error:
        raise ConfigError(
            f"resmem needs the package of that name, which cannot be imported: {error}. "
            "pip install 'memfeat[resmem]' (490 MB, for non-commercial use only)"
        ) from error
    with seeded(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision as of old
        network: nn.Module = Network(pretrained=True)
    return network
