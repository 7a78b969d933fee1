"""Text encoders: frozen language models, by name, that turn texts into unit vectors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from memfeat.cache import CacheSpec
from memfeat.cache.spec import TEXT
from memfeat.config import build
from memfeat.devices import CPU, exact_float32, resolve_device
from memfeat.encoders.encoder import PRECISIONS, Encoder, choose_precision
from memfeat.encoders.family import ACTIVATIONS
from memfeat.errors import NoDirectionError, counted
from memfeat.registry import Registry, unknown_name

RECORDED = ("weights", "weights_sha256", "trained_on", "activation", "dim", "precision")


@dataclass(frozen=True)
class TextTower:
    """A text model with its weights in place and everything a cache must record about it.

    Attributes:
        name, weights, weights_sha256, trained_on, activation, dim, half_precision: as of a `Tower`.
        most_tokens: of one text; what a longer one has beyond is cut off.
        count_tokens: how many tokens a text has.
        tokenise: texts to the module's arguments by name, each (texts, ...).
        module: these to float32 (texts, dim).
    """

    name: str
    weights: str
    weights_sha256: str
    trained_on: str
    activation: str
    dim: int
    most_tokens: int
    count_tokens: Callable[[str], int]
    tokenise: Callable[[Sequence[str]], Mapping[str, Tensor]]
    module: nn.Module
    half_precision: str = "bfloat16"


class TextFamily(ABC):
    """Text encoders that are built alike.

    Attributes:
        default_weights: used if none are asked for.
        prefix: the start of all its names and of no other encoder's.
        example: one of its names.
    """

    default_weights: ClassVar[str]
    prefix: ClassVar[str]
    example: ClassVar[str]

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the names of its encoders, where they can be listed."""
        return ()

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:  # noqa: ARG004
        """Return where the weights are, if they are on this machine. Touches no network."""
        return None

    @staticmethod
    @abstractmethod
    def build(name: str, weights: str, activation: str, seed: int) -> TextTower:
        """Build an encoder's tower with the weights asked for.

        Raises:
            UnknownNameError, EncoderError: as for `EncoderFamily.build`; or its tokens cannot be
                had.
        """


TEXT_ENCODERS: Registry[type[TextFamily]] = Registry("text encoder family")


class TextEncoder(Encoder):
    """A frozen text encoder: texts to unit vectors.

    The same texts, given together, give the same vectors to the last bit on the same machine and
    settings. It also has the attributes of its `TextTower`, but for the module.
    """

    def __init__(
        self, tower: TextTower, *, precision: str = "auto", device: torch.device = CPU
    ) -> None:
        self.name = tower.name
        self.weights = tower.weights
        self.weights_sha256 = tower.weights_sha256
        self.trained_on = tower.trained_on
        self.activation = tower.activation
        self.dim = tower.dim
        self.most_tokens = tower.most_tokens
        self.count_tokens = tower.count_tokens
        self.device = device
        self.precision = choose_precision(precision, device, tower.half_precision)
        self._tokenise = tower.tokenise
        with self.errors_of_device("the weights"):
            self._module = tower.module.eval().requires_grad_(False)
            self._module.to(device, PRECISIONS[self.precision])

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """Encode texts.

        Args:
            texts: at least one; what is longer than `most_tokens` is cut off.
            batch_size: how many at once.

        Returns:
            float32 (texts, dim) on the CPU, each of unit L2 norm, taken in float32.

        Raises:
            EncoderError: too little memory.
            NoDirectionError: a feature is zero or not finite.
        """
        starts = range(0, len(texts), batch_size)
        features = torch.cat([self._features(texts[at : at + batch_size]) for at in starts])
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        bad = ~(norms.isfinite() & (norms > 0)).flatten()
        if bad.any():
            raise NoDirectionError(
                f"{self.name} in {self.precision} made a feature that is zero or not finite of "
                f"{texts[int(bad.nonzero()[0])][:80]!r}; give --precision bfloat16 or float32, or "
                "other weights"
            )
        vectors: Tensor = features / norms
        return vectors

    def _features(self, texts: Sequence[str]) -> Tensor:
        what = f"{counted(len(texts), 'text')} at once"
        with self.errors_of_device(what), exact_float32(), torch.inference_mode():
            inputs = {name: value.to(self.device) for name, value in self._tokenise(texts).items()}
            features: Tensor = self._module(**inputs).float().cpu()
        return features.clone()  # a tensor of inference mode could not be trained on

    def spec(self, *, batch_size: int, source: str, max_seconds: float | None = None) -> CacheSpec:
        """Return what a cache of this encoder's embeddings records.

        Args:
            batch_size: how many texts of a video at once.
            source: which texts, in words.
            max_seconds: of a text with times, what is left out begins then.

        Raises:
            ConfigError: something that cannot be recorded, such as a folder's unprintable name.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in RECORDED} | {
            "encoder": self.name,
            "image_size": None,
            "interpolation": None,
            "mean": None,
            "std": None,
            "sampling": f"{TEXT}{source}",
            "max_seconds": max_seconds,
            "batch_size": batch_size,
        }
        return build(CacheSpec, values, source=f"what is known of {self.name}")


def text_encoder_names() -> tuple[str, ...]:
    """Return every text encoder that can be listed, family by family."""
    return tuple(name for family in TEXT_ENCODERS for name in TEXT_ENCODERS.get(family).names())


def is_text_encoder(name: str) -> bool:
    """Whether that is the name of an encoder of texts, and not of frames."""
    return text_family_of(name) is not None


def create_text_encoder(
    name: str,
    weights: str | None = None,
    *,
    activation: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    seed: int = 0,
) -> TextEncoder:
    """Build a text encoder by name.

    Args:
        name: such as `text/ViT-L-14-336`, `text/ViT-L-14-336+projection` or
            `sentence/all-MiniLM-L6-v2`.
        weights: pretrained tag, path of a checkpoint, or `random`; of a sentence-transformers
            model, its folder; None for the family's default.
        activation: `gelu` or `quickgelu` for a checkpoint file that does not state it; else `auto`.
        precision: as for `create_encoder`.
        device: such as `cpu` or `cuda:1`.
        seed: of the weights if they are random.

    Raises:
        UnknownNameError: no such encoder, or no such weights for it.
        EncoderError: the weights or the tokens cannot be had, do not fit, or contradict
            `activation`; or the device or precision cannot be used.
    """
    family = text_family_of(name)
    if family is None:
        examples = [TEXT_ENCODERS.get(key).example for key in TEXT_ENCODERS]
        raise unknown_name("text encoder", name, (*examples, *text_encoder_names()))
    on = resolve_device(device)
    choose_precision(precision, on)  # a mistake should not cost the loading of a model
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    tower = family.build(name, weights or family.default_weights, activation, seed)
    return TextEncoder(tower, precision=precision, device=on)


def text_family_of(name: str) -> type[TextFamily] | None:
    """Return the family of a text encoder; None of what is the name of no such."""
    families = (TEXT_ENCODERS.get(key) for key in TEXT_ENCODERS)
    return next((family for family in families if name.startswith(family.prefix)), None)
