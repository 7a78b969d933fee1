"""I3D as an encoder: whose weights it takes, and what it makes of a clip."""

import json

import numpy as np
import pytest
import torch
from clips import numbered_clip
from commands import told
from safetensors.torch import save_file
from towers import i3d_network, pixels, save_small_i3d, with_classes

from memfeat.cache import Cache
from memfeat.encoders import create_encoder, encoder_tags, reachable_weights
from memfeat.errors import ConfigError, EncoderError, UnknownNameError


@pytest.fixture(scope="module")
def network():
    return i3d_network()


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "rgb_imagenet.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return create_encoder("i3d", str(checkpoint))


@pytest.fixture(scope="module")
def small_weights(network, tmp_path_factory):
    return save_small_i3d(network, tmp_path_factory.mktemp("weights") / "small.safetensors")


def test_a_clips_feature_is_the_networks_own_of_pixels_from_minus_one_to_one(
    small_weights, network
):
    clips = pixels(2, 16, 32, 32, 3)
    clips[0, 0, 0, 0] = torch.tensor([0, 255, 51])
    inputs = (clips.double() / 255 * 2 - 1).float().permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(inputs[0, :, 0, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    with torch.no_grad():
        features = network.features(inputs)[:, 0]
    expected = features / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        create_encoder("i3d", str(small_weights)).encode(clips), expected, atol=2e-6, rtol=0
    )


def test_it_says_what_it_is(encoder):
    assert (encoder.name, encoder.dim, encoder.activation) == ("i3d", 1024, "relu")
    assert (encoder.clip_frames, encoder.image_size) == (16, 224)
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.5,) * 3)
    assert encoder.weights == "file:rgb_imagenet.pt"
    spec = encoder.spec(batch_size=2)
    assert (spec.clip_frames, spec.num_tokens, spec.width) == (16, 1, 1024)


@pytest.mark.parametrize(
    ("classes", "stated"),
    [
        (400, "400 classes, as Kinetics-400 has"),
        (157, "157 classes, as Charades has"),
        (7, "7 classes"),
        (1, "1 class"),
    ],
)
def test_a_checkpoint_of_any_number_of_classes_is_taken(classes, stated, network, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(with_classes(network, classes), path)
    assert (
        create_encoder("i3d", str(path)).trained_on
        == f"not stated: a checkpoint file with {stated}"
    )


def test_the_hash_is_of_the_tensors_whatever_file_they_came_in(encoder, network, tmp_path):
    parallel = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": parallel}, tmp_path / "copy.pth")
    assert (
        create_encoder("i3d", str(tmp_path / "copy.pth")).weights_sha256 == encoder.weights_sha256
    )
    torch.save(with_classes(network, 400), tmp_path / "other.pth")
    other = create_encoder("i3d", str(tmp_path / "other.pth"))
    assert other.weights_sha256 != encoder.weights_sha256


def test_a_file_says_what_it_was_trained_on_and_at_which_size(network, tmp_path):
    path = tmp_path / "i3d.safetensors"
    said = {"trained_on": "memorability of made-up clips", "image_size": 64}
    save_file(with_classes(network, 1), path, {"memfeat": json.dumps(said)})
    encoder = create_encoder("i3d", str(path))
    assert (encoder.trained_on, encoder.image_size) == (said["trained_on"], 64)
    assert encoder.encode(pixels(1, 16, 64, 64, 3)).shape == (1, 1024)
    save_file(with_classes(network, 1), path, {"memfeat": '{"image_size": -3}'})
    with pytest.raises(EncoderError, match="image_size -3, which is no number of pixels from 32"):
        create_encoder("i3d", str(path))


def test_a_file_that_does_not_fit_is_refused_by_name_and_shape(network, tmp_path):
    path = tmp_path / "other.pt"
    tensors = network.state_dict()
    kept = tensors.pop("Mixed_5c.b0.conv3d.weight")
    torch.save(tensors | {"Mixed_5c.b0.conv.weight": kept}, path)
    missing = (
        r"1 missing \(Mixed_5c\.b0\.conv3d\.weight\); 1 unexpected \(Mixed_5c\.b0\.conv\.weight"
    )
    with pytest.raises(EncoderError, match=rf"other\.pt does not fit i3d: .*{missing}"):
        create_encoder("i3d", str(path))
    flow = {"Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}
    torch.save(network.state_dict() | flow, path)
    shapes = r"\(64, 2, 7, 7, 7\) instead of \(64, 3, 7, 7, 7\)"
    with pytest.raises(EncoderError, match=shapes):
        create_encoder("i3d", str(path))


def test_without_a_file_it_says_which_one_to_give():
    with pytest.raises(EncoderError, match=r"--weights FILE.*rgb_imagenet\.pt.*rgb_charades\.pt"):
        create_encoder("i3d")
    with pytest.raises(UnknownNameError, match="no weights 'imagenet'; give the path"):
        create_encoder("i3d", "imagenet")
    with pytest.raises(EncoderError, match=r"no checkpoint file gone/rgb_imagenet\.pt"):
        create_encoder("i3d", "gone/rgb_imagenet.pt")
    assert encoder_tags("i3d") == ()
    assert reachable_weights("i3d") is None


def test_another_activation_and_patch_tokens_are_refused():
    with pytest.raises(EncoderError, match="built with relu, which --activation gelu"):
        create_encoder("i3d", "random", activation="gelu")
    with pytest.raises(ConfigError, match=r"i3d.*cls\+2x2"):
        create_encoder("i3d", "random", tokens="cls+2x2")


def test_a_video_becomes_one_row_for_every_16_frames_that_it_has_in_full(small_weights, tmp_path):
    cache = tmp_path / "cache"
    lengths = {"long": 37, "short": 5}
    for name, frames in lengths.items():
        numbered_clip(tmp_path / f"{name}.mp4", frames)
    rows = "".join(f"{name},{name}.mp4,0.5,train\n" for name in lengths)
    (tmp_path / "manifest.csv").write_text(f"video_id,path,score,split\n{rows}")
    flags = ["--manifest", tmp_path / "manifest.csv", "--cache", cache, "--weights", small_weights]
    arguments = ["extract", "--encoder", "i3d", "--batch-size", "2", "--device", "cpu", *flags]
    summary = told(*arguments)
    assert (summary["frames"], summary["frames_kept"]) == (42, 42)  # no sampler left any out
    opened = Cache.open(cache)
    table = opened.load(list(lengths))
    assert opened.spec.clip_frames == 16
    assert table.lengths.tolist() == [2, 1]
    np.testing.assert_allclose(table.pts_seconds, [0, 16 / 30, 0], atol=1e-6)
    assert not np.array_equal(table.values[0], table.values[1])
