"""Videos that are tried again, after their files were replaced or not."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from clips import write_clip
from commands import run, told
from extracting import config, files, manifest, moving_noise
from processes import start

from memfeat.cache import Cache, repair, verify
from memfeat.extraction import extract

PAIRS = 5  # shards of a whole and a cut video each
WHOLE = [f"whole{number}" for number in range(PAIRS)]
CUT = [f"cut{number}" for number in range(PAIRS)]
NAMES = [name for pair in zip(WHOLE, CUT, strict=True) for name in pair]
RETRY = {"retry_failed": ("truncated",)}


@pytest.fixture(scope="module")
def folder(clips, tmp_path_factory) -> Path:
    """Of each video the file before, in `old`, and the one that has replaced it since."""
    folder = tmp_path_factory.mktemp("replaced")
    (folder / "old").mkdir()
    muxer = {"movflags": "faststart"}
    for number, (whole, cut) in enumerate(zip(WHOLE, CUT, strict=True)):
        shutil.copy(clips / f"v{number}.mp4", folder / f"{whole}.mp4")
        clip = write_clip(folder / f"{cut}.mp4", moving_noise(24, number), muxer=muxer)
        content = clip.read_bytes()
        (folder / "old" / clip.name).write_bytes(content[: len(content) * 4 // 10])
        clip.write_bytes(content[: len(content) * 8 // 10])
    (folder / "cut4.mp4").write_bytes(b"no video any more")
    shutil.copy(folder / "old/cut3.mp4", folder / "cut3.mp4")  # the same file again
    return folder


@pytest.fixture(scope="module")
def first(folder, tmp_path_factory) -> Path:
    """The cache of the files before."""
    old, cache = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("first")
    for path in (*folder.glob("whole*"), *(folder / "old").iterdir()):
        shutil.copy(path, old)
    extract(manifest(old, *NAMES), config(cache))
    return cache


@pytest.fixture(scope="module")
def retried(folder, first, tmp_path_factory) -> Path:
    return retry(folder, shutil.copytree(first, tmp_path_factory.mktemp("retried") / "cache"))


def retry(folder: Path, cache: Path, **changes) -> Path:
    extract(manifest(folder, *NAMES), config(cache, **RETRY, **changes))
    return cache


def assert_holds_the_new_files(cache: Path, folder: Path, new: Path) -> None:
    """Compare a cache with one that never held others."""
    extract(manifest(folder, *NAMES), config(new))
    found, expected = Cache.open(cache), Cache.open(new)
    said = {name: (e.status, e.reason, e.num_frames) for name, e in found.entries.items()}
    assert said == {n: (e.status, e.reason, e.num_frames) for n, e in expected.entries.items()}
    assert said["cut4"] == ("failed", "unreadable", 0)
    assert {said[name][:2] for name in CUT[:4]} == {("partial", "truncated")}
    np.testing.assert_array_equal(found.load(NAMES[:-1]).values, expected.load(NAMES[:-1]).values)


def test_what_a_video_was_tried_again_for_counts_though_its_status_is_the_same_or_worse(
    folder, first, retried, tmp_path
):
    assert Cache.open(first).entries["cut0"].num_frames < 12
    assert Cache.open(retried).entries["cut0"].num_frames > 12
    assert_holds_the_new_files(retried, folder, tmp_path)
    reasons = told("status", retried, code=3)["reasons"]
    assert reasons == {"failed": {"unreadable": 1}, "partial": {"truncated": 4}}


def test_a_first_attempt_is_written_as_ever_and_what_came_out_as_before_is_not_written(
    folder, first, retried, tmp_path
):
    assert files(first).items() <= files(retried).items()
    attempts = {}
    for path in retried.glob("shard-*.h5"):
        with h5py.File(path) as shard:
            assert ("attempt" in shard) == (path.name not in files(first))
            if "attempt" in shard:
                ids = shard["video_ids"].asstr()[:]
                attempts |= dict(zip(ids, shard["attempt"][:].tolist(), strict=True))
    assert attempts == {"cut0": 1, "cut1": 1, "cut2": 1, "cut4": 1}
    again = retry(folder, shutil.copytree(retried, tmp_path / "again"))
    assert files(again) == files(retried)


def test_a_retry_that_was_interrupted_goes_on_to_the_same_bytes(folder, first, retried, tmp_path):
    cache = shutil.copytree(first, tmp_path / "cache")
    retry(folder, cache, limit=2 * 2)
    assert len(files(first)) < len(files(cache)) < len(files(retried))
    retry(folder, cache)
    assert files(cache) == files(retried)


def test_two_retries_at_once_make_what_one_makes(folder, first, retried, tmp_path):
    cache = shutil.copytree(first, tmp_path / "cache")
    started = [start(retry, folder, cache) for _ in range(2)]
    for process in started:
        process.join()
        assert process.exitcode == 0
    assert files(cache) == files(retried)


def test_repair_drops_what_was_replaced_and_nothing_else(folder, retried, tmp_path):
    cache = shutil.copytree(retried, tmp_path / "cache")
    result = run("cache", "repair", cache)
    assert result.exit_code == 0
    assert "4 superseded entries dropped" in result.stderr
    ids = []
    for path in cache.glob("shard-*.h5"):
        with h5py.File(path) as shard:
            ids += shard["video_ids"].asstr()[:].tolist()
    assert sorted(ids) == sorted(NAMES)
    assert verify(cache) == {}
    assert_holds_the_new_files(cache, folder, tmp_path / "new")
    before = files(cache)
    assert repair(cache).superseded == 0
    extract(manifest(folder, *NAMES), config(cache, device="cpu,cpu", **RETRY))
    assert files(cache) == before
