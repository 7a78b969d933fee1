"""Scores of videos with texts, by runs that were trained on both."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from predicting import ENCODER, QUICK, frames
from towers import tiny_text_model

import memfeat
from memfeat.cli import main
from memfeat.errors import ConfigError
from memfeat.models import Padded
from memfeat.runs import Run
from memfeat.video import write_video

SPLITS = ["train"] * 6 + ["dev"] * 4 + ["test"] * 2
SILENT = {3, 7, 11}
TEXT = {"encoder": "text/ViT-tiny-text", "weights": "random", "text": ("caption",), "device": "cpu"}
SMALL = {"aggregators": {"bigru": {"hidden": 3}}}


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory):
    with tiny_text_model(tmp_path_factory.mktemp("models")):
        yield


@pytest.fixture(scope="module")
def study(model, tmp_path_factory) -> Path:
    """Clips, their captions where they have any, the caches of both, and runs."""
    folder = tmp_path_factory.mktemp("study")
    with (folder / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "path", "score", "split", "caption"])
        for index, split in enumerate(SPLITS):
            write_video(folder / f"v{index}.mp4", frames(index, 3 + index % 3), fps=10)
            caption = "" if index in SILENT else f"clip {index} | seen {index % 5} times"
            writer.writerow([f"v{index}", f"v{index}.mp4", 0.3 + 0.015 * index, split, caption])
    data = {"manifest": folder / "m.csv"}
    memfeat.extract(**data, **ENCODER, cache=folder / "frames")
    memfeat.extract(**data, **TEXT, cache=folder / "texts")
    both = {"cache": (folder / "frames", folder / "texts"), "aggregator": ("bigru", "avg")}
    memfeat.train(**data, **QUICK, **SMALL, **both, missing="zero", run=folder / "zero")
    turned = {name: values[::-1] for name, values in both.items()}
    memfeat.train(**data, **QUICK, **SMALL, **turned, run=folder / "drop")
    alone = {"cache": folder / "texts", "aggregator": "avg"}
    memfeat.train(**data, **QUICK, **alone, run=folder / "texts-alone")
    frames_alone = {"cache": folder / "frames", "aggregator": "avg"}
    memfeat.train(**data, **QUICK, **frames_alone, run=folder / "frames-alone")
    return folder


def table(study):
    return f"{study / 'm.csv'}:caption"


def written(study, name):
    found = Run.load(study / name).predictions()
    return dict(zip(found.video_id, found.prediction.tolist(), strict=True))


def test_scores_are_those_of_training_with_texts_and_with_zeros_for_them(study):
    predictor = memfeat.Predictor(study / "zero", device="cpu")
    numbers = [0, 3, 5, 11]
    clips = [study / f"v{number}.mp4" for number in numbers]
    found = predictor.predict(clips, text=table(study))
    expected = written(study, "zero")
    for number, each in zip(numbers, found, strict=True):
        assert each.score == pytest.approx(expected[f"v{number}"], abs=1e-6)
        assert ("no_text" in each.cautions) == (number in SILENT)
    cached = {e.video_id: e for e in predictor.predict_cache(study / "texts", study / "frames")}
    assert [cached[f"v{number}"].score for number in numbers] == [each.score for each in found]
    assert sorted(name for name, each in cached.items() if "no_text" in each.cautions) == [
        *("v11", "v3", "v7")
    ]


def test_a_run_that_needs_texts_says_which_are_missing(study):
    predictor = memfeat.Predictor(study / "drop", device="cpu")
    clips = [study / "v3.mp4", study / "v4.mp4"]
    silent, spoken = predictor.predict(clips, text=[table(study)])
    assert (silent.status, silent.reason) == ("failed", "no_text")
    assert "trained on texts, too (text/ViT-tiny-text); give it with --text" in silent.message
    assert spoken.score == pytest.approx(written(study, "drop")["v4"], abs=1e-6)
    with pytest.raises(ConfigError, match=r"on texts, too .*; give the videos' with --text"):
        predictor.predict(clips)
    failed = {
        e.video_id for e in predictor.predict_cache(study / "frames", study / "texts") if e.reason
    }
    assert failed == {"v3", "v7", "v11"}


def test_one_video_is_given_its_text_as_it_is_or_as_a_file(study, tmp_path):
    predictor = memfeat.Predictor(study / "drop", device="cpu")
    clip = study / "v4.mp4"
    expected = predictor.predict(clip, text=table(study)).score
    (tmp_path / "b.txt").write_text("seen 4 times")
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nclip 4\n")
    assert predictor.predict(clip, text=["clip 4", "seen 4 times"]).score == expected
    files = [str(tmp_path / name) for name in ("a.srt", "b.txt")]
    assert predictor.predict(clip, text=files).score == expected
    assert predictor.predict(clip, text="something else").score != expected
    with pytest.raises(ConfigError, match="is the text of one video, and there are 2"):
        predictor.predict([clip, clip], text="clip 4")
    with pytest.raises(ConfigError, match="no text is taken here"):
        memfeat.Predictor(study / "frames-alone", device="cpu").predict(clip, text="clip 4")


def test_effects_are_of_the_frames_alone_whichever_cache_came_first(study):
    predictor = memfeat.Predictor(study / "drop", device="cpu")
    found = predictor.predict(study / "v4.mp4", text=table(study))
    assert found.weights.shape == found.pts_seconds.shape == (4,)
    run = Run.load(study / "drop")
    (regressor,) = run.regressors()
    rows, words = (
        torch.from_numpy(memfeat.Cache.open(study / name)["v4"].vectors.astype(np.float32))
        for name in ("frames", "texts")
    )

    @torch.inference_mode()
    def score(rows):
        streams = [Padded(each[None], torch.tensor([len(each)])) for each in (words, rows)]
        return float(regressor(*streams).scores[0])

    without = [score(torch.cat([rows[:at], rows[at + 1 :]])) for at in range(len(rows))]
    np.testing.assert_allclose(found.effects, score(rows) - np.array(without), atol=1e-6)


def test_texts_alone_are_scored_without_the_video(study):
    predictor = memfeat.Predictor(study / "texts-alone", device="cpu")
    found = predictor.predict("no-such-file.mp4", text=["clip 4", "seen 4 times"])
    assert found.score == pytest.approx(written(study, "texts-alone")["v4"], abs=1e-6)
    assert "length" not in found.cautions


def test_the_commands_take_texts(study, monkeypatch):
    monkeypatch.chdir(study)
    start = ["--device", "cpu", "--json"]
    (one,) = json.loads(run("predict", "drop", "v4.mp4", "--text", "clip 4", *start).stdout)
    assert 0 < one["score"] < 1
    assert [line.split()[1] for line in one["sources"][:2]] == [
        *("text/ViT-tiny-text", "efficientnet-lite0")
    ]
    refused = run("predict", "drop", "v4.mp4", exit_code=2)
    assert "was trained on texts, too (text/ViT-tiny-text)" in refused.stderr
    refused = run("predict", "drop", "--cache", "frames", "--text", "a", exit_code=2)
    assert "leave --text out" in refused.stderr
    several = run("predict", "zero", "v3.mp4", "v4.mp4", "--text", "m.csv:caption")
    assert "no_text: it has no text, which the run takes beside the frames" in several.stderr
    clips = ["v3.mp4", "v4.mp4", "v5.mp4"]
    ranking = run("compare", "drop", *clips, "--text", "m.csv:caption", exit_code=3)
    assert "failed: v3.mp4 has no text" in ranking.stderr


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == exit_code, result.output
    return result
