"""A video that crashes or hangs its decoder costs each command that video alone."""

from pathlib import Path

import pytest
from clips import numbered_clip, numbers_in
from crashing import crashing_decoders

from memfeat.errors import VideoError
from memfeat.finetuning.clips import check_videos, clips_at, clips_in_order
from memfeat.manifest import Manifest, VideoRecord
from memfeat.planning import sample_lengths
from memfeat.prediction import frames_at
from memfeat.report.videos import frames_of

NAMES = ("a", "crash", "hang", "b")
REASONS = {"crash": "crash", "hang": "timeout"}


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[VideoRecord]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        VideoRecord(
            video_id=name, path=numbered_clip(folder / f"{name}.mp4", 20), score=0.5, split="dev"
        )
        for name in NAMES
    ]


def test_plan_counts_it_as_unreadable(records):
    with crashing_decoders():
        lengths, found = sample_lengths(Manifest(Path("m.csv"), tuple(records)), headers=4)
    assert sorted(lengths) == [0, 0, 20, 20]
    assert found["headers"]["unreadable"] == REASONS


def test_report_shows_the_others(records):
    with crashing_decoders():
        frames = frames_of({each.video_id: each for each in records}, NAMES, whole=("a", "hang"))
    assert {name: (bool(each.thumbnail), each.missing) for name, each in frames.items()} == {
        "a": (True, ""),
        "crash": (False, "crash"),
        "hang": (False, "timeout"),
        "b": (True, ""),
    }


@pytest.mark.parametrize(
    ("at", "message"),
    [(1, r"crash\.mp4.*exit code 7"), (2, r"hang\.mp4.*no frame came of it for 1")],
)
def test_a_timeline_says_so(records, at, message):
    with crashing_decoders(), pytest.raises(VideoError, match=message):
        frames_at(records[at].path, [0.0])


@pytest.mark.extras
def test_finetuning_leaves_it_out(records):
    with crashing_decoders():
        checks = check_videos(records, None, 2, lambda *_: None)
        clips = [clip for _, clip in clips_at(records, [0, 0, 0, 4], 160, 2)]
        scored = {number for number, _ in clips_in_order(records, 160, None, 2)}
    found = {name: check.reason for name, check in checks.items()}
    assert found == dict.fromkeys(NAMES, "") | REASONS
    assert [clips[n].reason for n in (1, 2)] == ["crash", "timeout"]
    assert [numbers_in(clips[n])[0] for n in (0, 3)] == [0, 4]
    assert scored == {0, 3}
