"""timm's models against timm itself: feature, preprocessing, weights."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import timm
import torch
from timm.layers.activations import QuickGELU
from torch import Tensor, nn
from towers import TINY_CONFIG, frames, hub_cache, normalised, publish

from memfeat import encoders
from memfeat.encoders import create_encoder, encoder_tags, reachable_weights
from memfeat.encoders.timm_weights import trained_on
from memfeat.errors import EncoderError, UnknownNameError

RESNET = "timm/resnet18"
CLIP = "timm/vit_base_patch32_clip_224"
QUICK_CLIP = "timm/vit_base_patch32_clip_quickgelu_224"


@torch.no_grad()
def pooled(model: Any, pixels: Tensor) -> Tensor:
    """Return unit vectors of what a whole timm model's classifier is given."""
    record = model.pretrained_cfg
    maps = model.forward_features(normalised(pixels, record["mean"], record["std"]))
    return nn.functional.normalize(model.forward_head(maps, pre_logits=True), dim=1)


def build(name: str, seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return timm.create_model(name.removeprefix("timm/"), **settings).eval()


@pytest.fixture
def hub(tmp_path):
    with hub_cache(tmp_path / "hub") as folder:
        yield folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A whole ResNet-18 with random weights, and the file it is saved in."""
    model = build(RESNET, seed=7)
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save(model.state_dict(), path)
    yield model, path


# The feature


@pytest.mark.parametrize(
    ("name", "dim", "activation"),
    [
        (RESNET, 512, "relu"),
        ("timm/vit_tiny_patch16_224", 192, "gelu"),
        ("timm/efficientnet_lite0", 1280, "relu6"),
        ("timm/mobilenetv3_small_050", 1024, "hardswish+relu"),
        ("timm/test_convnext", 64, "gelu-tanh"),
        ("timm/deit_tiny_distilled_patch16_224", 192, "gelu"),
    ],
)
def test_the_feature_is_what_timms_own_classifier_is_given(name, dim, activation):
    encoder = create_encoder(name, "random", seed=3)
    model = build(name, seed=3)
    size = model.pretrained_cfg["input_size"][1]
    assert (encoder.dim, encoder.image_size, encoder.activation) == (dim, size, activation)
    assert (encoder.weights, encoder.trained_on) == ("random", "nothing: random weights")
    pixels = frames(2, size)
    torch.testing.assert_close(encoder.encode(pixels), pooled(model, pixels), atol=2e-6, rtol=0)


def test_size_mean_and_std_are_those_of_the_weights():
    vit = create_encoder("timm/vit_tiny_patch16_224", "random")
    assert (vit.image_size, vit.mean, vit.std) == (224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    small = create_encoder("timm/test_efficientnet", "random")
    assert (small.image_size, small.mean) == (160, (0.485, 0.456, 0.406))


def test_towers_that_make_no_vector_of_a_square_image_are_refused():
    with pytest.raises(EncoderError, match=r"1024 x 768 pixels.*square"):
        create_encoder("timm/vit_base_patch16_sapiens2", "random")
    with pytest.raises(EncoderError, match="no classifier"):
        create_encoder("timm/qwen3_vit_88m_enc", "random")


def test_the_activation_is_the_architectures():
    with pytest.raises(EncoderError, match="resnet18 is built with relu, which --activation gelu"):
        create_encoder(RESNET, "random", activation="gelu")


# Weights from a file


def test_a_checkpoint_file_gives_the_features_of_the_model_it_was_saved_from(resnet):
    model, path = resnet
    encoder = create_encoder(RESNET, str(path))
    assert encoder.weights == "file:resnet.pth"
    assert encoder.trained_on == "not stated: a checkpoint file"
    pixels = frames(2, 224)
    torch.testing.assert_close(encoder.encode(pixels), pooled(model, pixels), atol=2e-6, rtol=0)


def test_a_classifier_of_any_number_of_classes_changes_neither_feature_nor_hash(resnet, tmp_path):
    model, path = resnet
    tensors = dict(model.state_dict())
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(10, 512), torch.zeros(10)
    safetensors.torch.save_file(tensors, tmp_path / "ten.safetensors")
    ten = create_encoder(RESNET, str(tmp_path / "ten.safetensors"))
    assert ten.weights_sha256 == create_encoder(RESNET, str(path)).weights_sha256
    assert ten.weights_sha256 != create_encoder(RESNET, "random").weights_sha256


def test_a_file_of_another_model_is_refused_by_name_and_shape(resnet, tmp_path):
    tensors = dict(resnet[0].state_dict())
    del tensors["bn1.bias"]
    tensors["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(EncoderError) as error:
        create_encoder(RESNET, str(tmp_path / "other.pth"))
    assert "1 missing (bn1.bias)" in str(error.value)
    assert "layer1.0.conv1.weight (64, 64, 1, 1) instead of (64, 64, 3, 3)" in str(error.value)


@pytest.mark.parametrize(
    "keys",
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model_ema", "state_dict_ema"),
        ("state_dict", "model"),
        ("model", "state_dict"),
        ("student", "model"),
    ],
)
def test_of_several_state_dicts_the_one_is_loaded_that_timm_loads(keys, tmp_path):
    models = [build("timm/test_vit", seed=seed) for seed in (1, 2)]
    dicts = [{f"module.{n}": v for n, v in model.state_dict().items()} for model in models]
    path = str(tmp_path / "several.pth")
    torch.save({"epoch": 3, **dict(zip(keys, dicts, strict=True))}, path)
    expected = build("timm/test_vit")
    timm.models.load_checkpoint(expected, path)
    encoder = create_encoder("timm/test_vit", path)
    pixels = frames(2, encoder.image_size)
    torch.testing.assert_close(encoder.encode(pixels), pooled(expected, pixels), atol=2e-6, rtol=0)


def test_a_teacher_and_a_student_are_not_chosen_between(tmp_path):
    tensors = build("timm/test_vit").state_dict()
    torch.save({"teacher": tensors, "student": tensors}, tmp_path / "dino.pth")
    with pytest.raises(EncoderError, match=r"several state dicts, teacher, student, .*save"):
        create_encoder("timm/test_vit", str(tmp_path / "dino.pth"))


def test_the_description_that_timm_publishes_beside_a_file_is_followed(resnet, tmp_path):
    model, path = resnet
    copy = tmp_path / "model.pth"
    copy.symlink_to(path)
    record = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    card = tmp_path / "config.json"
    card.write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": record}))
    encoder = create_encoder(RESNET, str(copy))
    assert (encoder.image_size, encoder.mean, encoder.std) == (96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    twin = build(RESNET, pretrained_cfg_overlay=record)
    twin.load_state_dict(model.state_dict())
    pixels = frames(2, 96)
    torch.testing.assert_close(encoder.encode(pixels), pooled(twin, pixels), atol=2e-6, rtol=0)
    card.write_text("[]")
    with pytest.raises(EncoderError, match=r"config\.json is not timm's description"):
        create_encoder(RESNET, str(copy))


# Weights by tag


def test_published_weights_are_taken_from_the_hubs_cache(resnet, hub):
    model, path = resnet
    publish(hub, "timm/resnet18.tv_in1k", model.state_dict())
    publish(hub, "timm/resnet18.a1_in1k", build(RESNET, seed=8).state_dict())
    encoder = create_encoder(RESNET, "tv_in1k")
    assert (encoder.weights, encoder.trained_on) == ("tv_in1k", "ImageNet-1k classification")
    assert encoder.weights_sha256 == create_encoder(RESNET, str(path)).weights_sha256
    default = create_encoder(RESNET)
    assert default.weights == encoder_tags(RESNET)[0] == "a1_in1k"
    assert default.weights_sha256 == create_encoder(RESNET, "random", seed=8).weights_sha256
    found = reachable_weights(RESNET)
    assert found is not None
    assert "models--timm--resnet18.a1_in1k" in str(found)
    assert reachable_weights(RESNET, "gluon_in1k") is None
    assert reachable_weights(RESNET, "no_such_tag") is None


def test_weights_first_published_in_another_format_are_taken_from_the_hub_too(hub):
    name = "timm/flexivit_small"  # timm's record of it has an .npz as well
    publish(hub, "timm/flexivit_small.1200ep_in1k", build(name, seed=1).state_dict())
    expected = create_encoder(name, "random", seed=1).weights_sha256
    assert create_encoder(name, "1200ep_in1k").weights_sha256 == expected


@torch.no_grad()
def test_clips_weights_give_the_same_class_token_through_timm_as_in_open_clip(hub):
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    visual = open_clip.CLIP(**config | {"text_cfg": TINY_CONFIG["text_cfg"]}).visual.eval()
    tensors = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    publish(hub, "timm/vit_base_patch32_clip_224.openai", tensors)
    encoder = create_encoder(QUICK_CLIP, "openai")
    assert (encoder.activation, encoder.trained_on) == ("quickgelu", "image-text pairs")
    assert any(isinstance(part, QuickGELU) for part in encoder._module.modules())
    colours = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    assert (encoder.dim, encoder.mean, encoder.std) == (768, *colours)
    visual.proj, pixels = None, frames(2, 224)
    token = visual(normalised(pixels, encoder.mean, encoder.std))
    expected = nn.functional.normalize(token, dim=1)
    torch.testing.assert_close(encoder.encode(pixels), expected, atol=2e-6, rtol=0)


def test_weights_trained_with_quickgelu_never_run_with_gelu(tmp_path):
    with pytest.raises(EncoderError, match=f"'openai' were trained with quickgelu.*{QUICK_CLIP}"):
        create_encoder(CLIP, "openai")
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "clip.pth")
    with pytest.raises(EncoderError, match=rf"does not tell.*{QUICK_CLIP}.*--activation gelu"):
        create_encoder(CLIP, str(tmp_path / "clip.pth"))
    # Once that is stated, the file is read.
    with pytest.raises(EncoderError, match=r"clip\.pth does not fit"):
        create_encoder(CLIP, str(tmp_path / "clip.pth"), activation="gelu")


def test_a_file_in_the_cache_that_does_not_fit_is_named(hub):
    publish(hub, "timm/resnet18.tv_in1k", {"fc.weight": torch.zeros(3, 3)})
    with pytest.raises(EncoderError, match=r"resnet18\.tv_in1k.*model\.safetensors cannot be load"):
        create_encoder(RESNET, "tv_in1k")


def test_weights_that_are_not_on_the_hub_are_named_with_their_address():
    with pytest.raises(EncoderError, match=r"not on the hub; download https://\S+gcvit_tiny\S+pth"):
        create_encoder("timm/gcvit_tiny")


def test_a_wrong_tag_lists_those_that_timm_knows():
    with pytest.raises(UnknownNameError, match="'openai'; timm knows for it: a1_in1k, a2_in1k"):
        create_encoder(RESNET, "openai")
    with pytest.raises(UnknownNameError, match="timm knows for it: none"):
        create_encoder("timm/botnet50ts_256")


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("a1_in1k", "ImageNet-1k classification"),
        ("augreg_in21k", "ImageNet-21k classification"),
        ("augreg_in21k_ft_in1k", "ImageNet-21k, then ImageNet-1k classification"),
        ("openai", "image-text pairs"),
        ("laion400m_e32", "image-text pairs"),
        (
            "openai_ft_in12k_in1k",
            "image-text pairs, then ImageNet-12k, then ImageNet-1k classification",
        ),
        ("laion2b_ft_augreg_inat21k", "see the tag laion2b_ft_augreg_inat21k in timm"),
        ("fcmae_ft_in22k_in1k", "see the tag fcmae_ft_in22k_in1k in timm"),
        ("fb_swsl_ig1b_ft_in1k", "see the tag fb_swsl_ig1b_ft_in1k in timm"),
        ("mae", "see the tag mae in timm"),
    ],
)
def test_what_weights_were_trained_on_is_said_as_far_as_the_tag_is_understood(tag, words):
    assert trained_on(tag) == words


# Names


def test_an_encoder_imports_only_the_library_that_it_belongs_to(monkeypatch):
    for path in Path(encoders.__file__).parent.glob("*.py"):
        at_import = re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"timm", "open_clip"}.intersection(at_import), path
    monkeypatch.setitem(sys.modules, "open_clip", None)  # so that importing it fails
    create_encoder("timm/test_vit", "random")
    monkeypatch.setitem(sys.modules, "timm", None)
    create_encoder("efficientnet-lite0", "random")
