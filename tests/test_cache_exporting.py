"""A cache's features in one NPZ: read by NumPy alone, and imported again."""

import json

import made_up
import numpy as np
import pytest
from commands import ok, run

from memfeat.cache import Cache, CacheSpec, export_features, write_shard
from memfeat.cache.exporting import VIDEOS_AT_ONCE
from memfeat.errors import CacheError, DamagedShardError
from memfeat.manifest import VideoRecord, write_manifest

DIM = 8
LENGTHS = {"b": 3, "a@ü+1": 5, "c": 1}


def spec() -> CacheSpec:
    return made_up.spec(DIM, encoder="toy", normalisation="l2", weights="random")


def video(name, frames, **changes):
    covers = np.arange(frames, dtype=np.int32) % 4 + 1
    return made_up.encoded(name, frames, DIM, covers=covers, **changes)


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "cache"
    write_shard(folder, spec(), [video(name, frames) for name, frames in LENGTHS.items()])
    failed = video("gone", 0, status="failed", reason="missing")
    partial = video("half", 2, status="partial", reason="truncated")
    write_shard(folder, spec(), [failed, partial])
    return folder


def test_numpy_reads_what_the_cache_holds_and_who_made_it(cache, tmp_path):
    summary = export_features(cache, tmp_path / "f.npz", wanted=["c", "b", "gone", "a@ü+1"])
    assert (summary.videos, summary.rows, summary.left_out) == (3, 9, ("gone",))
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        arrays = dict(found)
    assert arrays["video_ids"].tolist() == ["c", "b", "a@ü+1"]
    assert arrays["features"].dtype == np.float16
    for index, name in enumerate(arrays["video_ids"]):
        own = slice(*arrays["offsets"][index : index + 2])
        wanted = video(name, LENGTHS[name])
        np.testing.assert_array_equal(arrays["features"][own], wanted.embeddings)
        np.testing.assert_array_equal(arrays["pts_seconds"][own], wanted.pts_seconds)
        np.testing.assert_array_equal(arrays["covers"][own], wanted.covers)
    assert CacheSpec.model_validate_json(arrays["spec"].item()) == spec()
    assert "RANDOM WEIGHTS" in arrays["made_by"].item()


def test_the_same_cache_is_the_same_bytes_a_few_videos_at_a_time(tmp_path):
    names = [f"v{number:03d}" for number in range(2 * VIDEOS_AT_ONCE + 1)]
    write_shard(tmp_path / "cache", spec(), [video(name, 2) for name in names])
    told: list[str] = []
    export_features(tmp_path / "cache", tmp_path / "1.npz", on_video=told.append)
    export_features(tmp_path / "cache", tmp_path / "2.npz")
    assert told == names
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz") as found:
        whole = np.concatenate([video(name, 2).embeddings for name in names])
        np.testing.assert_array_equal(found["features"], whole)


def test_what_is_exported_can_be_imported(cache, tmp_path):
    exported = ok("cache", "export", cache, "-o", tmp_path / "f.npz", "--partial")
    assert exported.stdout == f"{tmp_path}/f.npz\n"
    assert "4 videos, 11 rows" in exported.stderr
    assert "RANDOM WEIGHTS" in exported.stderr
    arguments = ["--name", "toy", "--source", "a test", "--normalise", "none"]
    ok("cache", "import", tmp_path / "f.npz", *arguments, "-o", tmp_path / "again")
    before = Cache.open(cache).load(["c", "half", "b"])
    after = Cache.open(tmp_path / "again").load(["c", "half", "b"])
    np.testing.assert_array_equal(after.values, before.values)


def test_videos_of_the_manifest_without_features_are_named_with_exit_code_3(cache, tmp_path):
    records = [
        VideoRecord(video_id=name, path=tmp_path / "x.mp4", score=None, split="test")
        for name in ("c", "gone", "never")
    ]
    write_manifest(tmp_path / "m.csv", records)
    where = [cache, "-o", tmp_path / "f.npz", "--manifest", tmp_path / "m.csv"]
    result = run("cache", "export", *where, "--json")
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert (summary["videos"], summary["left_out"]) == (1, ["gone", "never"])


def test_nothing_is_written_of_a_damaged_cache_or_of_no_video(cache, tmp_path):
    with pytest.raises(CacheError, match="none of the 1 videos wanted"):
        export_features(cache, tmp_path / "f.npz", wanted=["gone"])
    shard = Cache.open(cache).entries["b"].shard
    at = shard.read_bytes().rfind(video("b", 3).embeddings[1].tobytes())
    with shard.open("r+b") as file:
        file.seek(at)
        file.write(b"\x01")
    with pytest.raises(DamagedShardError, match="checksum"):
        export_features(cache, tmp_path / "f.npz")
    assert not list(tmp_path.glob("*.npz"))
