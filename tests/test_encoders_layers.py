"""Features of an intermediate block, against open_clip's and timm's own, and what is recorded."""

import json

import open_clip
import pytest
import timm
import torch
from commands import ok, run
from extracting import moving_noise
from torch import Tensor
from torch.nn import functional
from towers import frames, normalised, tiny_models

from memfeat.cache import Cache
from memfeat.encoders import create_encoder
from memfeat.errors import ConfigError
from memfeat.video import write_video

TINY, TIMM = "ViT-tiny-layers", "timm/test_vit"
LAYERS = {TINY: 3, TIMM: len(timm.create_model("test_vit").blocks)}


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    with tiny_models(tmp_path_factory.mktemp("models"), {TINY: {"layers": LAYERS[TINY]}}):
        yield


@torch.no_grad()
def open_clips(pixels: Tensor, layer: int, mean, std) -> Tensor:
    """The class token as it leaves a block, through the last norm, of the whole model."""
    torch.manual_seed(3)
    visual = open_clip.CLIP(**open_clip.get_model_config(TINY)).visual.eval()
    caught: list[Tensor] = []
    visual.transformer.resblocks[layer].register_forward_hook(lambda *call: caught.append(call[2]))
    visual(normalised(pixels, mean, std))
    token = caught[0][:, 0] if caught[0].shape[0] == len(pixels) else caught[0][0]
    return functional.normalize(visual.ln_post(token), dim=1)


@torch.no_grad()
def timms(pixels: Tensor, layer: int, mean, std) -> Tensor:
    torch.manual_seed(3)
    model = timm.create_model("test_vit").eval()
    ((_, prefix),) = model.forward_intermediates(
        normalised(pixels, mean, std),
        indices=[layer],
        return_prefix_tokens=True,
        norm=True,
        intermediates_only=True,
        output_fmt="NLC",
    )
    return functional.normalize(prefix[:, 0], dim=1)


@pytest.mark.parametrize(("name", "expected"), [(TINY, open_clips), (TIMM, timms)])
def test_the_model_ends_after_the_block_with_its_last_norm(name, expected):
    found = []
    for layer in range(LAYERS[name]):
        encoder = create_encoder(name, "random", seed=3, layer=layer)
        last = layer == LAYERS[name] - 1
        assert encoder.layer == (-1 if last else layer)
        pixels = frames(3, encoder.image_size)
        vectors = encoder.encode(pixels)
        own = expected(pixels, layer, encoder.mean, encoder.std)
        torch.testing.assert_close(vectors, own, atol=2e-6, rtol=0)
        found.append(vectors)
    assert (found[0] - found[-1]).norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("name", [TINY, TIMM])
def test_minus_one_is_the_default_and_others_count_backwards(name):
    default = create_encoder(name, "random", seed=3)
    last = create_encoder(name, "random", seed=3, layer=LAYERS[name] - 1)
    pixels = frames(2, default.image_size)
    assert torch.equal(default.encode(pixels), last.encode(pixels))
    assert default.spec(batch_size=4) == last.spec(batch_size=4)
    backwards = create_encoder(name, "random", seed=3, layer=-2)
    forwards = create_encoder(name, "random", seed=3, layer=LAYERS[name] - 2)
    assert torch.equal(backwards.encode(pixels), forwards.encode(pixels))
    assert backwards.weights_sha256 == default.weights_sha256
    assert backwards.spec(batch_size=4) == forwards.spec(batch_size=4)
    with_patches = create_encoder(name, "random", seed=3, layer=0, tokens="cls+1x1")
    first = create_encoder(name, "random", seed=3, layer=0).encode(pixels)
    torch.testing.assert_close(with_patches.encode(pixels)[:, : first.shape[1]], first)


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        (TINY, 3, r"has 3 blocks, so --layer 3 is not there; give 0 to 2, or -1 to -3"),
        (TINY, -4, "has 3 blocks"),
        ("timm/resnet10t", 1, "is no Vision Transformer, so --layer has no blocks"),
    ],
)
def test_a_block_that_is_not_there_is_refused(name, layer, message):
    with pytest.raises(ConfigError, match=message):
        create_encoder(name, "random", layer=layer)


def test_a_cache_records_the_block_and_goes_on_with_no_other(tmp_path):
    write_video(tmp_path / "v.mp4", moving_noise(4, 0), fps=10)
    (tmp_path / "m.csv").write_text(f"video_id,path,score,split\nv,{tmp_path / 'v.mp4'},,test\n")
    command = ("extract", "--manifest", tmp_path / "m.csv", "--encoder", TIMM, "--device", "cpu")
    command = (*command, "--weights", "random", "--cache", tmp_path / "c")
    ok(*command, "--layer", 2)
    spec = Cache.open(tmp_path / "c").spec
    assert spec.layer == 2
    assert "64-d, of block 2" in spec.describe()
    assert "--layer 2" in spec.flags
    assert json.loads(ok("cache", "info", tmp_path / "c", "--json").stdout)["spec"]["layer"] == 2
    refused = run(*command)
    assert refused.exit_code == 1
    assert "layer is -1, not 2" in refused.stderr
    ok("extract", *command[1:-1], tmp_path / "default")
    written = json.loads(ok("cache", "info", tmp_path / "default", "--json").stdout)["spec"]
    assert written.keys() & {"layer", "fps"} == set()  # as versions before wrote it
