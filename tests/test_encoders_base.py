"""What every frame encoder promises, on one of each kind."""

import pytest
import torch
from torch import Tensor, nn

from memfeat.cache import CacheSpec
from memfeat.encoders import (
    FrameEncoder,
    Tower,
    create_encoder,
    encoder_names,
    encoder_tags,
    reachable_weights,
)
from memfeat.errors import ConfigError, EncoderError, UnknownNameError

BATCH = 4


@pytest.fixture(scope="module", params=["efficientnet-lite0", "ViT-S-32-alt", "timm/test_vit"])
def encoder(request):
    return create_encoder(request.param, "random", seed=5)


def frames(count: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


class Constant(nn.Module):
    """A tower whose every feature has the same value throughout."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3), self.value)


def constant_encoder(value: float) -> FrameEncoder:
    half = (0.5, 0.5, 0.5)
    return FrameEncoder(Tower("flat", "random", "", "", "none", 3, 8, half, half, Constant(value)))


def test_vectors_are_float32_of_unit_length_on_the_cpu(encoder):
    pixels = frames(BATCH, encoder.image_size)
    kept = pixels.clone()
    vectors = encoder.encode(pixels)
    assert vectors.shape == (BATCH, encoder.dim)
    assert (vectors.dtype, vectors.device.type) == (torch.float32, "cpu")
    torch.testing.assert_close(
        vectors.double().square().sum(1), torch.ones(BATCH, dtype=torch.float64)
    )
    assert torch.equal(pixels, kept)


def test_a_vector_is_the_same_to_the_bit_wherever_it_stands_in_a_batch(encoder):
    frame = frames(1, encoder.image_size)
    found = set()
    for position in range(BATCH):
        batch = frames(BATCH, encoder.image_size, seed=position + 1)
        batch[position] = frame
        if position == 0:
            batch[1:] = 0  # as the last batch is padded
        found.add(encoder.encode(batch)[position].numpy().tobytes())
    assert len(found) == 1


def test_lower_precision_gives_nearly_the_same_vectors_and_is_recorded(encoder):
    low = create_encoder(encoder.name, "random", seed=5, precision="bfloat16")
    pixels = frames(2, encoder.image_size)
    cosine = (low.encode(pixels) * encoder.encode(pixels)).sum(1)
    assert cosine.min() > 0.98
    assert low.weights_sha256 == encoder.weights_sha256
    assert low.spec(batch_size=2).precision == "bfloat16"
    assert encoder.precision == "float32"


def test_the_spec_records_the_encoder_and_survives_json(encoder):
    spec = encoder.spec(batch_size=32, max_frames=7)
    for field in ("weights", "weights_sha256", "trained_on", "activation", "dim", "image_size"):
        assert getattr(spec, field) == getattr(encoder, field)
    assert (spec.encoder, spec.mean, spec.std) == (encoder.name, encoder.mean, encoder.std)
    assert (spec.batch_size, spec.max_frames, spec.is_random) == (32, 7, True)
    assert CacheSpec.model_validate_json(spec.model_dump_json()) == spec


def test_building_an_encoder_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    create_encoder("efficientnet-lite0", "random")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (torch.zeros(2, 8, 8, 3), r"torch\.float32 \(2, 8, 8, 3\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"\(2, 3, 8, 8\)"),
        (torch.zeros(2, 8, 9, 3, dtype=torch.uint8), r"\(2, 8, 9, 3\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"\(8, 8, 3\)"),
    ],
)
def test_pixels_of_another_type_or_shape_are_refused(pixels, got):
    with pytest.raises(EncoderError, match=rf"shape \(batch, 8, 8, 3\), not .*{got}"):
        constant_encoder(1.0).encode(pixels)


def test_an_empty_batch_is_refused():
    with pytest.raises(EncoderError, match="no frames"):
        constant_encoder(1.0).encode(torch.zeros(0, 8, 8, 3, dtype=torch.uint8))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_feature_without_a_direction_is_an_error_and_never_a_nan(value):
    with pytest.raises(EncoderError, match="zero or not finite for 2 of 2 frames"):
        constant_encoder(value).encode(frames(2, 8))


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="'efficientnet-lite0'"):
        create_encoder("efficientnet-lite1")
    with pytest.raises(UnknownNameError, match="'ViT-L-14-336'"):
        reachable_weights("ViT-L/14-336")
    with pytest.raises(UnknownNameError, match="unknown encoder 'nope'"):
        encoder_tags("nope")


def test_settings_that_cannot_be_used_are_refused_before_anything_is_built():
    with pytest.raises(UnknownNameError, match=r"precision 'half'.*bfloat16"):
        create_encoder("ViT-L-14-336", "random", precision="half")
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
    pixels = torch.randint(0, 256, (4, *plain.input_shape), dtype=torch.uint8)
    torch.testing.assert_close(compiled.encode(pixels), plain.encode(pixels), atol=1e-5, rtol=0)
    assert plain.spec(batch_size=4) != compiled.spec(batch_size=4)
    assert compiled.spec(batch_size=4).compiled
