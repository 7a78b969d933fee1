"""Plans: arithmetic done by hand, and shards and videos that are really there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from clips import numbered_clip, read_frames
from made_up import records, spec

from memfeat.cache import CacheSpec, EncodedVideo, write_shard
from memfeat.cli import main
from memfeat.config import PlanConfig
from memfeat.encoders import VectorShape, create_encoder, vector_shape
from memfeat.manifest import Manifest
from memfeat.planning import cache_size, sample_lengths
from memfeat.video import frames_by_header


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["plan", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def plan(*arguments: object) -> dict:
    return json.loads(run(*arguments, "--json"))


def write_manifest(folder: Path, names: list[str]) -> Path:
    rows = [f"{name},{name}.mp4,0.5,train\n" for name in names]
    (folder / "m.csv").write_text("video_id,path,score,split\n" + "".join(rows))
    return folder / "m.csv"


def encoded(number: int, frames: int, width: int) -> EncodedVideo:
    """A video as extraction leaves it, with an id of twelve bytes."""
    rows = np.full((frames, width), width**-0.5, np.float16)
    times = np.arange(frames) / 25
    return EncodedVideo(
        f"video{number:07d}", rows, times, "ok", "", 123_456, "a" * 64, frames, None, 0, (640, 360)
    )


WITH_I3D = ["--encoder", "i3d"]  # whose shape takes no model to be built
TEN_THOUSAND = ["--videos", 10_000, "--seconds", 3, *WITH_I3D]


def test_frames_hours_and_cost_are_those_worked_out_by_hand():
    made = plan(*TEN_THOUSAND, "--fps", 32, "--rate", 1000, "--gpus", 4, "--price", "2.5")
    assert made["frames"] == 960_000
    assert made["rows"] == 60_000  # clips of 16
    assert made["row_bytes"] == 1024 * 2 + 8 + 4
    assert made["shards"] == 313  # of 32 videos: 312 and a half
    assert made["hours"] == pytest.approx(240 / 3600, abs=1e-6)
    assert made["gpu_hours"] == pytest.approx(960 / 3600, abs=1e-6)
    assert made["cost"] == 0.67
    assert made["decode_needed"] == 4000
    assert made["bottleneck"] is None


@pytest.mark.parametrize(
    ("cores", "bottleneck", "seconds"), [(9, "encode", 250), (8, "encode", 250), (4, "decode", 500)]
)
def test_the_slower_of_cores_and_gpus_sets_the_time(cores, bottleneck, seconds):
    """A million frames: two GPUs encode 4,000 a second, and a core decodes 500."""
    made = plan(
        *["--videos", 10_000, "--seconds", 4, "--encoder", "i3d", "--rate", 2000, "--gpus", 2],
        *["--cores", cores, "--decode-rate", 500],
    )
    assert (made["bottleneck"], made["cores_needed"]) == (bottleneck, 8)
    assert made["hours"] == pytest.approx(seconds / 3600, abs=1e-6)


def test_a_sampler_saves_rows_and_encoding_but_no_decoding():
    given = ["--videos", 1000, "--seconds", 4, "--encoder", "efficientnet-lite0", "--rate", 100]
    whole, kept = plan(*given), plan(*given, "--keep", "0.25")
    assert (whole["rows"], kept["rows"]) == (100_000, 25_000)
    assert whole["frames"] == kept["frames"] == 100_000
    assert kept["hours"] == pytest.approx(whole["hours"] / 4, rel=1e-4)
    assert kept["decode_needed"] == 4 * whole["decode_needed"]
    assert "leave --keep 0.25 out" in run(*TEN_THOUSAND, "--keep", "0.25", code=2)


@pytest.mark.parametrize(
    ("videos", "frames", "width"), [(32, 75, 1024), (32, 75, 64), (200, 5, 1024), (1000, 75, 8)]
)
def test_a_shard_that_was_written_has_the_size_foretold(tmp_path, videos, frames, width):
    made_of = spec(width, encoder="ViT-L-14-336", normalisation="l2")
    path = write_shard(tmp_path, made_of, [encoded(n, frames, width) for n in range(videos)])
    config = PlanConfig(videos_per_shard=videos)
    foretold = cache_size(videos, 12, [frames], VectorShape(width), config)
    assert foretold["cache_bytes"] == pytest.approx(path.stat().st_size, rel=0.01)


def test_a_manifests_headers_tell_how_long_its_videos_are(tmp_path):
    frames = [6, 9, 12, 21]
    for number, count in enumerate(frames):
        numbered_clip(tmp_path / f"v{number}.mp4", count)
    made = plan(
        "--manifest",
        write_manifest(tmp_path, ["v0", "v1", "gone", "v2", "v3"]),
        *["--encoder", "i3d"],
    )
    assert (made["videos"], made["frames"], made["missing"]) == (4, 48, ["gone"])
    assert made["rows"] == 1 + 1 + 1 + 1  # 21 frames are one whole clip; a short video is one too
    assert made["source_bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.mp4"))
    headers = made["headers"]
    assert (headers["looked_at"], headers["shortest"], headers["longest"]) == (4, 6, 21)
    assert headers["median"] == 10.5
    assert made["frames_error_95"] == 0


def test_figures_are_printed_with_their_units():
    lines = dict(
        line.split(maxsplit=1)
        for line in run(*TEN_THOUSAND, "--rate", 1000, "--price", 2).splitlines()
    )
    assert lines["rate"] == "1,000.00 frames/s"
    assert lines["row_bytes"] == "2,060 bytes"
    assert re.fullmatch(r"[\d.]+ h", lines["hours"])
    assert re.fullmatch(r"[\d.]+ in the currency of --price", lines["cost"])
    assert re.fullmatch(r"[\d.]+ kB/s", lines["write_bytes_per_second"])


def test_some_headers_stand_for_all_and_the_spread_is_told(tmp_path):
    """Of 40 videos, half of 4 frames and half of 8, ten are looked at."""
    short, long = (numbered_clip(tmp_path / f"{count}.mp4", count) for count in (4, 8))
    found = [
        record.model_copy(update={"path": long if number % 2 else short})
        for number, record in enumerate(records([0.5] * 40, ["train"] * 40))
    ]
    manifest = Manifest(tmp_path / "m.csv", tuple(found))
    lengths, found = sample_lengths(manifest, headers=10)
    assert len(lengths) == 10
    longs = lengths.count(8.0)
    assert 0 < longs < 10
    mean = 4 + 4 * longs / 10
    variance = 16 * longs * (10 - longs) / (10 * 9)
    assert sum(lengths) / 10 == pytest.approx(mean)
    error = 1.96 * (variance / 10 * (1 - 10 / 40)) ** 0.5 / mean
    assert found["frames_error_95"] == pytest.approx(error, abs=1e-5)
    assert sample_lengths(manifest, headers=10) == (lengths, found)


def test_a_video_that_cannot_be_read_is_told_and_counts_no_frames(tmp_path):
    numbered_clip(tmp_path / "good.mp4", 10)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    manifest = write_manifest(tmp_path, ["good", "bad"])
    made = plan("--manifest", manifest, "--encoder", "i3d")
    assert (made["videos"], made["frames"]) == (2, 10)
    assert made["headers"]["unreadable"] == {"bad": "unreadable"}
    shown = run("--manifest", manifest, "--encoder", "i3d")
    assert "1 video: bad (unreadable)" in shown


def test_a_manifest_without_any_video_is_refused(tmp_path):
    error = run("--manifest", write_manifest(tmp_path, ["a", "b"]), "--encoder", "i3d", code=2)
    assert "of 2 videos, 0 are there" in error


def test_a_video_that_is_not_on_this_machine_is_counted_but_not_looked_at(tmp_path):
    here, there = records([0.5, 0.5], ["train", "train"])
    here = here.model_copy(update={"path": numbered_clip(tmp_path / "v.mp4", 5)})
    there = there.model_copy(update={"path": "s3://bucket/v.mp4"})
    lengths, found = sample_lengths(Manifest(tmp_path / "m.csv", (here, there)), headers=10)
    assert (found["videos"], found["remote"], lengths) == (2, 1, [5])
    assert found["source_bytes"] is None


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts"])
def test_a_header_says_how_many_frames_decoding_gives(tmp_path, suffix):
    clip = numbered_clip(tmp_path / f"clip.{suffix}", 60)
    assert len(read_frames(clip, size=8).pts_seconds) == 60
    assert frames_by_header(clip) == pytest.approx(60, abs=1)


@pytest.mark.parametrize(
    ("content", "field", "rate"),
    [
        ({"frames_per_second": 45.5, "spec": {"encoder": "i3d", "sampling": "every"}}, None, 45.5),
        ({"frames_per_second_360p": 20, "encoder": "i3d, random weights"}, None, 20),
        ({"frames_per_second": 5, "other": 7}, "other", 7),
    ],
)
def test_a_rate_comes_from_a_measurement(tmp_path, content, field, rate):
    (tmp_path / "rate.json").write_text(json.dumps(content))
    which = ["--rate-field", field] if field else []
    made = plan(*TEN_THOUSAND, "--rate-from", tmp_path / "rate.json", *which)
    assert made["rate"] == rate
    assert made["hours"] == pytest.approx(750_000 / rate / 3600, rel=1e-5)
    assert str(tmp_path / "rate.json") in made["rate_source"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"frames_per_second": 9, "spec": {"encoder": "ViT-B-32"}}', "encoder ViT-B-32, not i3d"),
        ('{"frames_per_second": 9, "spec": {"sampling": "stride:4"}}', "--sampler stride:4"),
        ('{"frames_per_second": null}', "None, not frames/s"),
        ('{"frames_per_second": true}', "True, not frames/s"),
        ('{"frames_per_second": NaN}', "nan, not frames/s"),
        ("{}", "frames_per_second or frames_per_second_360p is None"),
        ("[1]", "no JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_a_measurement_of_something_else_is_refused(tmp_path, content, told):
    (tmp_path / "rate.json").write_text(content)
    assert told in run(*TEN_THOUSAND, "--rate-from", tmp_path / "rate.json", code=2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (WITH_I3D, "got neither; give --manifest FILE, or --videos N and --seconds S"),
        (["--videos", 5, *WITH_I3D], "got --videos"),
        (["--manifest", "m.csv", "--videos", 5, *WITH_I3D], "--videos cannot be"),
        ([*TEN_THOUSAND, "--rate", 5, "--rate-from", "x.json"], "both given"),
        ([*TEN_THOUSAND, "--rate-field", "x"], "give --rate-from too"),
        ([*TEN_THOUSAND, "--rate-from", "nowhere.json"], "cannot read --rate-from nowhere.json"),
        ([*TEN_THOUSAND, "--cores", 4], "--cores 4 tells nothing without --decode-rate"),
        ([*TEN_THOUSAND, "--rate", 0], "rate = 0.0 is not allowed"),
        (["--videos", 5, "--seconds", 1, "--encoder", "nope"], "'nope'"),
        ([*TEN_THOUSAND, "--tokens", "cls+2x2"], "--tokens cls+2x2 is not to be had"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments, told):
    assert told in run(*arguments, code=2)


def test_without_a_rate_no_hours_are_told():
    shown = run(*TEN_THOUSAND)
    assert "10,000" in shown
    assert "hours" not in shown


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("timm/test_vit", "cls+2x2"), ("efficientnet-lite0", "cls"), ("i3d", "cls"), ("RN50", "cls")],
)
def test_a_width_told_without_weights_is_that_of_the_encoder(name, tokens):
    encoder = create_encoder(name, "random", tokens=tokens)
    shape = vector_shape(name, tokens)
    assert (shape.dim, shape.width) == (encoder.dim, encoder.width)
    assert shape.clip_frames == encoder.clip_frames


def test_the_papers_encoder_is_1024_wide():
    assert vector_shape("ViT-L-14-336").width == 1024
    assert vector_shape("ViT-B-32", "cls+2x2").width == 5 * 768


def test_a_plan_holds_for_the_cache_that_extraction_makes(tmp_path):
    for number in range(6):
        numbered_clip(tmp_path / f"v{number}.mp4", 40)
    manifest = write_manifest(tmp_path, [f"v{number}" for number in range(6)])
    settings = ["--manifest", manifest, "--encoder", "timm/test_vit", "--tokens", "cls+6x6"]
    arguments = ["--cache", tmp_path / "cache", "--weights", "random", "--device", "cpu", "--json"]
    done = CliRunner().invoke(main, ["extract", *map(str, [*settings, *arguments])])
    assert done.exit_code == 0, done.output
    (tmp_path / "rate.json").write_text(done.stdout)
    made = plan(*settings, "--rate-from", tmp_path / "rate.json")
    (shard,) = (tmp_path / "cache").glob("shard-*.h5")
    assert made["cache_bytes"] == pytest.approx(shard.stat().st_size, rel=0.01)
    assert made["rate"] == json.loads(done.stdout)["frames_per_second"]
    assert CacheSpec(**json.loads(done.stdout)["spec"]).width == made["numbers_a_row"]
