from collections import defaultdict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from clips import numbered_clip, numbers_in

from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead
from memfeat.decoding.fetching import AHEAD, Fetcher
from memfeat.errors import RemoteError
from memfeat.manifest import VideoRecord
from memfeat.storage import Url, upload, write


@pytest.fixture
def scratch(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user/memfeat/remote/scratch"


@pytest.fixture
def memory() -> Iterator[Url]:
    yield Url("memory://videos")
    fsspec.filesystem("memory").store.clear()


def record(place: Path | Url, name: str = "v") -> VideoRecord:
    return VideoRecord(video_id=name, path=place, score=None, split="test")


def test_few_copies_are_on_disk_however_many_videos_there_are(scratch, memory):
    records = []
    for number in range(4 * AHEAD):
        write(memory / f"{number}.mp4", str(number).encode())
        records.append(record(memory / f"{number}.mp4", str(number)))
    most = 0
    with Fetcher(records) as fetcher:
        for number, video in enumerate(fetcher):
            assert video.path().read_bytes() == str(number).encode()
            most = max(most, len(list(scratch.glob("*/*.mp4"))))
            video.release()
            assert not video.path().exists()
    assert number == 4 * AHEAD - 1
    assert 1 < most <= AHEAD + 1
    assert not list(scratch.glob("*"))


def test_leaving_early_leaves_no_copies(scratch, memory):
    write(memory / "v.mp4", b"video")
    with Fetcher([record(memory / "v.mp4")] * AHEAD) as fetcher:
        assert next(fetcher).path().exists()
    assert not list(scratch.glob("*"))


def test_remote_and_local_videos_keep_their_order_and_a_local_file_stays(scratch, memory, tmp_path):
    local = numbered_clip(tmp_path / "local.mp4", frames=4)
    upload(numbered_clip(tmp_path / "other.mp4", frames=7), memory / "other.mp4")
    places = [memory / "other.mp4", local, memory / "gone.mp4", memory / "other.mp4", local]
    frames, seen = defaultdict(list), {}
    with decode_ahead(map(record, places), DecodeSettings(64), decoders=2) as videos:
        for event in videos:
            numbers = frames[event.number]
            if isinstance(event, DecodedFrames):
                numbers += numbers_in(event.pixels)
            else:
                seen[event.number] = len(numbers), event.result.status, event.result.reason
                assert numbers == list(range(len(numbers)))
    seven, four = (7, "ok", ""), (4, "ok", "")
    assert [seen[n] for n in range(5)] == [seven, four, (0, "failed", "missing"), seven, four]
    assert local.exists()


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="the package is here")
def test_what_no_video_would_be_spared_ends_the_run(scratch):
    with (
        pytest.raises(RemoteError, match="gcsfs"),
        decode_ahead([record(Url("gs://b/v.mp4"))], DecodeSettings(64), decoders=1) as videos,
    ):
        next(videos)
