import json
import re
import shutil

import numpy as np
import pytest
import torch
from clips import read_frames, write_clip

from memfeat.cache import Cache
from memfeat.config import ExtractConfig, TrainConfig
from memfeat.errors import RunError, VideoError
from memfeat.extraction import extract
from memfeat.manifest import VideoRecord, read_manifest, write_manifest
from memfeat.prediction import Predictor, frames_at
from memfeat.prediction.explaining import timelines_of
from memfeat.prediction.timeline import timeline_svg
from memfeat.runs import Run
from memfeat.training import train
from memfeat.video import write_video

LENGTHS = [7, 5, 6, 8, 5, 6, 1]
SPLITS = ["train", "train", "train", "train", "dev", "dev", "test"]
SMALL = {"bigru": {"hidden": 3, "layers": 2}}
ENCODER = {
    "encoder": "efficientnet-lite0",
    "weights": "random",
    "batch_size": 4,
    "device": "cpu",
}


def clip(length, seed):
    """Frames of coloured noise that changes from one to the next."""
    generator = np.random.default_rng(seed)
    tiles = generator.integers(0, 256, (length, 6, 8, 3), dtype=np.uint8)
    return tiles.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A manifest of rendered clips, encoded with random weights, and two runs trained on them."""
    folder = tmp_path_factory.mktemp("prediction")
    records = []
    for number, (length, split) in enumerate(zip(LENGTHS, SPLITS, strict=True)):
        path = folder / f"clip-{number}.mp4"
        write_video(path, clip(length, number), fps=10)
        named = {"video_id": path.stem, "path": path, "dataset": "made up"}
        records.append(VideoRecord(**named, score=0.4 + 0.08 * number, split=split))
    write_manifest(folder / "clips.csv", records)
    manifest = read_manifest(folder / "clips.csv")
    tables = {}
    caches = {"cache": {}, "early": {"max_frames": 3}, "third": {"sampler": "stride:3"}}
    for name, changes in caches.items():
        cache = folder / name
        extract(manifest, ExtractConfig(**ENCODER, manifest=manifest.path, cache=cache, **changes))
        tables[name] = Cache.open(cache).load()
    settings = {"aggregators": SMALL, "max_epochs": 2, "learning_rate": 0.01, "bootstrap": 0}
    for name, used, changes in [
        ("bigru", ["cache"], {"aggregator": "bigru", "head": "mlp", "seeds": (0, 1, 2)}),
        ("avg", ["cache"], {"aggregator": "avg", "head": "linear"}),
        ("third-run", ["third"], {"aggregator": "bigru"}),
        ("both", ["cache", "early"], {"aggregator": ("bigru", "avg")}),
    ]:
        config = TrainConfig(
            manifest=manifest.path,
            cache=tuple(folder / each for each in used),
            run=folder / name,
            device="cpu",
            **settings,
            **changes,
        )
        train([tables[each] for each in used], manifest.records, config)
    return folder


@pytest.fixture(scope="module")
def bigru(runs):
    return Predictor(runs / "bigru", device="cpu")


@pytest.fixture(scope="module")
def avg(runs):
    return Predictor(runs / "avg", device="cpu")


def embeddings(runs, name):
    table = Cache.open(runs / "cache").load()
    return table.frames(table.video_ids.index(name)).astype(np.float32)


def seed_scores(run, frames):
    """Score one clip (time, dim) alone with every seed's model."""
    batch = torch.from_numpy(np.ascontiguousarray(frames))[None]
    with torch.no_grad():
        return [model((batch, torch.tensor([len(frames)]))) for model in run.regressors()]


def tampered(runs, tmp_path, **changes):
    """A copy of the avg run whose cache spec tells another story."""
    folder = tmp_path / "run"
    shutil.copytree(runs / "avg", folder)
    spec = json.loads((folder / "cache_spec.json").read_text())
    (folder / "cache_spec.json").write_text(json.dumps(spec | changes))
    return folder


def test_a_clip_gets_the_score_that_the_run_gave_it_from_the_cache(runs, bigru):
    columns = Run.load(runs / "bigru").predictions()
    for name, expected in zip(columns.video_id, columns.prediction, strict=True):
        assert bigru.predict(runs / f"{name}.mp4").score == pytest.approx(expected, abs=1e-6)


def test_score_and_spread_are_over_seeds_and_one_seed_has_no_spread(runs, bigru, avg):
    path = runs / "clip-0.mp4"
    found = bigru.predict(path)
    scores = [
        float(each.scores[0]) for each in seed_scores(bigru.runs[0], embeddings(runs, path.stem))
    ]
    assert len(scores) == 3
    assert found.score == pytest.approx(np.mean(scores), abs=1e-6)
    assert found.score_std == pytest.approx(np.std(scores, ddof=1), abs=1e-6)
    assert avg.predict(path).score_std is None


def test_frames_times_and_duration_are_the_clips(runs, bigru):
    found = bigru.predict(runs / "clip-3.mp4")
    assert found.num_frames == 8
    assert found.pts_seconds == pytest.approx(np.arange(8) / 10)
    assert found.duration_seconds == pytest.approx(0.8)
    assert (found.status, found.reason, found.message) == ("ok", "", "")


def test_weights_are_the_regressors_mean_over_seeds_and_none_without_attention(runs, bigru, avg):
    path = runs / "clip-0.mp4"
    each = seed_scores(bigru.runs[0], embeddings(runs, path.stem))
    expected = np.mean([result.weights[0][0].numpy() for result in each], axis=0)
    assert np.ptp(expected) > 0
    assert bigru.predict(path).weights == pytest.approx(expected, abs=1e-6)
    assert bigru.predict(path).timeline.weights == pytest.approx(expected, abs=1e-6)
    assert avg.predict(path).weights is None
    assert avg.predict(path).timeline.weights is None


def test_effect_equals_leaving_out_each_frame_one_by_one(runs, bigru):
    frames = embeddings(runs, "clip-3")

    def score(frames):
        return np.mean([float(each.scores[0]) for each in seed_scores(bigru.runs[0], frames)])

    expected = [score(frames) - score(np.delete(frames, t, axis=0)) for t in range(len(frames))]
    found = bigru.predict(runs / "clip-3.mp4").timeline
    assert np.abs(expected).max() > 1e-5
    assert found.effect == pytest.approx(expected, abs=1e-6)
    assert found.score == pytest.approx(score(frames), abs=1e-6)
    assert found.window == 1


def test_a_pages_timelines_are_drawn_from_the_cache_as_those_of_the_videos(
    runs, bigru, monkeypatch
):
    (run,) = bigru.runs
    wanted = ["clip-3", "clip-0", "nowhere", "clip-1"]
    drawn, problem = timelines_of(run, wanted, "page")
    assert problem == ""
    assert drawn.keys() == {"clip-0", "clip-1", "clip-3"}
    for name, svg in drawn.items():
        own = bigru.predict(runs / f"{name}.mp4").timeline
        assert svg == timeline_svg(own, f"page {name}")
    monkeypatch.setattr("memfeat.prediction.explaining.MOST_FRAMES", 3 * (8 * 8 + 5 * 5))
    assert timelines_of(run, wanted, "")[0].keys() == {"clip-3", "clip-1"}, "three models"


def test_without_the_cache_there_are_no_timelines_and_it_is_said_why(runs, tmp_path):
    folder = tampered(runs, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"cache": str(tmp_path / "gone")}))
    drawn, problem = timelines_of(Run.load(folder), ["clip-3"], "")
    assert drawn == {}
    assert re.search(r"gone holds no cache; `memfeat extract", problem)


def test_effect_of_averaged_frames_follows_from_the_formula(runs, avg):
    frames = embeddings(runs, "clip-2").astype(np.float64)
    head = avg.runs[0].regressors()[0].head.linear
    weight, bias = (p.detach().double().numpy()[0] for p in (head.weight, head.bias))
    without = (frames.sum(0) - frames) / (len(frames) - 1)
    score, scores = (1 / (1 + np.exp(-(x @ weight + bias))) for x in (frames.mean(0), without))
    expected = score - scores
    assert np.ptp(expected) > 1e-6
    assert avg.predict(runs / "clip-2.mp4").timeline.effect == pytest.approx(expected, abs=3e-7)


def test_a_long_clip_loses_windows_of_frames_that_share_one_effect(runs, bigru, monkeypatch):
    monkeypatch.setattr("memfeat.prediction.clip.MAX_VARIANTS", 3)
    frames = embeddings(runs, "clip-3")
    found = bigru.predict(runs / "clip-3.mp4").timeline
    assert found.window == 3  # 8 frames: windows of 3, 3 and 2
    for start, stop in [(0, 3), (3, 6), (6, 8)]:
        rest = np.delete(frames, range(start, stop), axis=0)
        score = np.mean([float(each.scores[0]) for each in seed_scores(bigru.runs[0], rest)])
        assert found.effect[start:stop] == pytest.approx(found.score - score, abs=1e-6)


def test_batches_of_variants_change_nothing(runs, bigru, monkeypatch):
    together = bigru.predict(runs / "clip-0.mp4").timeline.effect
    monkeypatch.setattr("memfeat.prediction.scorer._BATCH", 2)
    assert bigru.predict(runs / "clip-0.mp4").timeline.effect == pytest.approx(together, abs=1e-6)


def test_one_frame_has_a_score_but_no_effect_and_says_why(runs, bigru):
    found = bigru.predict(runs / "clip-6.mp4").timeline
    assert 0 < found.score < 1
    assert found.effect is None
    assert "one frame" in found.effect_undefined
    assert len(found.weights) == 1


def test_effects_are_found_on_first_use_and_encode_nothing_again(runs, avg, monkeypatch):
    prediction = avg.predict(runs / "clip-1.mp4")
    assert "timeline" not in vars(prediction)
    monkeypatch.setattr(avg.encoders[0], "begin", None)
    assert len(prediction.effects) == 5
    assert prediction.effects is prediction.timeline.effect


def test_an_unusable_video_is_an_entry_with_its_reason_and_the_next_is_scored(runs, avg, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    found = [avg.predict(p) for p in (tmp_path / "none.mp4", tmp_path / "text.mp4")]
    assert [(each.status, each.reason) for each in found] == [
        ("failed", "missing"),
        ("failed", "unreadable"),
    ]
    assert all(each.score is None and str(each.path) in each.message for each in found)
    assert avg.predict(runs / "clip-1.mp4").score is not None
    with pytest.raises(VideoError, match=r"none\.mp4"):
        avg.predict(tmp_path / "none.mp4").timeline  # noqa: B018


def test_a_long_portrait_video_is_told_apart_from_short_landscape_ones(runs, avg, tmp_path):
    write_video(tmp_path / "tall.mp4", clip(30, 9)[:, :, :24], fps=10)
    cautions = avg.predict(tmp_path / "tall.mp4").cautions
    assert cautions["length"] == "it lasts 3.0 s, and the training videos 0.5 to 0.8 s"
    assert cautions["shape"] == (
        "its frames are 0.5 times as wide as high, and those of the training videos 1.3 times"
    )
    assert not {"length", "shape"} & avg.predict(runs / "clip-4.mp4").cautions.keys()


def test_a_truncated_video_is_scored_on_what_there_is_and_says_so(runs, avg, tmp_path):
    write_video(tmp_path / "whole.mp4", clip(30, 9), fps=10)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "part.mp4").write_bytes(content[: len(content) * 6 // 10])
    found = avg.predict(tmp_path / "part.mp4")
    assert found.status == "partial"
    assert found.reason in ("truncated", "packet_errors")
    assert 0 < found.num_frames < 30
    assert found.reason in found.message
    assert 0 < found.score < 1


def test_a_prediction_is_json_and_says_where_it_comes_from(runs, bigru):
    found = json.loads(json.dumps(bigru.predict(runs / "clip-1.mp4").as_dict()))
    assert found["path"] == str(runs / "clip-1.mp4")
    assert len(found["weights"]) == len(found["pts_seconds"]) == found["num_frames"] == 5
    assert any("RANDOM WEIGHTS" in line for line in found["sources"])
    assert any("made up" in line for line in found["sources"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("weights_sha256", "f" * 64), ("activation", "quickgelu"), ("image_size", 99)],
)
def test_a_run_of_another_encoder_is_refused_with_both_values(runs, tmp_path, field, value):
    built = json.loads((runs / "avg" / "cache_spec.json").read_text())[field]
    with pytest.raises(RunError) as caught:
        Predictor(tampered(runs, tmp_path, **{field: value}), device="cpu").encoders  # noqa: B018
    assert f"{field} is {built!r}, not {value!r}" in str(caught.value)


def test_a_run_made_before_untagged_hd_was_bt_709_reads_it_as_its_cache_did(runs, tmp_path, avg):
    """Its features are those of the same pixels with a tag that says BT.601."""
    pictures = [np.full((720, 64, 3), (220, 40 * number, 30), np.uint8) for number in range(4)]
    untagged = write_clip(tmp_path / "untagged.mp4", pictures)
    tagged = write_clip(tmp_path / "tagged.mp4", pictures, colorspace=6)
    folder = tampered(runs, tmp_path)
    spec = json.loads((folder / "cache_spec.json").read_text())
    assert spec.pop("untagged_hd") == "BT.709"
    (folder / "cache_spec.json").write_text(json.dumps(spec))
    found = Predictor(folder, device="cpu").predict(untagged).score
    assert found == avg.predict(tagged).score
    assert found != avg.predict(untagged).score


def test_a_run_of_a_checkpoint_file_asks_for_it_by_name(runs, tmp_path):
    folder = tampered(runs, tmp_path, weights="file:mine.safetensors")
    with pytest.raises(RunError, match=r"'mine\.safetensors'; give its path with --weights"):
        Predictor(folder, device="cpu").predict("clip.mp4")


# A sampled clip: each third frame, standing for those after it


@pytest.fixture(scope="module")
def sampled(runs):
    return Predictor(runs / "third-run", device="cpu")


def test_a_sampled_clip_gets_the_score_and_weights_of_its_frames_repeated(runs, sampled):
    columns = Run.load(runs / "third-run").predictions()
    for name, expected in zip(columns.video_id, columns.prediction, strict=True):
        assert sampled.predict(runs / f"{name}.mp4").score == pytest.approx(expected, abs=1e-6)
    found = sampled.predict(runs / "clip-3.mp4")
    kept = embeddings(runs, "clip-3")[::3]
    repeated = kept.repeat([3, 3, 2], axis=0)
    (expected,) = seed_scores(sampled.runs[0], repeated)
    assert found.score == pytest.approx(float(expected.scores[0]), abs=1e-6)
    assert found.num_frames == 8
    assert found.pts_seconds == pytest.approx([0.0, 0.3, 0.6])
    assert found.duration_seconds == pytest.approx(0.8)
    weights = expected.weights[0][0].numpy()
    means = [weights[:3].mean(), weights[3:6].mean(), weights[6:].mean()]
    assert found.weights == pytest.approx(means, abs=1e-6)


def test_leaving_out_a_kept_frame_leaves_out_all_that_it_stands_for(runs, sampled):
    found = sampled.predict(runs / "clip-3.mp4").timeline
    repeated = embeddings(runs, "clip-3")[::3].repeat([3, 3, 2], axis=0)
    assert found.window == 1
    for row, gone in enumerate([range(3), range(3, 6), range(6, 8)]):
        (rest,) = seed_scores(sampled.runs[0], np.delete(repeated, gone, axis=0))
        assert found.effect[row] == pytest.approx(found.score - float(rest.scores[0]), abs=1e-6)


# Several streams: the whole clip, and its first three frames


@pytest.fixture(scope="module")
def both(runs):
    return Predictor(runs / "both", device="cpu")


def test_a_clip_gets_the_score_of_a_run_of_two_streams_from_both_its_encoders(runs, both):
    columns = Run.load(runs / "both").predictions()
    for name, expected in zip(columns.video_id, columns.prediction, strict=True):
        found = both.predict(runs / f"{name}.mp4")
        assert found.score == pytest.approx(expected, abs=1e-6)
        assert len(found.weights) == len(found.pts_seconds) == found.num_frames


def test_a_timeline_of_two_streams_leaves_out_stretches_of_time_in_both(runs, both):
    frames = embeddings(runs, "clip-3")
    (model,) = both.runs[0].regressors()

    def score(*streams):
        padded = [(torch.from_numpy(each)[None], torch.tensor([len(each)])) for each in streams]
        with torch.no_grad():
            return float(model(*padded).scores)

    found = both.predict(runs / "clip-3.mp4").timeline
    assert found.score == pytest.approx(score(frames, frames[:3]), abs=1e-6)
    assert found.window == 6
    assert np.ptp(found.effect) > 1e-6
    # The shorter stream tells three moments apart; its last one lasts to the end of the clip.
    for window, frame in (([0], 0), ([1], 1), (range(2, 8), 2)):
        rest = np.delete(frames, window, axis=0), np.delete(frames[:3], frame, axis=0)
        expected = found.score - score(*rest)
        assert found.effect[list(window)] == pytest.approx(expected, abs=1e-6)


def test_a_clip_that_one_encoder_sees_as_one_has_no_effect_and_says_why(runs, both):
    found = both.predict(runs / "clip-6.mp4").timeline
    assert found.effect is None
    assert found.effect_undefined.startswith("efficientnet-lite0 sees the clip as one")


def test_checkpoints_that_no_encoder_takes_are_refused(runs):
    with pytest.raises(RunError, match=r"3 checkpoint files are given, and .* has 2 encoders"):
        Predictor(runs / "both", device="cpu", weights=["a", "b", "c"]).predict("clip.mp4")


def test_frames_at_gives_the_pixels_of_those_frames(runs):
    path = runs / "clip-0.mp4"
    pixels, seconds = read_frames(path)
    found = frames_at(path, seconds[[0, 4]])
    assert len(found) == 2
    for index in (0, 4):
        assert np.array_equal(found[seconds[index]], pixels[index])
