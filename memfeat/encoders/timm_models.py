"""Every model of timm, with the pooled feature that its classifier would see.

timm comes with open_clip. Most of its weights were trained to classify ImageNet, so the paper's
claim for natural language supervision can be tested against the same architecture without it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memfeat.config import Tokens
from memfeat.devices import seeded
from memfeat.encoders import hub
from memfeat.encoders.checkpoints import (
    SUFFIXES,
    fit,
    means_file,
    read_checkpoint,
    tensors_sha256,
)
from memfeat.encoders.family import (
    ENCODERS,
    RANDOM,
    UNTRAINED,
    EncoderFamily,
    Tower,
    built_activation,
    feature_width,
    refuse_activation,
    refuse_tokens,
    square_size,
)
from memfeat.encoders.patches import TimmPatches
from memfeat.encoders.timm_tags import trained_on
from memfeat.errors import EncoderError, UnknownNameError

PREFIX = "timm/"  # many of timm's names are open_clip's too, or nearly
DEFAULT = "default"
FILES = ("model.safetensors", "pytorch_model.bin")  # in the order that timm tries them
QUICK_GELU_NOTE = "natively QuickGELU"


@dataclass(frozen=True)
class _Weights:
    """Weights, and what timm records about them.

    Attributes:
        label: tag, `file:NAME` or `random`.
        trained_on: in words.
        record: timm's `PretrainedCfg`, such as image size, mean and std; of the model's default
            weights where these have none of their own.
        path: of a checkpoint file given by the user.
    """

    label: str
    trained_on: str
    record: Any
    path: Path | None = None


def library() -> Any:
    """Import timm on first use: it takes seconds, and other encoders need none of it."""
    import timm  # noqa: PLC0415

    return timm


@ENCODERS.register("timm")
class Timm(EncoderFamily):
    """Any model that `timm.list_models()` names, as `timm/NAME`, without its classifier."""

    default_weights = DEFAULT
    prefix = PREFIX

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return timm's model names, each with the prefix `timm/`."""
        return tuple(PREFIX + model for model in library().list_models())

    @staticmethod
    def tags(name: str) -> tuple[str, ...]:
        """Return the weights that timm knows for a model, its default ones first."""
        return tuple(_records(name))

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:
        """Return the weights' file in the hub's cache if it is there."""
        records = _records(name)
        record = records.get(next(iter(records), "") if tag == DEFAULT else tag)
        return hub.cached(record.hf_hub_id, FILES) if record and record.hf_hub_id else None

    @staticmethod
    def build(
        name: str, weights: str, activation: str, seed: int, *, tokens: Tokens = "cls"
    ) -> Tower:
        """Build the model without its classifier, for the image size that its weights expect.

        Raises:
            UnknownNameError: weights that are no tag of this model, no file and not `random`.
            EncoderError: the weights cannot be had or do not fit, were trained with another
                activation than the model's, or it does not turn a square image into one vector.
            ConfigError: patch tokens that the model does not have.
        """
        found = _find(name, weights)
        image_size = square_size(name, found.record.input_size[1:])
        with torch.device("meta"):  # shapes alone, at once: refuse before anything is loaded
            plan = _without_classifier(name, _network(name, found.record, seed))
            dim = feature_width(name, plan, image_size)
            with_tokens(name, plan, tokens, image_size)
        built = built_activation(plan)
        refuse_activation(name, built, activation)
        _check_quick_gelu(name, found, built, activation)
        network = _without_classifier(name, _loaded(name, found, seed))
        if found.path is not None:
            tensors = _without_tensors(found.record.classifier, read_checkpoint(found.path))
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
        )


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


def _records(name: str) -> dict[str, Any]:
    """Return what timm records of each of a model's published weights, by tag."""
    records = library().models.get_arch_pretrained_cfgs(name.removeprefix(PREFIX))
    return {record.tag: record for record in records.values() if record.has_weights}


def _find(name: str, weights: str) -> _Weights:
    records = _records(name)
    default = library().get_pretrained_cfg(name.removeprefix(PREFIX))
    if weights == RANDOM:
        return _Weights(RANDOM, UNTRAINED, default)
    tag = next(iter(records), DEFAULT) if weights == DEFAULT else weights
    if tag in records:
        return _Weights(tag, trained_on(tag), records[tag])
    if means_file(weights):
        path = Path(weights).expanduser()
        record = _described(path, default)
        return _Weights(f"file:{path.name}", "not stated: a checkpoint file", record, path)
    raise UnknownNameError(
        f"{name} has no weights {weights!r}; timm knows for it: {', '.join(records) or 'none'}. "
        f"Give one of these, the path of a checkpoint ({', '.join(SUFFIXES)}), or {RANDOM} for "
        "features without learned content"
    )


def _described(path: Path, default: Any) -> Any:
    """Take image size, mean and std from the description that timm publishes beside a file."""
    card = path.with_name("config.json")
    if not card.is_file():
        return default
    try:
        content = json.loads(card.read_text(encoding="utf-8")).get("pretrained_cfg", {})
        fields = ("input_size", "mean", "std")
        return replace(default, **{key: tuple(content[key]) for key in fields if key in content})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"{card} is not timm's description of a model ({error!r}); mend or remove it"
        ) from error


def _network(name: str, record: Any, seed: int, file: Path | None = None) -> Any:
    """Build the whole model, with random weights or those of a file that timm published."""
    with seeded(seed):
        return library().create_model(
            name.removeprefix(PREFIX),
            pretrained=file is not None,
            pretrained_cfg=record,
            pretrained_cfg_overlay={"file": str(file)} if file else {},
        )


def _loaded(name: str, found: _Weights, seed: int) -> Any:
    """Build the whole model, with a tag's weights if one is meant and random ones otherwise.

    timm loads what it published: some of it has to be renamed or reshaped on the way.
    """
    if found.path is not None or found.label == RANDOM:
        return _network(name, found.record, seed)
    file = Timm.locate(name, found.label) or _download(name, found)
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


def _check_quick_gelu(name: str, found: _Weights, built: str, activation: str) -> None:
    """Refuse weights that were trained with QuickGELU, or may have been, where GELU is built.

    timm has such models twice, and lets either name load them.
    """
    noted = {tag for tag, record in _records(name).items() if QUICK_GELU_NOTE in str(record.notes)}
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


def _download(name: str, found: _Weights) -> Path:
    repository = found.record.hf_hub_id
    if not repository:
        raise EncoderError(
            f"{name}'s weights {found.label!r} are not on the hub; download {found.record.url} and "
            "give its path as --weights"
        )
    wanted = f"{FILES[0]} of {repository}"
    return hub.fetch(name, found.label, wanted, lambda: hub.download(repository, FILES))
