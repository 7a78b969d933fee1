"""I3D as an encoder: whose weights it takes, and what it makes of a clip."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

from memfeat.cache import Cache
from memfeat.cli import main
from memfeat.encoders import create_encoder, encoder_tags, reachable_weights
from memfeat.encoders.inception import InceptionI3d
from memfeat.errors import ConfigError, EncoderError, UnknownNameError
from tests.clips import numbered_clip


@pytest.fixture(scope="module")
def network():
    """Weights such as a checkpoint holds, small enough in the first layers to matter."""
    torch.manual_seed(0)
    network = InceptionI3d().eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.02, 0.1)
    return network


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
    """A file of one class that asks for an image size of 32, for speed."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(with_classes(network, 1), path, {"memfeat": '{"image_size": 32}'})
    return path


@pytest.fixture(scope="module")
def small(small_weights):
    return create_encoder("i3d", str(small_weights))


def clips(count: int, size: int = 224, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 16, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def with_classes(network: InceptionI3d, classes: int) -> dict[str, Tensor]:
    return network.state_dict() | {
        "logits.conv3d.weight": torch.ones(classes, 1024, 1, 1, 1),
        "logits.conv3d.bias": torch.zeros(classes),
    }


def test_a_clips_feature_is_the_networks_own_of_pixels_from_minus_one_to_one(small, network):
    pixels = clips(2, 32)
    pixels[0, 0, 0, 0] = torch.tensor([0, 255, 51])
    inputs = (pixels.double() / 255 * 2 - 1).float().permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(inputs[0, :, 0, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))
    with torch.no_grad():
        features = network.features(inputs)[:, 0]
    expected = features / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(small.encode(pixels), expected, atol=2e-6, rtol=0)


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
    assert encoder.encode(clips(1, 64)).shape == (1, 1024)
    save_file(with_classes(network, 1), path, {"memfeat": '{"image_size": -3}'})
    with pytest.raises(EncoderError, match="image_size -3, which is no number of pixels from 32"):
        create_encoder("i3d", str(path))


def test_a_vector_is_the_same_to_the_bit_wherever_it_stands_in_a_batch(small):
    clip, found = clips(1, 32), set()
    for position in range(3):
        batch = clips(3, 32, seed=position + 1)
        batch[position] = clip
        if position == 0:
            batch[1:] = 0  # as the last batch is padded
        found.add(small.encode(batch)[position].numpy().tobytes())
    assert len(found) == 1


def test_lower_precision_gives_nearly_the_same_vectors(small, small_weights):
    low = create_encoder("i3d", str(small_weights), precision="bfloat16")
    cosine = (low.encode(clips(1, 32)) * small.encode(clips(1, 32))).sum(1)
    assert cosine.min() > 0.98


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


def test_random_weights_say_so_and_follow_from_the_seed():
    first, again, other = (create_encoder("i3d", "random", seed=seed) for seed in (1, 1, 2))
    assert (first.weights, first.trained_on) == ("random", "nothing: random weights")
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256


def test_a_video_becomes_one_row_for_every_16_frames_that_it_has_in_full(small_weights, tmp_path):
    cache = tmp_path / "cache"
    lengths = {"long": 37, "short": 5}
    for name, frames in lengths.items():
        numbered_clip(tmp_path / f"{name}.mp4", frames)
    rows = "".join(f"{name},{name}.mp4,0.5,train\n" for name in lengths)
    (tmp_path / "manifest.csv").write_text(f"video_id,path,score,split\n{rows}")
    flags = ["--manifest", tmp_path / "manifest.csv", "--cache", cache, "--weights", small_weights]
    arguments = ["extract", "--encoder", "i3d", "--batch-size", "2", "--device", "cpu", *flags]
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["frames_kept"]) == (42, 42)  # no sampler left any out
    opened = Cache.open(cache)
    table = opened.load(list(lengths))
    assert opened.spec.clip_frames == 16
    assert table.lengths.tolist() == [2, 1]
    np.testing.assert_allclose(table.pts_seconds, [0, 16 / 30, 0], atol=1e-6)
    assert not np.array_equal(table.values[0], table.values[1])
