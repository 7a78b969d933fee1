"""What every frame encoder promises, on one of each kind."""

import time
from functools import partial

import pytest
import torch
from towers import Constant, hub_cache, i3d_network, pixels, save_small_i3d

from memfeat.cache import CacheSpec
from memfeat.encoders import (
    FrameEncoder,
    Tower,
    create_encoder,
    encoder_names,
    encoder_tags,
    reachable_weights,
)
from memfeat.errors import ConfigError, EncoderError, NoDirectionError, UnknownNameError

BATCH = 3
FAMILIES = ["efficientnet-lite0", "ViT-S-32-alt", "timm/test_vit", "i3d"]


@pytest.fixture(scope="module", params=FAMILIES)
def make(request, tmp_path_factory):
    """What makes the same encoder of each family again and again."""
    weights = "random"
    if request.param == "i3d":
        folder = tmp_path_factory.mktemp("weights")
        weights = str(save_small_i3d(i3d_network(), folder / "small.safetensors"))
    return partial(create_encoder, request.param, weights, seed=5)


@pytest.fixture(scope="module")
def encoder(make):
    return make()


def constant_encoder(value):
    half = (0.5, 0.5, 0.5)
    return FrameEncoder(Tower("flat", "random", "", "", "none", 3, 8, half, half, Constant(value)))


def test_vectors_are_float32_of_unit_length_on_the_cpu(encoder):
    given = pixels(BATCH, *encoder.input_shape)
    kept = given.clone()
    vectors = encoder.encode(given)
    assert vectors.shape == (BATCH, encoder.dim)
    assert (vectors.dtype, vectors.device.type) == (torch.float32, "cpu")
    torch.testing.assert_close(
        vectors.double().square().sum(1), torch.ones(BATCH, dtype=torch.float64)
    )
    assert torch.equal(given, kept)


def test_a_vector_is_the_same_to_the_bit_wherever_it_stands_in_a_batch(encoder):
    frame = pixels(1, *encoder.input_shape)
    found = set()
    for position in range(BATCH):
        batch = pixels(BATCH, *encoder.input_shape, seed=position + 1)
        batch[position] = frame
        if position == 0:
            batch[1:] = 0  # as the last batch is padded
        found.add(encoder.encode(batch)[position].numpy().tobytes())
    assert len(found) == 1


def test_lower_precision_gives_nearly_the_same_vectors_and_is_recorded(encoder, make):
    low, given = make(precision="half"), pixels(1, *encoder.input_shape)
    cosine = (low.encode(given) * encoder.encode(given)).sum(1)
    assert cosine.min() > 0.98
    assert low.weights_sha256 == encoder.weights_sha256
    assert low.spec(batch_size=2).precision == "bfloat16"
    assert encoder.precision == "float32"


@pytest.mark.parametrize("name", FAMILIES)
def test_random_weights_say_so_and_follow_from_the_seed(name):
    first, again, other = (create_encoder(name, "random", seed=seed) for seed in (1, 1, 2))
    assert (first.weights, first.trained_on) == ("random", "nothing: random weights")
    assert first.spec(batch_size=1).is_random
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(
    ("name", "tag", "repository"),
    [
        ("ViT-L-14-336", "openai", "timm/vit_large_patch14_clip_336.openai"),
        ("timm/vit_base_patch16_224", None, "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    ],
)
def test_weights_that_cannot_be_had_end_in_one_line_within_seconds(
    name, tag, repository, offline, tmp_path
):
    started = time.perf_counter()
    with hub_cache(tmp_path, offline=offline), pytest.raises(EncoderError) as error:
        create_encoder(name, tag)
    assert time.perf_counter() - started < 30  # and not after the minutes of many retries
    message = str(error.value)
    assert "\n" not in message
    for part in (
        repository,
        str(tmp_path),
        "connected machine",
        "--weights FILE",
        "--weights random",
    ):
        assert part in message


def test_the_spec_records_the_encoder_and_survives_json(encoder):
    spec = encoder.spec(batch_size=32, max_frames=7)
    for field in ("weights", "weights_sha256", "trained_on", "activation", "dim", "image_size"):
        assert getattr(spec, field) == getattr(encoder, field)
    assert (spec.encoder, spec.mean, spec.std) == (encoder.name, encoder.mean, encoder.std)
    assert (spec.batch_size, spec.max_frames) == (32, 7)
    assert CacheSpec.model_validate_json(spec.model_dump_json()) == spec


def test_building_an_encoder_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    create_encoder("efficientnet-lite0", "random")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (torch.zeros(2, 8, 8, 3), r"torch\.float32 \(2, 8, 8, 3\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"\(2, 3, 8, 8\)"),
        (torch.zeros(2, 8, 9, 3, dtype=torch.uint8), r"\(2, 8, 9, 3\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"\(8, 8, 3\)"),
    ],
)
def test_pixels_of_another_type_or_shape_are_refused(given, got):
    with pytest.raises(EncoderError, match=rf"shape \(batch, 8, 8, 3\), not .*{got}"):
        constant_encoder(1.0).encode(given)


def test_an_empty_batch_is_refused():
    with pytest.raises(EncoderError, match="no frames"):
        constant_encoder(1.0).encode(torch.zeros(0, 8, 8, 3, dtype=torch.uint8))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_feature_without_a_direction_is_an_error_and_never_a_nan(value):
    with pytest.raises(NoDirectionError, match="zero or not finite for 2 of 2 frames"):
        constant_encoder(value).encode(pixels(2, 8, 8, 3))


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="'efficientnet-lite0'"):
        create_encoder("efficientnet-lite1")
    with pytest.raises(UnknownNameError, match="'ViT-L-14-336'"):
        reachable_weights("ViT-L/14-336")
    with pytest.raises(UnknownNameError, match="'timm/resnet18'") as error:
        create_encoder("timm/resnet19")
    assert len(str(error.value)) < 250
    with pytest.raises(UnknownNameError, match="unknown encoder 'nope'"):
        encoder_tags("nope")


def test_settings_that_cannot_be_used_are_refused_before_anything_is_built():
    with pytest.raises(UnknownNameError, match=r"precision 'double'.*bfloat16"):
        create_encoder("ViT-L-14-336", "random", precision="double")
    with pytest.raises(UnknownNameError, match=r"activation 'relu'.*quickgelu"):
        create_encoder("ViT-L-14-336", "random", activation="relu")
    with pytest.raises(ConfigError, match="device 'tpu9' is not one of: auto, cpu, cuda"):
        create_encoder("ViT-L-14-336", "random", device="tpu9")


def test_all_families_are_listed_with_their_weights():
    names = encoder_names()
    assert {"efficientnet-lite0", "ViT-B-32", "ViT-L-14-336", "timm/resnet50"} <= set(names)
    assert len(names) == len(set(names))
    assert encoder_tags("efficientnet-lite0") == ("imagenet",)
    assert "openai" in encoder_tags("ViT-L-14-336")
    assert encoder_tags("timm/vit_large_patch16_384") == ("augreg_in21k_ft_in1k",)


@pytest.mark.soak
def test_a_compiled_encoder_gives_the_same_vectors_to_the_last_bits_and_says_so():
    """Compiling takes a minute or two, so this is not among the quick tests."""
    plain = create_encoder("timm/test_vit", "random")
    compiled = create_encoder("timm/test_vit", "random", compiled=True)
    given = pixels(4, *plain.input_shape)
    torch.testing.assert_close(compiled.encode(given), plain.encode(given), atol=1e-5, rtol=0)
    assert plain.spec(batch_size=4) != compiled.spec(batch_size=4)
    assert compiled.spec(batch_size=4).compiled
