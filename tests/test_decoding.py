"""Decoding in processes: the frames that the reader gives, whatever becomes of a process."""

import os
import resource
import shutil
import signal
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from clips import numbered_clip, read_frames
from processes import reading, struck, workers_of

from memfeat.decoding import DecodedFrames, DecodeSettings, Sampling, decode_ahead
from memfeat.decoding import ahead as ahead_module
from memfeat.decoding.frame_pool import CHUNK_FRAMES, MOST_BYTES, FramePool, PoolShape, attach
from memfeat.errors import DecoderError
from memfeat.manifest import VideoRecord
from memfeat.video import write_video

FRAMES = {"a": 30, "long": 400, "b": 9, "one": 1, "c": 17}
SIZE = 160


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        name: numbered_clip(folder / f"{name}.mp4", count, max_b_frames=2)
        for name, count in FRAMES.items()
    }


def records(clips: dict[str, Path]) -> list[VideoRecord]:
    return [VideoRecord(video_id=n, path=p, score=None, split="test") for n, p in clips.items()]


def decode(clips: dict[str, Path], settings=None, **arguments) -> dict[str, tuple]:
    """Return each video's end, frames and times, as arrays, in the order in which they ended."""
    found, pixels, seconds = {}, defaultdict(list), defaultdict(list)
    with decode_ahead(records(clips), settings or DecodeSettings(SIZE), **arguments) as videos:
        for event in videos:
            number = event.number
            if isinstance(event, DecodedFrames):
                pixels[number].append(event.pixels.copy())
                seconds[number] += event.pts_seconds
            else:
                frames = np.concatenate(pixels[number] or [np.empty((0, SIZE, SIZE, 3))])
                found[event.record.video_id] = event.result, frames, seconds[number]
    return found


@pytest.mark.parametrize("decoders", [1, 3])
def test_frames_of_a_video_come_in_order_as_the_reader_gives_them(clips, decoders):
    found = decode(clips, decoders=decoders)
    assert set(found) == set(FRAMES)
    for name, (end, pixels, seconds) in found.items():
        expected = read_frames(clips[name], size=SIZE)
        np.testing.assert_array_equal(pixels, expected.pixels)
        np.testing.assert_array_equal(seconds, expected.pts_seconds)
        assert (end.status, end.reason, list(end.covers)) == ("ok", "", [1] * FRAMES[name])
        assert end.source_bytes == clips[name].stat().st_size


def test_a_sampler_hands_over_what_it_keeps_and_counts_the_rest(clips):
    settings = DecodeSettings(SIZE, Sampling.parse("stride:4"))
    for name, (end, pixels, _) in decode(clips, settings, decoders=2).items():
        assert len(pixels) == len(end.covers) == -(-FRAMES[name] // 4)
        assert sum(end.covers) == FRAMES[name]


def test_what_is_wrong_with_a_video_is_told_and_the_others_come(clips, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    bad = {"gone": tmp_path / "gone.mp4", "text": tmp_path / "text.mp4"}
    found = decode(bad | clips, decoders=2)
    assert [found[name][0].reason for name in bad] == ["missing", "unreadable"]
    assert "gone.mp4" in found["gone"][0].message
    assert [len(found[name][1]) for name in FRAMES] == list(FRAMES.values())


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> Path:
    """A clip that takes long enough to decode for its process to be found meanwhile."""
    return numbered_clip(tmp_path_factory.mktemp("slow") / "slow.mp4", 900)


def test_a_decoder_that_crashes_once_costs_nothing(clips, slow):
    mixed = {"a": clips["a"], "slow": slow, "b": clips["b"]}
    expected = decode(mixed, decoders=1)
    with struck(slow, 1, signal.SIGKILL) as hit:
        found = decode(mixed, decoders=2)
    assert len(hit) == 1
    for name, (end, pixels, seconds) in expected.items():
        assert found[name][0] == end
        np.testing.assert_array_equal(found[name][1], pixels)
        assert found[name][2] == seconds


def test_videos_behind_a_long_one_do_not_wait_for_it(clips, slow):
    short = {f"{name}{turn}": clips[name] for turn in range(5) for name in ("a", "b", "one", "c")}
    assert list(decode({"slow": slow} | short, decoders=2))[-1] == "slow"


def test_no_more_videos_are_begun_before_the_oldest_has_ended_than_was_asked_for(clips, slow):
    many = {"slow": slow} | {f"b{turn}": clips["b"] for turn in range(9)}
    begun = set()
    with decode_ahead(records(many), DecodeSettings(SIZE), decoders=2, most_open=4) as videos:
        for event in videos:
            begun.add(event.number)
            if event.number == 0 and hasattr(event, "result"):
                break
    assert begun == {0, 1, 2, 3}


def test_frames_keep_their_shape_where_that_is_asked_for(tmp_path):
    path = tmp_path / "wide.mp4"
    write_video(path, [np.full((90, 160, 3), 40 * n, np.uint8) for n in range(5)], fps=10)
    for size, shape in ((80, (45, 80)), (200, (90, 160))):
        settings = DecodeSettings(size, keep_shape=True, first_frame=3, hashed=False)
        with decode_ahead(records({"wide": path}), settings, decoders=1) as videos:
            frames, end = videos
        assert frames.pixels.shape == (2, *shape, 3)
        assert frames.pixels.mean((1, 2, 3)) == pytest.approx([120, 160], abs=2)
        assert frames.pts_seconds == pytest.approx([0.3, 0.4])
        assert end.result.source_sha256 == ""


def test_a_decoder_that_hangs_costs_its_video_and_the_others_come(clips, slow):
    mixed = {"slow": slow, "a": clips["a"], "b": clips["b"]}
    with struck(slow, 2, signal.SIGSTOP) as hit:
        found = decode(mixed, decoders=2, time_limit=1)
    assert len(hit) == 2
    assert (found["slow"][0].status, found["slow"][0].reason) == ("failed", "timeout")
    assert "no frame came of it for 1 seconds, 2 times over" in found["slow"][0].message
    assert [len(found[name][1]) for name in ("a", "b")] == [FRAMES["a"], FRAMES["b"]]


def test_a_decoder_that_waits_for_its_consumer_is_not_taken_for_one_that_hangs(slow):
    with decode_ahead(
        records({"slow": slow}), DecodeSettings(SIZE), decoders=1, time_limit=0.5
    ) as videos:
        next(videos)
        time.sleep(2)
        *_, end = videos
    assert end.result.status == "ok"


def test_a_file_that_is_replaced_between_two_tries_has_changed(clips, slow, tmp_path):
    slow = shutil.copy(slow, tmp_path / "copy.mp4")
    with decode_ahead(records({"slow": slow}), DecodeSettings(SIZE), decoders=1) as videos:
        next(videos)
        os.kill(reading(slow)[0], signal.SIGKILL)
        (tmp_path / "other.mp4").write_bytes(clips["a"].read_bytes())
        (tmp_path / "other.mp4").replace(slow)
        *_, end = videos
    assert (end.result.status, end.result.reason) == ("failed", "changed")


def test_a_process_is_replaced_after_so_many_videos(clips, monkeypatch):
    monkeypatch.setattr(ahead_module, "VIDEOS_PER_PROCESS", 5)
    record = records({"b": clips["b"]})[0]
    before = set(workers_of(os.getpid()))
    frames, pids = 0, set()
    with decode_ahead([record] * 40, DecodeSettings(32), decoders=2) as videos:
        for event in videos:
            frames += len(event.pts_seconds) if isinstance(event, DecodedFrames) else 0
            pids |= set(workers_of(os.getpid()))
    assert frames == 40 * FRAMES["b"]
    assert len(pids - before) >= 4  # two at a time, and in place of most one that came later


def test_processes_are_used_again_and_a_dead_one_is_replaced(clips):
    few = {"b": clips["b"]}
    decode(few, decoders=1)
    process = ahead_module._idle[-1]._process
    decode(few, decoders=1)
    assert ahead_module._idle[-1]._process is process
    process.kill()
    process.join()
    assert len(decode(few, decoders=1)["b"][1]) == FRAMES["b"]


def test_without_room_for_frames_no_decoder_is_lost(clips):
    few = {"b": clips["b"]}
    decode(few, decoders=1)
    idle = list(ahead_module._idle)
    with pytest.raises(DecoderError, match=r"cannot get \d+ MB for decoded frames"):
        decode(few, DecodeSettings(1 << 30), decoders=1)
    assert ahead_module._idle == idle


def test_decoders_are_kept_where_this_process_may_open_no_more_files(clips):
    few = {"b": clips["b"]}
    decode(few, decoders=1)
    idle = list(ahead_module._idle)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            decode(few, decoders=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert ahead_module._idle == idle
    decode(few, decoders=1)


def test_leaving_early_ends_what_is_being_decoded(clips, slow):
    with decode_ahead(records({"slow": slow}), DecodeSettings(SIZE), decoders=1) as videos:
        next(videos)
        assert reading(slow)
    assert not reading(slow)


@pytest.mark.parametrize("size", [32, 224, 336, 1024, 4096])
@pytest.mark.parametrize("decoders", [1, 16])
def test_the_pool_is_bounded_whatever_the_size_of_a_frame(size, decoders):
    shape = PoolShape.of_frames(size, decoders)
    assert shape.chunks >= 2 * decoders
    assert shape.num_bytes == shape.chunks * CHUNK_FRAMES * size * size * 3
    assert shape.num_bytes <= MOST_BYTES or shape.chunks == 2 * decoders


def test_the_pool_is_shared_also_where_there_is_no_memfd(monkeypatch):
    monkeypatch.delattr("os.memfd_create", raising=False)
    pool = FramePool(PoolShape(2, 8))
    attach(pool.descriptor, pool.shape)[1, 0] = 7
    assert (pool.frames(1, 1, (8, 8)) == 7).all()


def test_memory_that_cannot_be_had_is_told_of(clips):
    with pytest.raises(DecoderError, match=r"cannot get \d+ MB .*fewer --decoders"):
        decode({"b": clips["b"]}, DecodeSettings(1 << 28), decoders=1)


def test_relative_paths_start_from_the_current_folder_even_if_that_changes(clips, monkeypatch):
    for name in ("b", "c"):
        folder = clips["b"].parent if name == "b" else clips["b"].parent.parent
        monkeypatch.chdir(folder)
        relative = {name: clips[name].relative_to(folder)}
        assert len(decode(relative, decoders=1)[name][1]) == FRAMES[name]
