"""Ready scorers, against their authors' own way of rating the same decoded frames."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from clips import numbered_clip
from commands import ok, told
from PIL import Image
from predicting import frames
from scipy.stats import spearmanr
from torchvision import transforms

import memfeat
from memfeat.cli import main
from memfeat.config import READY
from memfeat.encoders import create_encoder, vector_shape
from memfeat.errors import ConfigError, EncoderError, UnknownNameError
from memfeat.prediction import RATERS
from memfeat.prediction.raters import RatingPredictor, VitMem
from memfeat.video import VideoReader, write_video

HAS_RESMEM = importlib.util.find_spec("resmem") is not None
FRAMES = 3


@pytest.fixture(autouse=True)
def small_batches(monkeypatch) -> None:
    monkeypatch.setattr("memfeat.prediction.raters.BATCH", 2)  # so that the last one is filled up


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return numbered_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", FRAMES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """ViTMem's file, in its format, with random weights."""
    torch.manual_seed(0)
    network = timm.create_model("vit_base_patch16_224_miil", pretrained=False, num_classes=1)
    torch.nn.init.normal_(network.head.weight, std=0.02)
    path = tmp_path_factory.mktemp("weights") / "vitmem.pth"
    torch.save({f"vit.{name}": value for name, value in network.state_dict().items()}, path)
    return path


def images(clip: Path) -> list[Image.Image]:
    with VideoReader(clip) as reader:
        return [Image.fromarray(frame.pixels) for frame in reader]


def test_the_commands_know_every_rater():
    assert set(READY) == set(RATERS)


@pytest.mark.extras
def test_vitmem_rates_frames_as_its_authors_transforms_and_network_do(clip, weights):
    predictor = memfeat.load("vitmem", device="cpu", weights=weights)
    found = predictor.predict(clip)
    steps = [
        transforms.Resize((256, 256)),
        transforms.CenterCrop((224, 224)),
        transforms.ToTensor(),
    ]
    network = timm.create_model("vit_base_patch16_224_miil", pretrained=False, num_classes=1)
    state = torch.load(weights)
    network.load_state_dict({name.removeprefix("vit."): value for name, value in state.items()})
    with torch.inference_mode():
        pixels = torch.stack([transforms.Compose(steps)(image) for image in images(clip)])
        expected = torch.sigmoid(network.eval()(pixels)).flatten().double().numpy()
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found.ratings, expected, atol=1e-5)
    assert found.score == pytest.approx(expected.mean(), abs=1e-5)
    assert (found.num_frames, len(found.pts_seconds)) == (FRAMES, FRAMES)
    assert found.interval is None
    without = [np.delete(found.ratings, at).mean() for at in range(FRAMES)]
    np.testing.assert_allclose(found.effects, found.score - np.array(without), atol=1e-12)


@pytest.mark.extras
def test_several_videos_are_rated_in_order_and_as_each_alone(clip, weights, tmp_path):
    short = numbered_clip(tmp_path / "short.mp4", 2)
    (tmp_path / "broken.mp4").write_text("no video")
    predictor = RatingPredictor("vitmem", device="cpu", weights=weights)
    first, broken, last = predictor.predict([clip, tmp_path / "broken.mp4", str(short)])
    assert (first.name, broken.status, broken.reason, last.num_frames) == (
        str(clip),
        "failed",
        "unreadable",
        2,
    )
    np.testing.assert_array_equal(predictor.predict(short).ratings, last.ratings)
    ranking = predictor.compare([clip, short]).ranking
    assert [each.score for each in ranking] == sorted([first.score, last.score], reverse=True)


@pytest.mark.extras
def test_predict_says_that_images_are_rated_and_draws_each_frames_rating(clip, weights, tmp_path):
    command = ["predict", "vitmem", str(clip), "--weights", str(weights), "--device", "cpu"]
    picture = tmp_path / "t.svg"
    shown = CliRunner().invoke(main, [*command, "--timeline", str(picture)])
    assert shown.exit_code == 0, shown.output
    assert "by people's memory for images" in shown.stderr
    assert "rating" in picture.read_text()
    (told,) = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert len(told["ratings"]) == FRAMES
    assert "by people's memory for images" in told["cautions"]["images"]
    table = tmp_path / "scores.csv"
    assert CliRunner().invoke(main, [*command, "-o", str(table)]).exit_code == 0
    assert ",images,ok," in table.read_text()


GRID = """
[extract]
weights = "random"
batch_size = 8
[train]
max_epochs = 1
bootstrap = 20
device = "cpu"
[ablation]
title = "G"
run = "{0}/grid"
cache_root = "{0}"
seeds = 0
scorers = ["vitmem"]
rows = [{{ cache = "efficientnet-lite0", aggregator = "avg", head = "linear" }}]
ensembles = [{{ name = "both", members = ["avg+linear", "vitmem"] }}]
"""


@pytest.mark.extras
def test_a_grid_has_a_ready_scorer_as_a_row(weights, tmp_path, monkeypatch):
    truth = [0.5, 0.6, 0.3, 0.9, 0.4]
    lines = ["video_id,path,score,split,dataset"]
    for index, score in enumerate(truth):
        write_video(tmp_path / f"v{index}.mp4", frames(index, 1), fps=10)
        split = "train" if index < 2 else "dev"
        lines.append(f"v{index},v{index}.mp4,{score},{split},made up")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "grid.toml").write_text(GRID.format(tmp_path))
    command = ["ablation", tmp_path / "grid.toml", "--manifest", tmp_path / "m.csv"]
    table = tmp_path / "grid/scores/vitmem.csv"
    (lacking,) = [each for each in told(*command, code=1)["failed"] if each["name"] == "vitmem"]
    made = f"memfeat predict vitmem {tmp_path}/m.csv -o {table}"
    assert lacking["error"] == f"there is no {table}; make it with `{made}`"
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / VitMem.file).symlink_to(weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    result = told(*command, "--extract")
    assert result["failed"] == []
    rows = {row["name"]: row for row in result["rows"]}
    with table.open(newline="") as file:
        own = [float(row["score"]) for row in csv.DictReader(file)][2:]
    assert len(set(own)) == 3
    assert rows["vitmem"]["kind"] == "scorer"
    assert rows["vitmem"]["srocc"] == pytest.approx(spearmanr(truth[2:], own).statistic)
    assert rows["vitmem"]["mse"] == pytest.approx(np.mean((np.array(truth[2:]) - own) ** 2))
    assert rows["both"]["srocc"] is not None
    assert any("vitmem: rates each frame as an image" in note for note in result["notes"])
    ok("report", tmp_path / "grid")
    assert "scorer" in (tmp_path / "grid/report.html").read_text()
    header, *rest = table.read_text().splitlines(keepends=True)
    table.write_text(header + "".join(rest[:-1]))
    (cut,) = [each for each in told(*command, code=1)["failed"] if each["name"] == "vitmem"]
    assert f"lacks 1 video, 'v4' first; complete it with `{made}`" in cut["error"]


def test_weights_that_are_not_there_or_not_vitmems_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(EncoderError, match=r"there is no .*f580d24a\.pth; get .* --weights"):
        memfeat.load("vitmem", device="cpu")
    torch.save({"vit.head.weight": torch.zeros(1, 768)}, tmp_path / "other.pth")
    with pytest.raises(EncoderError, match=r"other\.pth does not hold ViTMem's weights"):
        memfeat.load("vitmem", device="cpu", weights=tmp_path / "other.pth")


def test_without_its_package_resmem_says_what_to_install_and_under_which_terms(monkeypatch):
    monkeypatch.setitem(sys.modules, "resmem", None)
    with pytest.raises(ConfigError, match=r"pip install 'memfeat\[resmem\]' .*non-commercial"):
        memfeat.load("resmem", device="cpu")


def test_resmem_is_an_encoder_whose_shape_is_known_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "resmem", None)
    assert vector_shape("resmem").width == 256
    with pytest.raises(ConfigError, match=r"pip install 'memfeat\[resmem\]' .*non-commercial"):
        create_encoder("resmem")
    with pytest.raises(UnknownNameError, match="has no weights 'random'"):
        create_encoder("resmem", "random")


@pytest.mark.extras
@pytest.mark.skipif(not HAS_RESMEM, reason="needs the package resmem: `make test-extras`")
@pytest.mark.filterwarnings("ignore")
def test_resmem_encodes_frames_as_its_last_layer_is_given_them(tmp_path):
    from resmem import ResMem, transformer  # noqa: PLC0415

    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    write_video(tmp_path / "v.mp4", pixels.repeat(32, axis=1).repeat(32, axis=2), fps=10)
    vectors, _ = memfeat.embed(tmp_path / "v.mp4", encoder="resmem", device="cpu", batch_size=2)
    network, given = ResMem(pretrained=True).eval(), []
    network.fc12.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    with torch.inference_mode():
        for image in images(tmp_path / "v.mp4"):
            network(transformer(image).view(-1, 3, 227, 227))
    expected = torch.nn.functional.normalize(torch.cat(given)).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(vectors.astype(np.float32), expected, atol=5e-4)  # float16's step


@pytest.mark.extras
@pytest.mark.skipif(not HAS_RESMEM, reason="needs the package resmem: `make test-extras`")
@pytest.mark.filterwarnings("ignore")
def test_resmem_rates_frames_as_its_package_does(clip):
    from resmem import ResMem, transformer  # noqa: PLC0415  it is optional

    found = memfeat.load("resmem", device="cpu").predict(clip)
    network = ResMem(pretrained=True).eval()
    with torch.inference_mode():
        expected = [network(transformer(i).view(-1, 3, 227, 227)).item() for i in images(clip)]
    np.testing.assert_allclose(found.ratings, expected, atol=1e-5)
    assert found.score == pytest.approx(np.mean(expected), abs=1e-5)
    assert "non-commercial purposes only" in found.cautions["non_commercial"]
