"""What makes features differ: each cause is planted by open_clip and PIL alone, and found."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import made_up
import numpy as np
import open_clip
import pytest
import torch
from clips import read_frames
from commands import ok, run
from extracting import config as extract_config
from extracting import moving_noise
from PIL import Image
from torch import Tensor
from torch.nn import functional
from towers import Constant, normalised, tiny_models

from memfeat.cache import Cache, EncodedVideo, export_features, write_shard
from memfeat.encoders import Tower
from memfeat.errors import EncoderError
from memfeat.extraction import extract
from memfeat.extraction.details import Recipe, ShownFrames, Trial
from memfeat.manifest import VideoRecord, read_manifest, write_manifest
from memfeat.video import write_video

NAME, SIZE = "ViT-tiny-compared", 32
FRAMES = {"v0": 24, "v1": 30, "v2": 27, "v3": 21}
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(*, quick_gelu: bool = True) -> torch.nn.Module:
    """open_clip's own model, with random weights that let details show."""
    torch.manual_seed(3)
    made = open_clip.create_model(f"{NAME}-quickgelu" if quick_gelu else NAME).eval()
    for name, tensor in made.state_dict().items():
        if "c_fc.weight" in name:  # so that it makes a difference which activation follows
            tensor.mul_(4)
        tensor.copy_(tensor.half())
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Clips, a manifest, weights in OpenAI's format, a cache of memfeat's, and the model itself."""
    folder = tmp_path_factory.mktemp("compared")
    records = []
    for seed, (name, frames) in enumerate(FRAMES.items()):
        pictures = [np.ascontiguousarray(p[:, :44]) for p in moving_noise(frames, seed)]
        write_video(folder / f"{name}.mp4", pictures, fps=10)
        records.append(
            VideoRecord(video_id=name, path=folder / f"{name}.mp4", score=None, split="test")
        )
    write_manifest(folder / "m.csv", records)
    with tiny_models(tmp_path_factory.mktemp("models"), {NAME: {}, f"{NAME}-quickgelu": {}}):
        model = build()
        marks = {"input_resolution": SIZE, "context_length": 5, "vocab_size": 9}
        weights = folder / "clip.pt"
        torch.save(model.state_dict() | {k: torch.tensor(n) for k, n in marks.items()}, weights)
        settings = extract_config(folder / "cache", encoder=NAME, weights=str(weights))
        extract(read_manifest(folder / "m.csv"), settings)
        yield folder, model


def squashed(frame: Image.Image, how: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    return frame.resize((SIZE, SIZE), how)


def squashed_by_torch(frame: Image.Image) -> Tensor:
    """To the very bytes that memfeat has: PIL's are a grey level off here and there."""
    pixels = torch.from_numpy(np.array(frame))[None].permute(0, 3, 1, 2)
    return functional.interpolate(pixels, (SIZE, SIZE), mode="bicubic", antialias=True)[0].permute(
        1, 2, 0
    )


def cut_out(frame: Image.Image) -> Image.Image:
    width, height = frame.size
    short = min(width, height)
    frame = frame.resize(
        (int(SIZE * width / short), int(SIZE * height / short)), Image.Resampling.BICUBIC
    )
    left, top = round((frame.width - SIZE) / 2), round((frame.height - SIZE) / 2)
    return frame.crop((left, top, left + SIZE, top + SIZE))


def features(folder, name, model, *, prepare=squashed, colours=CLIP, flip=False, precision=None):
    frames = read_frames(folder / f"{name}.mp4").pixels
    pixels = np.stack([np.asarray(prepare(Image.fromarray(frame))) for frame in frames])
    if flip:
        pixels = pixels[..., ::-1].copy()
    images = normalised(torch.from_numpy(pixels), *colours)
    with torch.no_grad():
        return model(images.to(precision or torch.float32)).float().numpy()


def pooled(model, precision: torch.dtype = torch.float32) -> torch.nn.Module:
    tower = copy.deepcopy(model.visual).to(precision)
    tower.proj = None
    return tower


def planted(cause: str, model, folder: Path, name: str) -> np.ndarray:
    """Return a video's features as somebody may have made them who did one thing otherwise."""
    if cause == "activation":
        return features(folder, name, pooled(build(quick_gelu=False)))
    if cause == "projection":
        return features(folder, name, model.visual)
    if cause == "crop":
        return features(folder, name, pooled(model), prepare=cut_out)
    if cause == "interpolation":
        prepare = lambda frame: squashed(frame, Image.Resampling.BILINEAR)  # noqa: E731
        return features(folder, name, pooled(model), prepare=prepare)
    if cause == "channels":
        return features(folder, name, pooled(model), flip=True)
    if cause == "colours":
        return features(folder, name, pooled(model), colours=IMAGENET)
    if cause == "precision":
        half = pooled(model, torch.bfloat16)
        return features(folder, name, half, prepare=squashed_by_torch, precision=torch.bfloat16)
    whole = features(folder, name, pooled(model))
    return whole[2::3] if cause == "frames" else whole


def compare(folder: Path, other: Path, *more: str) -> dict:
    weights = ("--weights", str(folder / "clip.pt"), "--device", "cpu")
    given = ("--manifest", str(folder / "m.csv"), *weights, *more)
    return json.loads(ok("cache", "compare", folder / "cache", other, *given, "--json").stdout)


@pytest.mark.parametrize(
    ("cause", "detail"),
    [
        ("activation", "gelu in place of quickgelu"),
        ("projection", "what the library computes next"),
        ("crop", "cut out of the middle in place of squashed"),
        ("interpolation", "antialiased bilinear in place of antialiased bicubic"),
        ("channels", "BGR in place of RGB"),
        ("colours", "mean and std of ImageNet"),
        ("frames", "rows 2, 5, 8, ... of ours with rows 0, 1, 2, ... of the other's"),
        ("precision", "bfloat16 in place of float32"),
    ],
)
def test_the_detail_that_was_planted_is_named(made, tmp_path, cause, detail):
    folder, model = made
    for name in FRAMES:
        np.save(tmp_path / f"{name}.npy", planted(cause, model, folder, name))
    found = compare(folder, tmp_path)
    (known,) = found["explanation"]["causes"]
    assert (known["cause"], known["detail"][: len(detail)]) == (cause, detail)
    assert found["explanation"]["explained"]
    assert known["cause"] in found["explanation"]["words"]


def test_two_causes_at_once_are_both_named_and_frames_that_were_left_out_are_seen(made, tmp_path):
    folder, model = made
    for name in FRAMES:
        rows = features(folder, name, model.visual, flip=True)
        np.save(tmp_path / f"{name}.npy", rows[::2])
    explanation = compare(folder, tmp_path)["explanation"]
    causes = [each["cause"] for each in explanation["causes"]]
    assert causes == ["projection", "channels", "frames"]
    assert explanation["explained"]


def test_the_same_features_are_called_the_same_and_nothing_is_encoded(made, tmp_path):
    folder, model = made
    names = {f"00{name}": name for name in FRAMES}
    rows = [planted("nothing", model, folder, name) for name in names.values()]
    np.savez(
        tmp_path / "f.npz",
        video_ids=np.array(list(names.values())),
        features=np.concatenate(rows),
        offsets=np.cumsum([0, *map(len, rows)]),
    )
    found = compare(folder, tmp_path / "f.npz")
    assert found["explanation"]["words"] == "the features are the same, but for rounding"
    assert found["explanation"]["tried"] == []
    assert [each["frames"] for each in found["videos"]] == list(FRAMES.values())
    assert all(each["cosine"] > 1 - 1e-6 for each in found["videos"])


def test_other_weights_are_explained_by_none_of_the_details(made, tmp_path):
    folder, _ = made
    rng = np.random.default_rng(0)
    for name, frames in FRAMES.items():
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(frames, 48)))
    result = ok(
        *("cache", "compare", folder / "cache", tmp_path, "--manifest", folder / "m.csv"),
        *("--weights", folder / "clip.pt", "--frames", 2, "--videos", 1),
    )
    assert "none of these details explains the difference: other weights" in result.stdout
    assert "BGR in place of RGB" in result.stdout


class Failing(torch.nn.Module):
    """A tower in whose way something stands."""

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate it")


def test_a_recipe_that_gives_no_direction_is_far_off_but_one_that_cannot_be_tried_an_error():
    spec = made_up.spec(3, image_size=8)
    recipe = Recipe.of(spec)
    unit = np.eye(1, 3)
    frames = ShownFrames("v", [np.zeros((8, 8, 3), np.uint8)], unit, unit)
    for module, expected in ((Constant(1.0), 1 - 3**-0.5), (Constant(float("inf")), 2.0)):
        tower = Tower("flat", "random", "", "", "none", 3, 8, spec.mean, spec.std, module)
        found = Trial(spec, tower, [frames], "cpu").distance(recipe)
        assert found == pytest.approx(expected, abs=1e-3)
    with pytest.raises(EncoderError, match="there is no memory on cpu"):
        Trial(spec, replace(tower, module=Failing()), [frames], "cpu").distance(recipe)


def test_means_of_a_video_are_told_from_its_first_frame(made, tmp_path):
    folder, _ = made
    cache = Cache.open(folder / "cache")
    for name in FRAMES:
        np.save(tmp_path / f"{name}.npy", cache[name].vectors.astype(np.float32).mean(axis=0))
    explanation = compare(folder, tmp_path)["explanation"]
    assert [each["detail"] for each in explanation["causes"]] == [
        "one row a video, the mean of ours"
    ]
    assert explanation["explained"]


def test_without_a_manifest_it_says_where_they_differ(made, tmp_path):
    """The cache may be the second, ids may be spelt otherwise, and each video has its shift."""
    folder, _ = made
    cache, late = Cache.open(folder / "cache"), {"v0": 3, "v1": -2}
    for name in ("v0", "v1", "v2"):
        rows, shift = cache[name].vectors, late.get(name, 0)
        np.save(tmp_path / f"{name}.mp4.npy", rows[max(shift, 0) : len(rows) + min(shift, 0)])
        if shift < 0:
            np.save(tmp_path / f"{name}.mp4.npy", np.concatenate([rows[:-shift][::-1], rows]))
    np.save(tmp_path / "v9.npy", cache["v0"].vectors)
    result = ok("cache", "compare", tmp_path, folder / "cache", "--json")
    found = json.loads(result.stdout)
    assert {each["video_id"]: each["shift"] for each in found["videos"]} == {
        "v0": 3, "v1": -2, "v2": 0
    }  # fmt: skip
    assert (found["only_ours"], found["only_other"]) == (["v3"], ["v9"])
    assert found["ours"] == str(folder / "cache")
    shown = ok("cache", "compare", tmp_path, folder / "cache")
    assert "only in the other: 1 video: v9" in shown.stdout
    assert "give --manifest to find out why they differ" in shown.stderr


def test_what_two_caches_record_otherwise_is_told(made, tmp_path):
    folder, _ = made
    cache = Cache.open(folder / "cache")
    export_features(folder / "cache", tmp_path / "f.npz")
    ok("cache", "import", tmp_path / "f.npz", "-o", tmp_path / "same")
    same = json.loads(ok("cache", "compare", folder / "cache", tmp_path / "same", "--json").stdout)
    assert (same["settings"], same["distance"] < 1e-6) == ({}, True)
    rows = cache["v0"]
    video = EncodedVideo("v0", rows.vectors, rows.pts_seconds)
    write_shard(tmp_path / "other", cache.spec.model_copy(update={"precision": "float16"}), [video])
    result = ok("cache", "compare", folder / "cache", tmp_path / "other")
    assert "recorded: precision is 'float32' in ours, 'float16' in the other" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "features"], "neither features nor features is a cache"),
        (["cache", "nothing"], "nothing is not there"),
        (["cache", "others"], "have no video in common"),
        (["cache", "broken"], "v0.npy: values that are no finite numbers"),
        (["cache", "features", "--manifest", "m.csv"], "give its path with --weights"),
        (["imported", "features", "--manifest", "m.csv"], "was made elsewhere too"),
        (["cache", "features", "--manifest", "m.csv", "--weights", "other.pt"], "weights of the"),
        (["cache", "features", "--manifest", "n.csv", "--weights", "clip.pt"], "has none of the"),
    ],
)
def test_what_cannot_be_compared_is_refused(made, tmp_path, monkeypatch, arguments, message):
    folder, _ = made
    monkeypatch.chdir(folder)
    for seed, (name, video_id) in enumerate([("features", "v0"), ("others", "x"), ("more", "v0")]):
        (folder / name).mkdir(exist_ok=True)
        rows = np.random.default_rng(seed).normal(size=(9, 48))
        np.save(folder / name / f"{video_id}.npy", rows)
    (folder / "broken").mkdir(exist_ok=True)
    np.save(folder / "broken" / "v0.npy", np.full((9, 48), np.nan))
    ok("cache", "import", "more", "--name", "x", "-o", "imported")
    tensors = torch.load(folder / "clip.pt", weights_only=True)
    tensors["visual.ln_pre.bias"] = tensors["visual.ln_pre.bias"] + 1
    torch.save(tensors, folder / "other.pt")
    record = VideoRecord(video_id="z", path=folder / "v0.mp4", score=None, split="test")
    write_manifest(folder / "n.csv", [record])
    result = run("cache", "compare", *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
