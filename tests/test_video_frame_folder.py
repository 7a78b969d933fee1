"""Folders of numbered pictures are read as the videos that they are the frames of."""

import hashlib
import json

import numpy as np
import pytest
from clips import number_picture, read_number
from commands import ok, run
from PIL import Image

from memfeat.cache import Cache
from memfeat.config import ExtractConfig
from memfeat.errors import VideoError
from memfeat.extraction import encode_video
from memfeat.extraction.pipeline import build_encoder
from memfeat.prediction import VideoPrediction
from memfeat.video import open_reader


def frames(folder, numbers, name="frame_{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.fromarray(number_picture(number)).save(folder / name.format(number))
    return folder


def read(folder, **settings):
    with open_reader(folder, settings.pop("fps", 10.0), **settings) as reader:
        found = list(reader)
    numbers = [read_number(frame.pixels) for frame in found]
    return numbers, [round(frame.pts_seconds, 6) for frame in found], reader


def test_frames_come_by_number_at_times_that_follow_from_it(tmp_path):
    folder = frames(tmp_path / "v", [3, 4, 9, 10, 11, 100])  # by name 10 and 100 would be first
    (folder / "Thumbs.db").write_bytes(b"no picture")
    (folder / ".frame_5.png").write_bytes(b"hidden")
    numbers, times, reader = read(folder)
    assert numbers == [3, 4, 9, 10, 11, 100]
    assert times == [0.0, 0.1, 0.6, 0.7, 0.8, 9.7]
    assert (reader.reason, reader.frames_expected, reader.frames_decoded) == (None, 6, 6)
    assert read(folder, max_frames=2)[0] == [3, 4]
    assert read(folder, max_seconds=0.7)[0] == [3, 4, 9]
    assert read(folder, first_frame=4)[0] == [11, 100]
    assert read(folder, fps=25.0)[1][:2] == [0.0, 0.04]


def test_a_damaged_frame_makes_the_video_partial(tmp_path):
    folder = frames(tmp_path / "v", range(5), "{}.png")
    (folder / "2.png").write_bytes(b"\x89PNG damaged")
    numbers, times, reader = read(folder)
    assert (numbers, times) == ([0, 1, 3, 4], [0.0, 0.1, 0.3, 0.4])
    assert reader.reason == "packet_errors"
    Image.fromarray(number_picture(4)).save(folder / "4.jpg", quality=95)
    (folder / "4.png").unlink()
    cut = (folder / "4.jpg").read_bytes()
    (folder / "4.jpg").write_bytes(cut[: len(cut) // 2])
    assert read(folder)[2].reason == "packet_errors"


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        ([], "no_frames", "holds no pictures"),
        (["a1.png", "cover.png"], "unreadable", "'.*cover.png' has no number in its name"),
        (["a1.png", "b1.png"], "unreadable", "'.*b1.png' and a1.png have the same number"),
    ],
)
def test_a_folder_whose_frames_have_no_order_is_refused(tmp_path, names, reason, message):
    frames(tmp_path / "v", [])
    for name in names:
        Image.fromarray(number_picture(1)).save(tmp_path / "v" / name)
    with pytest.raises(VideoError, match=message) as caught:
        open_reader(tmp_path / "v", 10.0)
    assert caught.value.reason == reason


def test_without_a_rate_a_folder_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="is a folder; name the video, or give --fps"):
        open_reader(frames(tmp_path / "v", [1]))


@pytest.fixture
def command(tmp_path):
    frames(tmp_path / "v", range(12), "{:04}.png")
    (tmp_path / "m.csv").write_text("video_id,path,score,split\nv,v,,test\n")
    return (
        *("extract", "--manifest", tmp_path / "m.csv", "--cache", tmp_path / "c"),
        *("--encoder", "timm/test_vit", "--weights", "random", "--device", "cpu"),
    )


def test_extraction_records_the_rate_and_the_hash_of_all_frames(command, tmp_path):
    ok(*command, "--fps", 8, "--resize", "crop", "--sampler", "fps:2")
    cache = Cache.open(tmp_path / "c")
    vectors, times = cache["v"]
    assert times.tolist() == [0.0, 0.5, 1.0]
    entry = cache.entries["v"]
    names = sorted((tmp_path / "v").iterdir())
    lines = [f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in names]
    assert entry.source_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert entry.num_covered == 12
    assert (cache.spec.fps, cache.spec.resize) == (8.0, "crop")
    assert "--resize crop --fps 8.0" in cache.spec.flags
    again = ok(*command, "--fps", 8, "--resize", "crop", "--sampler", "fps:2")
    assert "1 cached already" in again.stderr
    config = ExtractConfig(
        manifest="m.csv", cache="c", encoder="timm/test_vit", weights="random", device="cpu"
    )
    encoded = encode_video(tmp_path / "v", build_encoder(config, "cpu"), cache.spec)
    np.testing.assert_array_equal(encoded.embeddings, vectors)
    refused = run(*command, "--fps", 8, "--sampler", "fps:2")
    assert "squashed', not 'antialiased bicubic, cropped to the middle'" in refused.stderr


def test_a_dry_run_takes_a_folder_for_a_video_that_is_there(command):
    plan = json.loads(ok(*command, "--fps", 8, "--dry-run", "--json").stdout)
    assert plan["no_file"] == []


def test_a_timeline_of_a_folder_has_no_thumbnails(tmp_path):
    found = VideoPrediction(path=tmp_path, video_id="v", status="ok", score=0.5, sources=())
    assert found.thumbnails() == {}


def test_without_the_rate_extraction_says_what_is_missing(command):
    result = run(*command, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["failures"] == {"v": "not_a_file"}
