"""Patch tokens beside the class token, against open_clip, timm and NumPy."""

import math
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from commands import ok, run
from numpy.typing import NDArray
from torch import Tensor
from towers import frames, normalised, tiny_models

from memfeat.cache import Cache
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.errors import ConfigError
from memfeat.video import write_video

PLAIN, CLIPA, COCA = "ViT-tiny-plain", "ViT-tiny-clipa", "ViT-tiny-coca"
Array = NDArray[np.float64]


def grid_means(patches: Tensor, rows: int, columns: int) -> Array:
    """Average patches (batch, side * side, dim) over the cells of a grid, which may overlap."""
    side = math.isqrt(patches.shape[1])
    maps = patches.double().numpy().reshape(len(patches), side, side, -1)
    cells = []
    for row in range(rows):
        for column in range(columns):
            top, bottom = row * side // rows, -(-(row + 1) * side // rows)
            left, right = column * side // columns, -(-(column + 1) * side // columns)
            cells.append(maps[:, top:bottom, left:right].mean(axis=(1, 2)))
    return np.stack(cells, axis=1)


def expected_rows(feature: Tensor, patches: Tensor, rows: int, columns: int) -> Array:
    """Return unit vectors end to end: the feature, then the grid's cells row by row."""
    vectors = np.concatenate(
        [feature.double().numpy()[:, None], grid_means(patches, rows, columns)], axis=1
    )
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return vectors.reshape(len(vectors), -1)


def assert_rows(encoder: FrameEncoder, pixels: Tensor, expected: Array) -> None:
    rows = encoder.encode(pixels)
    assert rows.shape == expected.shape == (len(pixels), encoder.width)
    np.testing.assert_allclose(rows.numpy(), expected, atol=2e-6, rtol=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Small models of open_clip's kinds: CLIP's own, CLIPA's, and CoCa's attention pool."""
    clipa = {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}
    coca = {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    visions = {PLAIN: {"image_size": 112}, CLIPA: clipa, COCA: coca}
    visions = {name: {"image_size": 48} | changes for name, changes in visions.items()}
    with tiny_models(tmp_path_factory.mktemp("models"), visions):
        yield


def open_clip_visual(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    return open_clip.CLIP(**open_clip.get_model_config(name)).visual.eval()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (7, 7)])
@torch.no_grad()
def test_clips_patch_tokens_are_after_the_last_layer_norm_and_before_the_projection(
    rows, columns, tiny
):
    encoder = create_encoder(PLAIN, "random", seed=3, tokens=f"cls+{rows}x{columns}")
    visual = open_clip_visual(PLAIN, seed=3)
    caught: list[Tensor] = []
    visual.ln_post.register_forward_hook(lambda *call: caught.append(call[2]))
    pixels = frames(2, 112)
    visual(normalised(pixels, encoder.mean, encoder.std))
    assert caught[0].shape == (2, 1 + 7 * 7, encoder.dim)
    assert_rows(encoder, pixels, expected_rows(caught[0][:, 0], caught[0][:, 1:], rows, columns))


@torch.no_grad()
def test_a_tower_that_averages_its_patches_gives_the_average_and_normalised_patches(tiny):
    encoder = create_encoder(CLIPA, "random", seed=3, tokens="cls+2x2")
    visual = open_clip_visual(CLIPA, seed=3)
    caught: list[Tensor] = []
    visual.transformer.register_forward_hook(lambda *call: caught.append(call[2]))
    pixels = frames(3, 48)
    visual(normalised(pixels, encoder.mean, encoder.std))
    patches = caught[0][:, 1:]
    feature = visual.ln_post(patches.mean(dim=1))
    assert_rows(encoder, pixels, expected_rows(feature, visual.ln_post(patches), 2, 2))


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("test_vit", 1),
        ("deit_tiny_distilled_patch16_224", 2),
        ("test_vit4", None),  # averages its patches, and normalises after that
        ("eva02_tiny_patch14_224", None),
    ],
)
@torch.no_grad()
def test_timms_patch_tokens_are_those_of_its_own_sequence(name, prefix):
    encoder = create_encoder(f"timm/{name}", "random", seed=3, tokens="cls+2x3")
    torch.manual_seed(3)
    model = timm.create_model(name).eval()
    pixels = frames(2, encoder.image_size)
    sequence = model.forward_features(normalised(pixels, encoder.mean, encoder.std))
    feature = model.forward_head(sequence, pre_logits=True)
    patches = sequence[:, prefix:] if prefix else model.fc_norm(sequence[:, 1:])
    assert_rows(encoder, pixels, expected_rows(feature, patches, 2, 3))


@torch.no_grad()
def test_open_clips_towers_out_of_timm_have_patch_tokens_too():
    encoder = create_encoder("PE-Core-T-16-384", "random", seed=3, tokens="cls+2x2")
    torch.manual_seed(3)
    visual = open_clip.create_model("PE-Core-T-16-384").visual.eval()
    pixels = frames(1, 384)
    sequence = visual.trunk.forward_features(normalised(pixels, encoder.mean, encoder.std))
    feature = visual.trunk.forward_head(sequence, pre_logits=True)
    patches = sequence[:, visual.trunk.num_prefix_tokens :]
    assert patches.shape == (1, 24 * 24, encoder.dim)
    assert_rows(encoder, pixels, expected_rows(feature, patches, 2, 2))


@pytest.mark.parametrize("name", [PLAIN, CLIPA, "timm/test_vit", "timm/test_vit4"])
def test_the_first_vector_is_the_frames_feature_to_the_bit(name, tiny):
    alone = create_encoder(name, "random", seed=5)
    more = create_encoder(name, "random", seed=5, tokens="cls+2x2")
    assert (more.tokens, more.width) == ("cls+2x2", 5 * alone.dim)
    assert more.weights_sha256 == alone.weights_sha256
    pixels = frames(3, alone.image_size)
    rows = more.encode(pixels)
    assert torch.equal(rows[:, : alone.dim], alone.encode(pixels))
    lengths = rows.view(3, 5, alone.dim).double().norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones(3, 5, dtype=torch.float64))


def test_all_vectors_of_a_frame_are_the_same_to_the_bit_wherever_it_stands():
    encoder = create_encoder("ViT-S-32-alt", "random", tokens="cls+3x3")
    batch = frames(4, 224)
    rows = encoder.encode(batch)
    assert torch.equal(encoder.encode(batch.flip(0)).flip(0), rows)


def test_the_papers_encoder_has_24_x_24_patches_and_no_more():
    with pytest.raises(ConfigError, match=r"24 x 24 patches.*cls\+25x2.*at most cls\+24x24"):
        create_encoder("ViT-L-14-336", "random", tokens="cls+25x2")
    with pytest.raises(ConfigError, match=r"10 x 10 patches.*cls\+2x11"):
        create_encoder("timm/test_vit", "random", tokens="cls+2x11")


@pytest.mark.parametrize(
    "name", ["RN50", "convnext_tiny", COCA, "efficientnet-lite0", "timm/resnet18"]
)
def test_towers_without_patch_tokens_are_refused_before_weights_are_loaded(name, tiny):
    with pytest.raises(ConfigError, match=rf"{name} gives one vector.*choose a Vision Transformer"):
        create_encoder(name, "random", tokens="cls+2x2")


def extract(folder, tokens):
    settings = [
        "--manifest", folder / "m.csv", "--cache", folder / tokens, "--encoder", "timm/test_vit",
        "--weights", "random", "--batch-size", "2", "--device", "cpu", "--tokens", tokens,
    ]  # fmt: skip
    return run("extract", *settings)


def test_patch_tokens_are_cached_from_the_command_line(tmp_path):
    generator = np.random.default_rng(0)
    write_video(tmp_path / "clip.mp4", generator.integers(0, 256, (3, 32, 48, 3), np.uint8), fps=5)
    (tmp_path / "m.csv").write_text("video_id,path,score,split\nclip,clip.mp4,0.5,train\n")
    tables = {}
    for tokens, vectors in (("cls", 1), ("cls+2x2", 5)):
        result = extract(tmp_path, tokens)
        assert result.exit_code == 0, result.output
        cache = Cache.open(tmp_path / tokens)
        assert (cache.spec.dim, cache.spec.tokens, cache.spec.num_tokens) == (64, tokens, vectors)
        tables[tokens] = cache.load(["clip"]).values
        assert tables[tokens].shape == (3, vectors * 64)
    assert np.array_equal(tables["cls+2x2"][:, :64], tables["cls"])
    info = ok("cache", "info", tmp_path / "cls+2x2")
    assert any(line.split() == ["tokens", "cls+2x2"] for line in info.output.splitlines())


@pytest.mark.parametrize("tokens", ["cls+2", "cls+0x2", "2x2", "cls+2x2x2", "patches", "cls\n"])
def test_a_grid_that_is_not_written_as_one_is_a_usage_error(tokens, tmp_path):
    result = extract(tmp_path, tokens)
    assert result.exit_code == 2
    assert f"tokens = {tokens!r} is not allowed: write cls, or a grid" in result.output
    assert "like cls+2x2" in result.output
