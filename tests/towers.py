"""Pixels, small models and published weights, for the tests of encoders."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import open_clip
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from memfeat.encoders.inception import InceptionI3d

REVISION = "0123456789abcdef0123456789abcdef01234567"
TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 16
    },
    "text_cfg": {"context_length": 5, "vocab_size": 9, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip


class Constant(nn.Module):
    """A tower whose every feature has the same value throughout."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3), self.value)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def frames(count: int, size: int) -> Tensor:
    return pixels(count, size, size, 3)


def normalised(pixels: Tensor, mean: Any, std: Any) -> Tensor:
    """Scale pixels to [0, 1], then by mean and std per channel: (batch, 3, size, size)."""
    values = (pixels.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    return values.float().permute(0, 3, 1, 2).contiguous()


@contextmanager
def tiny_models(
    folder: Path,
    visions: Mapping[str, dict[str, Any]],
    texts: Mapping[str, dict[str, Any]] = {},
) -> Iterator[None]:
    """Add models to those of open_clip: the tiny one, each with changes to either tower."""
    for name, changes in visions.items():
        config = TINY_CONFIG | {"vision_cfg": TINY_CONFIG["vision_cfg"] | changes}
        config["text_cfg"] = TINY_CONFIG["text_cfg"] | texts.get(name, {})
        config["quick_gelu"] = name.endswith("-quickgelu")
        (folder / f"{name}.json").write_text(json.dumps(config))
    factory = open_clip.factory
    paths, known = [*factory._MODEL_CONFIG_PATHS], {**factory._MODEL_CONFIGS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_MODEL_CONFIG_PATHS", paths)
        patch.setattr(factory, "_MODEL_CONFIGS", known)
        open_clip.add_model_config(folder)
        yield


@contextmanager
def tiny_text_model(folder: Path, words: int = 10) -> Iterator[str]:
    """Add a model that takes texts of so many words; yield its name as a text encoder."""
    changes = {"context_length": words + 2, "vocab_size": 49408}
    with tiny_models(folder, {"ViT-tiny-text": {}}, {"ViT-tiny-text": changes}):
        yield "text/ViT-tiny-text"


@contextmanager
def hub_cache(folder: Path, *, offline: bool = True) -> Iterator[Path]:
    """Make a folder the hub's cache, from which no network is reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        patch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        yield folder


def publish(
    hub: Path, repository: str, tensors: Mapping[str, Tensor], file: str = "model.safetensors"
) -> None:
    """Put weights into a hub cache, laid out as huggingface_hub does."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    (root / "snapshots" / REVISION).mkdir(parents=True)
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(contiguous, root / "snapshots" / REVISION / file)


def i3d_network() -> InceptionI3d:
    """I3D with weights such as a checkpoint holds, so small in the first layers that they count."""
    torch.manual_seed(0)
    network = InceptionI3d().eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.02, 0.1)
    return network


def with_classes(network: InceptionI3d, classes: int) -> dict[str, Tensor]:
    """Its tensors, with a last layer for so many classes."""
    return network.state_dict() | {
        "logits.conv3d.weight": torch.ones(classes, 1024, 1, 1, 1),
        "logits.conv3d.bias": torch.zeros(classes),
    }


def save_small_i3d(network: InceptionI3d, path: Path) -> Path:
    """Write a file of one class that asks for an image size of 32, for speed."""
    stated = {"memfeat": '{"image_size": 32}'}
    safetensors.torch.save_file(with_classes(network, 1), path, stated)
    return path
