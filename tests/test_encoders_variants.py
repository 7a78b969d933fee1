"""Encoders with one detail changed, against the libraries' own models with the same detail."""

import json
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional
from towers import TINY_CONFIG, frames, normalised, tiny_models

from memfeat.encoders import build_tower, build_variant
from memfeat.errors import EncoderError

KINDS = {
    "ViT-tiny-varied": {},
    "ViT-tiny-varied-avg": {"pool_type": "avg", "final_ln_after_pool": True},
    "RN-tiny-varied": {"layers": [1, 1, 1, 1], "width": 32, "head_width": 16, "image_size": 64},
    "timm-tiny-varied": {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160},
    "timm-tiny-mlp": {"timm_model_name": "test_vit", "timm_proj": "mlp", "image_size": 160},
    "timm-tiny-bare": {"timm_model_name": "test_vit", "timm_proj": "", "image_size": 160},
}


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    with tiny_models(tmp_path_factory.mktemp("models"), KINDS):
        yield


def encode(tower: Any, pixels: Tensor, **changes: Any) -> Tensor:
    details = {"activation": "as built", "projected": False, "precision": "float32"}
    details |= {"mean": tower.mean, "std": tower.std}
    return build_variant(tower, **(details | changes)).encode(pixels)


@torch.no_grad()
def timms(images: Tensor, **changes: Any) -> Tensor:
    """Return what timm's own classifier would be given, of unit length."""
    torch.manual_seed(3)
    model = timm.create_model("test_vit", **changes).eval()
    return functional.normalize(
        model.forward_head(model.forward_features(images), pre_logits=True), dim=1
    )


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_what_open_clip_computes_next_is_its_own_projection(name):
    tower = build_tower(name, "random", seed=3)
    torch.manual_seed(3)
    model = open_clip.CLIP(**json.loads(json.dumps(open_clip.get_model_config(name)))).eval()
    pixels = frames(2, tower.image_size)
    expected = model.encode_image(normalised(pixels, tower.mean, tower.std), normalize=True)
    found = encode(tower, pixels, projected=True)
    assert found.shape == (2, TINY_CONFIG["embed_dim"])
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@torch.no_grad()
def test_what_timm_computes_next_is_its_classifier():
    tower = build_tower("timm/test_vit", "random", seed=3)
    torch.manual_seed(3)
    model = timm.create_model("test_vit").eval()
    pixels = frames(2, tower.image_size)
    expected = functional.normalize(model(normalised(pixels, tower.mean, tower.std)), dim=1)
    torch.testing.assert_close(encode(tower, pixels, projected=True), expected, atol=2e-6, rtol=0)


@torch.no_grad()
def test_the_activation_is_changed_in_every_block_and_the_tower_stays_as_it_is():
    tower = build_tower("timm/test_vit", "random", seed=3)
    pixels = frames(2, tower.image_size)
    before = encode(tower, pixels)
    for name, layer in (("quickgelu", timm.layers.QuickGELU), ("gelu-tanh", timm.layers.GELUTanh)):
        expected = timms(normalised(pixels, tower.mean, tower.std), act_layer=layer)
        found = encode(tower, pixels, activation=name)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
        assert not torch.equal(found, before)
    assert torch.equal(encode(tower, pixels, activation="gelu"), before)


def test_other_colours_and_nothing_to_project_with():
    tower = build_tower("timm/test_vit", "random", seed=3)
    pixels = frames(2, tower.image_size)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    expected = timms(normalised(pixels, mean, std))
    found = encode(tower, pixels, mean=mean, std=std)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    bare = build_tower("efficientnet-lite0", "random")
    with pytest.raises(EncoderError, match="nothing is known to follow"):
        encode(bare, frames(1, bare.image_size), projected=True)
