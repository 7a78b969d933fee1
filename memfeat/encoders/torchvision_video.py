"""torchvision's video models over clips of 16 frames, with what their classifier is given."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from memfeat.config import Tokens
from memfeat.devices import seeded
from memfeat.encoders.checkpoints import (
    fit,
    means_file,
    read_checkpoint,
    tensors_sha256,
    weights_path,
)
from memfeat.encoders.family import (
    ENCODERS,
    RANDOM,
    UNSTATED,
    UNTRAINED,
    EncoderFamily,
    Tower,
    VectorShape,
    built_activation,
    refuse_activation,
    refuse_tokens,
    square_size,
)
from memfeat.encoders.hub import unknown_weights
from memfeat.errors import EncoderError

PREFIX = "torchvision/"
DEFAULT = "default"
CLIP_FRAMES = 16
CLASSIFIERS = ("fc", "head", "classifier")  # what its models call it


def library() -> Any:
    """Import torchvision's models on first use: it takes seconds."""
    import torchvision.models  # noqa: PLC0415

    return torchvision.models


@ENCODERS.register("torchvision")
class TorchvisionVideo(EncoderFamily):
    """Any video model that torchvision lists, as `torchvision/NAME`, without its classifier."""

    default_weights = DEFAULT
    prefix = PREFIX

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the models' names, each with the prefix `torchvision/`."""
        return tuple(PREFIX + name for name in library().list_models(module=library().video))

    @staticmethod
    def tags(name: str) -> tuple[str, ...]:
        """Return the weights that torchvision knows for a model, its default ones first."""
        return tuple(_records(name))

    @staticmethod
    def locate(name: str, tag: str) -> Path | None:
        """Return the file of a tag's weights if torch's hub has it here. Touches no network."""
        records = _records(name)
        record = records.get(next(iter(records), "") if tag == DEFAULT else tag)
        path = _file(record.url) if record else None
        return path if path and path.is_file() else None

    @staticmethod
    def shape(name: str, tokens: Tokens = "cls") -> VectorShape:
        """Return what a clip gives."""
        refuse_tokens(name, tokens)
        with torch.device("meta"):
            return VectorShape(_cut(_network(name))[1], clip_frames=CLIP_FRAMES)

    @staticmethod
    def build(
        name: str, weights: str, activation: str, seed: int, *, tokens: Tokens = "cls"
    ) -> Tower:
        """Build the model without its classifier; a file may have any number of classes."""
        refuse_tokens(name, tokens)
        records = _records(name)
        default = next(iter(records))
        tag = default if weights == DEFAULT else weights
        tensors, label, origin = None, tag, UNTRAINED
        if tag in records:
            path = _fetched(name, tag, records[tag].url)
            tensors, origin = read_checkpoint(path), trained_on(tag)
        elif tag != RANDOM and means_file(tag):
            path = weights_path(tag)
            tensors, label, origin = read_checkpoint(path), f"file:{path.name}", UNSTATED
        elif tag != RANDOM:
            raise unknown_weights(name, weights, "torchvision", records)
        preset = records.get(tag, records[default]).transforms()
        with seeded(seed):
            network, dim = _cut(_network(name))
        if tensors is not None:
            kept = {k: v for k, v in tensors.items() if k.partition(".")[0] not in CLASSIFIERS}
            fit(network, kept, name, str(path))
        built = built_activation(network)
        refuse_activation(name, built, activation)
        return Tower(
            name=name,
            weights=label,
            weights_sha256=tensors_sha256(network),
            trained_on=origin,
            activation=built,
            dim=dim,
            image_size=square_size(name, preset.crop_size),
            mean=tuple(preset.mean),
            std=tuple(preset.std),
            module=network,
            clip_frames=CLIP_FRAMES,
        )


def trained_on(tag: str) -> str:
    """Say in words what weights were trained on, as their tag says it.

    Examples:
        >>> trained_on("KINETICS400_V1")
        'Kinetics-400 classification'
        >>> trained_on("KINETICS400_IMAGENET22K_V1")
        'ImageNet-22k, then Kinetics-400 classification'
    """
    before = "ImageNet-22k, then " if "IMAGENET22K" in tag else ""
    return f"{before}Kinetics-400 classification" if "KINETICS400" in tag else f"see the tag {tag}"


def _records(name: str) -> dict[str, Any]:
    """Return what torchvision records of each of a model's weights, by tag, the default first."""
    known = library().get_model_weights(name.removeprefix(PREFIX))
    first = known.DEFAULT
    return {record.name: record for record in (first, *known)}


def _network(name: str) -> Any:
    return library().get_model(name.removeprefix(PREFIX), weights=None)


def _cut(network: Any) -> tuple[nn.Module, int]:
    """Take a model's classifier off, in place; return it, and how long what that is given is."""
    name = next(each for each in CLASSIFIERS if hasattr(network, each))
    layers = [m for m in getattr(network, name).modules() if isinstance(m, nn.Linear | nn.Conv3d)]
    setattr(network, name, nn.Identity())
    module: nn.Module = network.eval().requires_grad_(False)
    return module, layers[-1].weight.shape[1]


def _file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _fetched(name: str, tag: str, url: str) -> Path:
    """Return the file of a tag's weights, downloaded into torch's hub if it is not there.

    Raises:
        EncoderError: it cannot be had.
    """
    path = _file(url)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise EncoderError(
            f"{name}'s weights {tag!r} cannot be had: {path} is not there, and {url} could not be "
            f"downloaded ({error}). Do the same on a connected machine and copy that file; or give "
            f"--weights FILE, a checkpoint; or --weights {RANDOM}, for features without learned "
            "content"
        ) from error
    return path
