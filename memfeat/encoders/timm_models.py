"""Every model of timm, with the pooled feature that its classifier would see.

timm comes with open_clip. Most of its weights were trained to classify ImageNet, so the paper's
claim for natural language supervision can be tested against the same architecture without it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memfeat.config import Tokens, count_tokens
from memfeat.devices import seeded
from memfeat.encoders import timm_weights
from memfeat.encoders.checkpoints import fit, read_checkpoint, tensors_sha256
from memfeat.encoders.family import (
    ENCODERS,
    RANDOM,
    EncoderFamily,
    Tower,
    VectorShape,
    built_activation,
    feature_width,
    refuse_activation,
    refuse_tokens,
    square_size,
)
from memfeat.encoders.patches import TimmPatches
from memfeat.encoders.timm_weights import DEFAULT, PREFIX, STATE_DICTS, Weights, library
from memfeat.errors import EncoderError


@ENCODERS.register("timm")
class Timm(EncoderFamily):
    """Any model that `timm.list_models()` names, as `timm/NAME`, without its classifier."""

    default_weights = DEFAULT
    prefix = PREFIX

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return timm's model names, each with the prefix `timm/`."""
        return tuple(PREFIX + model for model in library().list_models())

    tags = staticmethod(timm_weights.tags)
    locate = staticmethod(timm_weights.locate)

    @staticmethod
    def shape(name: str, tokens: Tokens = "cls") -> VectorShape:
        """Return what a model gives."""
        _, dim = _plan(name, timm_weights.find(name, RANDOM).record, tokens)
        return VectorShape(dim, count_tokens(tokens))

    @staticmethod
    def build(
        name: str, weights: str, activation: str, seed: int, *, tokens: Tokens = "cls"
    ) -> Tower:
        """Build the model without its classifier, for the image size that its weights expect."""
        found = timm_weights.find(name, weights)
        image_size = square_size(name, found.record.input_size[1:])
        plan, dim = _plan(name, found.record, tokens)  # refuse before anything is loaded
        built = built_activation(plan)
        refuse_activation(name, built, activation)
        _check_quick_gelu(name, found, built, activation)
        whole = _loaded(name, found, seed)
        classifier = whole.get_classifier() if hasattr(whole, "get_classifier") else None
        network = _without_classifier(name, whole)
        if found.path is not None:
            tensors = read_checkpoint(found.path, STATE_DICTS)
            tensors = _without_tensors(found.record.classifier, tensors)
            fit(network, tensors, name, str(found.path))
        return Tower(
            name=name,
            weights=found.label,
            weights_sha256=tensors_sha256(network),
            trained_on=found.trained_on,
            activation=built,
            dim=dim,
            image_size=image_size,
            mean=found.record.mean,
            std=found.record.std,
            module=with_tokens(name, network, tokens, image_size),
            tokens=tokens,
            # A file's classifier is not read: it may have any number of classes.
            projection=classifier
            if isinstance(classifier, nn.Linear) and found.path is None
            else None,
        )


def _plan(name: str, record: Any, tokens: Tokens) -> tuple[nn.Module, int]:
    """Return a model of shapes alone, which is there at once, and the length of its vector."""
    image_size = square_size(name, record.input_size[1:])
    with torch.device("meta"):
        plan = _without_classifier(name, _network(name, record, seed=0))
        dim = feature_width(name, plan, image_size)
        with_tokens(name, plan, tokens, image_size)
    return plan, dim


def with_tokens(name: str, network: Any, tokens: Tokens, image_size: int) -> nn.Module:
    """Let a model of timm without its classifier give patch tokens too, if they are asked for.

    Raises:
        ConfigError: it is no Vision Transformer, or has fewer patches.
    """
    module: nn.Module = network
    if tokens == "cls":
        return module
    models = library().models
    if not isinstance(network, models.vision_transformer.VisionTransformer | models.eva.Eva):
        refuse_tokens(name, tokens)
    # Not its own grid_size: open_clip builds some of timm's models for images of another size.
    patches = network.patch_embed.dynamic_feat_size((image_size, image_size))
    return TimmPatches(name, network, patches, tokens)


def _network(name: str, record: Any, seed: int, file: Path | None = None) -> Any:
    """Build the whole model, with random weights or those of a file that timm published."""
    # What is on the hub is always PyTorch's; some releases of timm take it for the record's .npz.
    overlay = {"file": str(file), "custom_load": False} if file else {}
    with seeded(seed):
        return library().create_model(
            name.removeprefix(PREFIX),
            pretrained=file is not None,
            pretrained_cfg=record,
            pretrained_cfg_overlay=overlay,
        )


def _loaded(name: str, found: Weights, seed: int) -> Any:
    """Build the whole model, with a tag's weights if one is meant and random ones otherwise.

    timm loads what it published: some of it has to be renamed or reshaped on the way.
    """
    if found.path is not None or found.label == RANDOM:
        return _network(name, found.record, seed)
    file = timm_weights.file_of(name, found)
    try:
        return _network(name, found.record, seed, file)
    except Exception as error:  # readers fail in every way there is on bytes that are no weights
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EncoderError(
            f"{file} cannot be loaded into {name} as timm's weights {found.label!r}: {reason}. "
            "Remove the file to have it downloaded again"
        ) from error


def _without_classifier(name: str, network: Any) -> nn.Module:
    """Take a model's classifier off, in place."""
    if not hasattr(network, "reset_classifier"):
        raise EncoderError(
            f"{name} is no classifier and has no pooled feature; choose another encoder"
        )
    network.reset_classifier(0)
    module: nn.Module = network.eval().requires_grad_(False)
    return module


def _without_tensors(
    classifier: str | tuple[str, ...] | None, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Leave out a classifier's tensors: it may have any number of classes."""
    layers = (classifier,) if isinstance(classifier, str) else classifier or ()
    dropped = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    return {name: value for name, value in tensors.items() if name not in dropped}


def _check_quick_gelu(name: str, found: Weights, built: str, activation: str) -> None:
    """Refuse weights that were trained with QuickGELU, or may have been, where GELU is built.

    timm has such models twice, and lets either name load them.
    """
    known = timm_weights.records(name)
    noted = {tag for tag, each in known.items() if "natively QuickGELU" in str(each.notes)}
    twin = name.replace("_clip_", "_clip_quickgelu_")
    if "quickgelu" in built or not noted:
        return
    if found.label in noted:
        raise EncoderError(
            f"the weights {found.label!r} were trained with quickgelu, but {name} is built with "
            f"{built}, under which all features are wrong without any sign of it; use {twin}"
        )
    if found.path is not None and activation == "auto":
        raise EncoderError(
            f"{found.path} does not tell which activation it was trained with, and under the wrong "
            f"one all features are wrong without any sign of it. Use {twin} for weights of OpenAI, "
            "MetaCLIP or DFN; for others pass --activation gelu"
        )
