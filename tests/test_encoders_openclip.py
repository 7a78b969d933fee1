"""open_clip's image towers against open_clip itself: feature, activation, weights."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional
from towers import TINY_CONFIG, frames, hub_cache, normalised, publish, tiny_models

from memfeat.encoders import create_encoder, encoder_tags, reachable_weights
from memfeat.encoders.openclip import _plan, quick_gelu_of
from memfeat.encoders.openclip_weights import source
from memfeat.errors import EncoderError, UnknownNameError

TINY = "ViT-tiny-test"
CLIP_COLOURS = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
OPENAI_REPOSITORY = "timm/vit_base_patch32_clip_224.openai"
LAION_REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


def build(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """Build a model as open_clip's users do, but with a small text tower, which does not count."""
    torch.manual_seed(seed)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the QuickGELU mismatch that memfeat rules out
            return open_clip.create_model(name, text_cfg=TINY_CONFIG["text_cfg"], **changes).eval()
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def pooled(model: Any, pixels: Tensor) -> Tensor:
    """Return unit vectors of the class token as it leaves a vision transformer's last norm."""
    caught: list[Tensor] = []
    handle = model.visual.ln_post.register_forward_hook(lambda *call: caught.append(call[2]))
    projected = model.encode_image(normalised(pixels, *CLIP_COLOURS))
    handle.remove()
    token = caught[0][:, 0]
    torch.testing.assert_close(token @ model.visual.proj, projected, atol=1e-5, rtol=1e-5)
    return functional.normalize(token, dim=1)


def assert_same(vectors: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(vectors, expected, atol=2e-6, rtol=0)


def distance(left: Tensor, right: Tensor) -> float:
    return float((left - right).norm(dim=1).min())


@pytest.fixture(scope="module")
def clip():
    """ViT-B-32 with QuickGELU and random weights that half precision holds exactly."""
    model = build("ViT-B-32-quickgelu", seed=3)
    model.load_state_dict({name: value.half() for name, value in model.state_dict().items()})
    return model


@pytest.fixture(scope="module")
def hub(clip, tmp_path_factory):
    """A hub cache that holds `clip` under two repositories."""
    tensors = {name: value.half() for name, value in clip.state_dict().items()}
    with hub_cache(tmp_path_factory.mktemp("hub")) as folder:
        for repository in (OPENAI_REPOSITORY, LAION_REPOSITORY):
            publish(folder, repository, tensors, "open_clip_model.safetensors")
        yield folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model small enough to build at will, with a QuickGELU twin; returns the twin's weights."""
    maps = {"timm_model_name": "resnet18", "timm_pool": "rot_attn", "timm_proj": ""}
    visions = {
        TINY: {},
        f"{TINY}-quickgelu": {},
        f"{TINY}-wide": {"image_size": [32, 64]},
        f"{TINY}-maps": maps | {"image_size": 64},
    }
    with tiny_models(tmp_path_factory.mktemp("models"), visions):
        model = build(f"{TINY}-quickgelu", seed=7)
        for tensor in model.state_dict().values():
            tensor.mul_(3).copy_(tensor.half())  # wider, so that activations make a difference
        yield model


def plain_gelu(model: Any) -> Any:
    twin = build(TINY)
    twin.load_state_dict(model.state_dict())
    return twin


def save_plain(model: Any, path: Path) -> str:
    safetensors.torch.save_file(
        {name: value.clone() for name, value in model.state_dict().items()}, path
    )
    return str(path)


def save_marked(model: Any, path: Path) -> str:
    marks = {"input_resolution": 32, "context_length": 5, "vocab_size": 9}
    torch.save(model.state_dict() | {key: torch.tensor(n) for key, n in marks.items()}, path)
    return str(path)


def save_archive(model: Any, path: Path) -> str:
    """Write a TorchScript archive as OpenAI's: half precision, its three numbers as buffers."""
    twin = open_clip.CLIP(**TINY_CONFIG, quick_gelu=True).eval()
    twin.load_state_dict(model.state_dict())
    for key, number in {"input_resolution": 32, "context_length": 5, "vocab_size": 9}.items():
        twin.__dict__.pop(key, None)
        twin.register_buffer(key, torch.tensor(number))
    open_clip.model.convert_weights_to_lp(twin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but OpenAI's files stay
        archive = torch.jit.trace_module(  # type: ignore[no-untyped-call]
            twin, {"encode_image": torch.zeros(1, 3, 32, 32).half()}, check_trace=False
        )
        archive.save(str(path))
    return str(path)


# The feature


@pytest.mark.parametrize(
    "name", ["ViT-B-32", pytest.param("ViT-B-32-quickgelu", marks=pytest.mark.extras)]
)
def test_the_feature_is_open_clips_own_before_the_projection_with_quickgelu_under_either_name(
    name, clip, hub
):
    encoder = create_encoder(name, "openai")
    assert (encoder.dim, encoder.image_size, encoder.activation) == (768, 224, "quickgelu")
    parts = [type(part) for part in encoder._module.modules()]
    assert (parts.count(QuickGELU), parts.count(nn.GELU)) == (12, 0)
    assert (encoder.weights, encoder.trained_on) == ("openai", "CLIP, OpenAI's image-text pairs")
    assert create_encoder(name, "openai", precision="half").precision == "float16"  # as they came
    pixels = frames(2, 224)
    assert_same(encoder.encode(pixels), pooled(clip, pixels))


def test_random_weights_are_those_open_clip_draws_from_the_seed():
    encoder = create_encoder("ViT-S-32-alt", "random", seed=3)
    pixels = frames(2, 224)
    assert_same(encoder.encode(pixels), pooled(build("ViT-S-32-alt", seed=3), pixels))


def test_the_papers_encoder_is_1024_wide_before_its_projection_to_768():
    with torch.device("meta"):
        visual = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14-336")).visual
        widths = []
        visual.ln_post.register_forward_hook(lambda *call: widths.append(call[2].shape[-1]))
        assert visual(torch.empty(1, 3, 336, 336)).shape == (1, 768)
    assert _plan("ViT-L-14-336", "cls") == (widths[0], 336) == (1024, 336)


def last_layer(model: Any) -> tuple[Tensor, Tensor | float]:
    """Return weight (dim, out) and bias of the layer that maps the pooled feature on."""
    visual = model.visual
    if hasattr(visual, "attnpool"):
        layer = visual.attnpool.c_proj
    elif hasattr(visual, "trunk"):
        layer = visual.head.proj if len(visual.head) else visual.trunk.head
    else:
        return visual.proj, 0.0
    return layer.weight.T, 0.0 if layer.bias is None else layer.bias


@pytest.mark.parametrize(
    ("name", "dim", "activation", "asked"),
    [
        pytest.param("RN50", 2048, "relu", "auto", marks=pytest.mark.extras),
        pytest.param("convnext_tiny", 768, "gelu", "auto", marks=pytest.mark.extras),
        ("PE-Core-T-16-384", 192, "gelu", "auto"),
        pytest.param("coca_ViT-B-32", 512, "gelu", "gelu", marks=pytest.mark.extras),
    ],
)
@torch.no_grad()
def test_other_kinds_of_tower_give_what_their_projection_takes(
    name, dim, activation, asked, tmp_path
):
    coca = {"multimodal_cfg": TINY_CONFIG["text_cfg"]} if name.startswith("coca") else {}
    model = build(name, **coca)
    path = tmp_path / "image.safetensors"
    safetensors.torch.save_file(
        {f"visual.{key}": value.clone() for key, value in model.visual.state_dict().items()}, path
    )
    encoder = create_encoder(name, str(path), activation=asked)
    assert (encoder.dim, encoder.activation) == (dim, activation)
    pixels = frames(2, encoder.image_size)
    output = model.visual(normalised(pixels, encoder.mean, encoder.std))
    projected = output[0] if isinstance(output, tuple) else output
    weight, bias = last_layer(model)
    wanted, got = projected - bias, encoder.encode(pixels) @ weight
    wanted, got = (functional.normalize(each, dim=1) for each in (wanted, got))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_towers_without_one_vector_for_a_square_image_are_refused(tiny):
    with pytest.raises(EncoderError, match=r"32 x 64 pixels.*square"):
        create_encoder(f"{TINY}-wide", "random")
    with pytest.raises(EncoderError, match=r"one vector an image .* but in \(1, 512, 2, 2\)"):
        create_encoder(f"{TINY}-maps", "random")


# Weights by tag


def test_weights_trained_with_gelu_run_with_gelu(clip, hub):
    encoder = create_encoder("ViT-B-32", "laion2b-s34b-b79k")
    assert (encoder.activation, encoder.weights) == ("gelu", "laion2b_s34b_b79k")
    pixels = frames(2, 224)
    twin = build("ViT-B-32")
    twin.load_state_dict(clip.state_dict())
    assert_same(encoder.encode(pixels), pooled(twin, pixels))
    assert distance(encoder.encode(pixels), pooled(clip, pixels)) > 1e-3


@pytest.mark.parametrize(
    ("name", "weights", "asked", "message"),
    [
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "auto", "the name .*quickgelu.*says gelu"),
        ("ViT-B-32", "openai", "gelu", "'openai' says quickgelu, but --activation gelu"),
        ("ViT-B-32", "laion2b_s34b_b79k", "quickgelu", "--activation quickgelu says.*says gelu"),
        ("RN50", "random", "quickgelu", "RN50 is built with relu, which --activation quickgelu"),
    ],
)
def test_a_name_or_setting_that_contradicts_tag_or_architecture_is_refused(
    name, weights, asked, message, hub
):
    with pytest.raises(EncoderError, match=message):
        create_encoder(name, weights, activation=asked)


def test_weights_in_the_hubs_cache_are_found_and_others_are_not(hub):
    found = reachable_weights("ViT-B-32")
    assert found is not None
    assert found.is_file()
    assert OPENAI_REPOSITORY.replace("/", "--") in str(found)
    assert reachable_weights("ViT-L-14-336") is None
    assert reachable_weights("ViT-B-32", "no_such_tag") is None


def test_a_wrong_tag_lists_those_that_open_clip_knows():
    with pytest.raises(UnknownNameError) as error:
        create_encoder("ViT-B-32-quickgelu", "opena")
    assert all(
        tag in str(error.value) for tag in open_clip.list_pretrained_tags_by_model("ViT-B-32")
    )
    assert encoder_tags("ViT-B-32-quickgelu") == encoder_tags("ViT-B-32")
    with pytest.raises(UnknownNameError, match="webli"):
        create_encoder("ViT-B-16-SigLIP")


def test_every_tag_is_run_with_the_activation_open_clip_records_for_it():
    compared = 0
    for name, tag in open_clip.list_pretrained():
        config = open_clip.get_model_config(name)
        if "timm_model_name" not in config["vision_cfg"] and not name.startswith("RN"):
            recorded = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
            # One record is silent, while the model's own configuration is not.
            expected = recorded or name == "roberta-ViT-B-32"
            assert quick_gelu_of(name, "auto", source(name, tag)) == expected, (name, tag)
            compared += 1
    assert compared > 50


# Weights from a file


@pytest.mark.parametrize("save", [save_marked, save_archive])
@pytest.mark.parametrize("name", [TINY, f"{TINY}-quickgelu"])
def test_openais_files_run_with_quickgelu_under_either_name(save, name, tiny, tmp_path):
    encoder = create_encoder(name, save(tiny, tmp_path / "openai.pt"))
    assert (encoder.activation, encoder.weights) == ("quickgelu", "file:openai.pt")
    assert any(isinstance(part, QuickGELU) for part in encoder._module.modules())
    pixels = frames(3, 32)
    assert_same(encoder.encode(pixels), pooled(tiny, pixels))
    assert distance(encoder.encode(pixels), pooled(plain_gelu(tiny), pixels)) > 1e-3
    path = save_plain(tiny, tmp_path / "plain.safetensors")
    plain = create_encoder(name, path, activation="quickgelu")
    assert plain.weights_sha256 == encoder.weights_sha256
    with pytest.raises(EncoderError, match="says quickgelu, but --activation gelu"):
        create_encoder(name, str(tmp_path / "openai.pt"), activation="gelu")


def test_a_file_that_does_not_tell_needs_the_activation(tiny, tmp_path):
    path = save_plain(tiny, tmp_path / "weights.safetensors")
    with pytest.raises(EncoderError, match=r"weights\.safetensors does not tell .*--activation"):
        create_encoder(TINY, path)
    pixels = frames(3, 32)
    quick, gelu = pooled(tiny, pixels), pooled(plain_gelu(tiny), pixels)
    for name, asked, expected in (
        (TINY, "quickgelu", quick),
        (TINY, "gelu", gelu),
        (f"{TINY}-quickgelu", "auto", quick),
    ):
        encoder = create_encoder(name, path, activation=asked)
        assert encoder.activation == ("quickgelu" if expected is quick else "gelu")
        assert_same(encoder.encode(pixels), expected)
    with pytest.raises(EncoderError, match=r"the name .*-quickgelu says quickgelu.*says gelu"):
        create_encoder(f"{TINY}-quickgelu", path, activation="gelu")


def test_the_description_that_open_clip_publishes_beside_a_file_tells(tiny, tmp_path):
    path = save_plain(tiny, tmp_path / "open_clip_model.safetensors")
    card = tmp_path / "open_clip_config.json"
    mean = [0.1, 0.2, 0.3]
    for quick in (True, False):
        content = {
            "model_cfg": TINY_CONFIG | {"quick_gelu": quick},
            "preprocess_cfg": {"mean": mean},
        }
        card.write_text(json.dumps(content))
        encoder = create_encoder(TINY, path)
        assert encoder.activation == ("quickgelu" if quick else "gelu")
        assert encoder.mean == tuple(mean)
    with pytest.raises(EncoderError, match=r"open_clip_config\.json beside it says gelu"):
        create_encoder(TINY, path, activation="quickgelu")
    card.write_text("[]")
    with pytest.raises(EncoderError, match=r"open_clip_config\.json is not"):
        create_encoder(TINY, path)


def test_of_several_state_dicts_the_one_is_loaded_that_open_clip_loads(tiny, tmp_path):
    path = str(tmp_path / "several.pt")
    models = [build(TINY, seed=seed) for seed in (1, 2)]
    dicts = [{f"module.{n}": v for n, v in each.state_dict().items()} for each in models]
    torch.save({"state_dict_ema": dicts[0], "state_dict": dicts[1], "epoch": 3}, path)
    expected = build(TINY)
    open_clip.load_checkpoint(expected, path)
    pixels = frames(2, 32)
    for _ in range(2):
        encoder = create_encoder(TINY, path, activation="gelu")
        assert_same(encoder.encode(pixels), pooled(expected, pixels))
        torch.save({"model": dicts[1]}, path)
    torch.save({"model": dicts[1], "model_ema": dicts[0]}, path)
    with pytest.raises(EncoderError, match="several state dicts, model, model_ema, and"):
        create_encoder(TINY, path, activation="gelu")
    torch.save({**dicts[1], "ema.module.visual.proj": torch.zeros(48, 24)}, path)
    with pytest.raises(EncoderError, match=r"several models, one with 'ema\.module\.visual\.proj'"):
        create_encoder(TINY, path, activation="gelu")


def test_a_file_of_another_architecture_is_refused_not_bent_to_fit(tiny, tmp_path):
    tensors = dict(tiny.state_dict())
    tensors["visual.positional_embedding"] = torch.zeros(17, 48)  # of a 64 pixel model
    del tensors["visual.ln_post.bias"]
    torch.save(tensors, tmp_path / "other.pt")
    with pytest.raises(EncoderError) as error:
        create_encoder(TINY, str(tmp_path / "other.pt"), activation="gelu")
    assert "1 missing (ln_post.bias)" in str(error.value)
    assert "positional_embedding (17, 48) instead of (5, 48)" in str(error.value)


def test_random_weights_take_their_activation_from_the_name_or_the_setting(tiny):
    for name, asked, built in (
        (TINY, "auto", "gelu"),
        (TINY, "quickgelu", "quickgelu"),
        (f"{TINY}-quickgelu", "auto", "quickgelu"),
    ):
        assert create_encoder(name, "random", activation=asked).activation == built
    assert create_encoder("RN50-quickgelu", "random").activation == "relu"


def test_mean_and_std_are_those_of_the_weights():
    assert source("PE-Core-T-16-384", "random").mean == (0.5, 0.5, 0.5)
    assert source("ViT-S-32-alt", "random").mean == open_clip.OPENAI_DATASET_MEAN
