"""Which frames are kept, and what each of them stands for."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from clips import number_picture, write_clip

from memfeat.cache import MOST_COVERED, Cache
from memfeat.cli import main
from memfeat.config import ExtractConfig
from memfeat.decoding.sampling import SAMPLERS, CoverCounter, Sampling
from memfeat.errors import ConfigError, MemfeatError, UnknownNameError
from memfeat.extraction import encode_video, extract
from memfeat.extraction.pipeline import build_encoder, build_spec
from memfeat.manifest import Manifest, VideoRecord

DISTINCT, REPEATS = 10, [6, 1, 9, 6, 4, 8, 2, 10, 7, 7]  # 60 frames in all
FIRSTS = np.cumsum([0, *REPEATS[:-1]])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Sixty frames of which ten are distinct, in lossy H.264."""
    pictures = [number_picture(n) for n, times in enumerate(REPEATS) for _ in range(times)]
    return write_clip(tmp_path_factory.mktemp("clip") / "v.mp4", pictures)


def config(cache, **changes) -> ExtractConfig:
    values = {"manifest": "m.csv", "cache": cache, "encoder": "efficientnet-lite0"}
    settings = {"weights": "imagenet", "batch_size": 8, "device": "cpu"}
    return ExtractConfig(**(values | settings | changes))


def cached(clip, folder, **changes):
    record = VideoRecord(video_id="v", path=clip, score=None, split="test")
    summary = extract(Manifest(clip, (record,)), config(folder, **changes))
    return Cache.open(folder).load(), summary


@pytest.fixture(scope="module")
def every(clip, tmp_path_factory):
    return cached(clip, tmp_path_factory.mktemp("every"))[0]


@pytest.mark.parametrize("sampler", ["thumbnail", "embedding"])
def test_of_sixty_frames_the_ten_distinct_ones_are_kept(clip, every, sampler, tmp_path):
    table, summary = cached(clip, tmp_path, sampler=sampler)
    assert table.covers.tolist() == REPEATS
    np.testing.assert_array_equal(table.pts_seconds, every.pts_seconds[FIRSTS])
    np.testing.assert_array_equal(table.values, every.values[FIRSTS])
    assert (summary.as_dict()["frames"], summary.frames_kept) == (60, 10)
    assert Cache.open(tmp_path).summary()["frames_covered"] == 60


def test_every_frame_is_kept_by_default_and_stands_for_itself(every):
    assert every.spec.sampling == "every"
    assert every.covers.tolist() == [1] * 60


def test_a_stride_keeps_the_first_of_so_many(clip, every, tmp_path):
    table, _ = cached(clip, tmp_path, sampler="stride:7")
    assert table.covers.tolist() == [7] * 8 + [4]
    np.testing.assert_array_equal(table.values, every.values[::7])


@pytest.mark.parametrize(
    ("rate", "number", "kept"),
    [
        (30, 10, list(range(0, 30, 3))),
        (25, 2, [0, 13, 25]),
        (30, 1, [0]),
        (10, 30, list(range(30))),  # there are no more than there are
        (24, 0.5, [0]),
    ],
)
def test_a_rate_keeps_the_first_frame_of_each_part_of_a_second(rate, number, kept):
    frame = np.zeros((2, 2, 3), np.uint8)
    for digits in (9, 3):  # as Matroska rounds times
        keeps = CoverCounter(Sampling.parse(f"fps:{number}").of_pixels())
        times = [7 + round(n / rate, digits) for n in range(30)]
        assert [n for n, time in enumerate(times) if keeps.keeps(frame, seconds=time)] == kept
        assert sum(keeps.counts) == 30


def test_a_rate_keeps_frames_by_their_times_in_a_file(clip, every, tmp_path):
    table, _ = cached(clip, tmp_path, sampler="fps:10")
    assert table.covers.tolist() == [3] * 20
    np.testing.assert_array_equal(table.values, every.values[::3])


def test_slow_change_adds_up_until_a_frame_is_kept():
    keeps = CoverCounter(Sampling.parse("thumbnail:0.1").of_pixels())
    ramp = [np.full((32, 32, 3), level, np.uint8) for level in range(0, 100, 4)]
    kept = [n for n, frame in enumerate(ramp) if keeps.keeps(frame)]
    assert kept == list(range(0, 25, 7))  # 28 of 255 levels are the first step beyond a tenth


def test_one_frame_stands_for_a_bounded_number_of_others():
    keeps = CoverCounter(Sampling.parse("embedding").of_embeddings())
    same = np.ones(4, np.float16) / 2
    assert [keeps.keeps(same, MOST_COVERED - 1) for _ in range(3)] == [True] * 3
    assert keeps.counts == [MOST_COVERED - 1] * 3
    assert not keeps.keeps(same)
    assert keeps.counts[-1] == MOST_COVERED


def test_new_videos_are_sampled_as_the_cache_was(clip, tmp_path):
    table, _ = cached(clip, tmp_path, sampler="thumbnail:0.05")
    encoded = encode_video(clip, build_encoder(config(tmp_path), "cpu"), table.spec)
    assert encoded.covers.tolist() == REPEATS
    np.testing.assert_array_equal(encoded.embeddings, table.values)


@pytest.mark.parametrize("text", [*SAMPLERS, "thumbnail:0.123456789", "stride:1234567"])
def test_a_sampler_is_written_as_it_is_read(text):
    sampling = Sampling.parse(text)
    assert Sampling.parse(str(sampling)) == sampling
    assert str(sampling).startswith(text)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("stride:0", "stride:4, with a whole number from 1 on"),
        ("stride:1.5", "stride:4, with a whole number"),
        ("thumbnail:-1", "thumbnail:0.05, with a number above 0 and below 1"),
        ("thumbnail:x", "thumbnail:0.05, with"),
        ("thumbnail:1", "thumbnail:0.05, with"),
        ("embedding:nan", "embedding:0.02, with a number above 0 and below 2"),
        ("embedding:3", "embedding:0.02, with"),
        ("every:2", "every, with no number"),
        ("fps:0", "fps:1, with a number above 0"),
    ],
)
def test_a_number_that_a_sampler_cannot_work_with_is_refused(text, allowed):
    with pytest.raises(ConfigError, match=f"'{text}' is not allowed; write it like {allowed}"):
        Sampling.parse(text)


def test_an_unknown_sampler_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'thumbnails'.*'thumbnail'.*embedding, every"):
        Sampling.parse("thumbnails")


def test_a_cache_of_another_sampler_is_refused(clip, tmp_path):
    cached(clip, tmp_path, sampler="stride:7")
    with pytest.raises(MemfeatError, match="sampling is 'every', not 'stride:7'"):
        cached(clip, tmp_path)


def test_an_encoder_of_clips_takes_no_sampler(tmp_path):
    encoder = build_encoder(config(tmp_path), "cpu")
    encoder.clip_frames = 16
    with pytest.raises(ConfigError, match=r"clips of 16 .*--sampler stride:4"):
        build_spec(encoder, config(tmp_path, sampler="stride"))


def test_the_command_tells_how_much_was_saved(clip, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"video_id,path,score,split\nv,{clip},0.5,test\n")
    flags = ["--manifest", manifest, "--cache", tmp_path / "c", "--encoder", "efficientnet-lite0"]
    flags += ["--weights", "random", "--sampler", "thumbnail", "--max-frames", "16"]
    command = ["extract", *map(str, flags)]
    done = CliRunner().invoke(main, command)
    assert "sampler thumbnail:0.05 kept 3 of 16 frames" in done.stderr
    again = CliRunner().invoke(main, [*command, "--json"])
    assert json.loads(again.stdout)["spec"]["sampling"] == "thumbnail:0.05"
