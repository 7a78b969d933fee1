"""torchvision's video models against torchvision itself: feature, preprocessing, weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn
from towers import pixels

from memfeat.encoders import create_encoder, encoder_names, encoder_tags, reachable_weights
from memfeat.encoders import vector_shape as shape_of
from memfeat.errors import ConfigError, EncoderError, UnknownNameError

SMALL = "torchvision/r3d_18"


def build(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torchvision.models.get_model(name.removeprefix("torchvision/"), weights=None).eval()


@torch.no_grad()
def given_to_the_classifier(model: Any, clips: Tensor, record: Any) -> Tensor:
    """Return unit vectors of what the whole model's last layer is given, a mean over positions."""
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv3d)][-1]
    caught: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    preset = record.transforms()
    values = clips.float() / 255  # (batch, time, height, width, 3)
    values = (values - torch.tensor(preset.mean)) / torch.tensor(preset.std)
    model(values.permute(0, 4, 1, 2, 3))
    handle.remove()
    found = caught[0].flatten(2).mean(2) if caught[0].ndim == 5 else caught[0]
    return nn.functional.normalize(found, dim=1)


@pytest.mark.parametrize(
    ("name", "dim", "size"),
    [
        ("r3d_18", 512, 112),
        pytest.param("s3d", 1024, 224, marks=pytest.mark.extras),
        pytest.param("r2plus1d_18", 512, 112, marks=pytest.mark.extras),
        pytest.param("mvit_v2_s", 768, 224, marks=pytest.mark.extras),
        pytest.param("swin3d_t", 768, 224, marks=pytest.mark.extras),
    ],
)
def test_the_feature_of_16_frames_is_what_torchvisions_classifier_is_given(name, dim, size):
    full = f"torchvision/{name}"
    assert full in encoder_names()
    shape = shape_of(full)
    assert (shape.dim, shape.clip_frames) == (dim, 16)
    encoder = create_encoder(full, "random", seed=3)
    record = torchvision.models.get_model_weights(name).DEFAULT
    assert (encoder.dim, encoder.clip_frames, encoder.image_size) == (dim, 16, size)
    assert encoder.mean == tuple(record.transforms().mean)
    assert encoder.trained_on == "nothing: random weights"
    clips = pixels(1, 16, size, size, 3)
    expected = given_to_the_classifier(build(full, seed=3), clips, record)
    torch.testing.assert_close(encoder.encode(clips), expected, atol=3e-6, rtol=0)


@pytest.mark.extras
def test_a_file_may_have_any_number_of_classes(tmp_path):
    model = build(SMALL, seed=5)
    model.fc = nn.Linear(512, 7)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    encoder = create_encoder(SMALL, str(tmp_path / "mine.pth"))
    assert (encoder.weights, encoder.trained_on) == (
        "file:mine.pth",
        "not stated: a checkpoint file",
    )
    clips = pixels(1, 16, 112, 112, 3)
    record = torchvision.models.get_model_weights("r3d_18").DEFAULT
    expected = given_to_the_classifier(model, clips, record)
    torch.testing.assert_close(encoder.encode(clips), expected, atol=3e-6, rtol=0)


@pytest.mark.extras
def test_weights_by_tag_are_taken_from_torchs_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert encoder_tags(SMALL) == ("KINETICS400_V1",)
    assert reachable_weights(SMALL) is None
    model = build(SMALL, seed=6)
    record = torchvision.models.get_model_weights("r3d_18").KINETICS400_V1
    file = tmp_path / "checkpoints" / Path(record.url).name
    file.parent.mkdir()
    torch.save(model.state_dict(), file)
    assert reachable_weights(SMALL) == reachable_weights(SMALL, "KINETICS400_V1") == file
    by_tag = create_encoder(SMALL)
    assert (by_tag.weights, by_tag.trained_on) == ("KINETICS400_V1", "Kinetics-400 classification")
    by_file = create_encoder(SMALL, str(file))
    assert by_tag.weights_sha256 == by_file.weights_sha256


def test_what_cannot_be_had_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    record = torchvision.models.get_model_weights("r3d_18").KINETICS400_V1
    monkeypatch.setattr(
        record.value, "url", "http://127.0.0.1:9/r3d_18-b3b3357e.pth", raising=False
    )
    with pytest.raises(EncoderError, match=r"KINETICS400_V1.*cannot be had.*Do the same on a"):
        create_encoder(SMALL)
    assert not list(tmp_path.rglob("*.pth"))
    with pytest.raises(UnknownNameError, match="torchvision knows for it: KINETICS400_V1"):
        create_encoder(SMALL, "imagenet")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'torchvision/r3d_18'"):
        create_encoder("torchvision/r3d18", "random")
    with pytest.raises(ConfigError, match="gives one vector a frame"):
        create_encoder(SMALL, "random", tokens="cls+2x2")
