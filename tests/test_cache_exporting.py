"""A cache's features in other formats: read by others, and imported again."""

import json
import operator

import made_up
import numpy as np
import pytest
from commands import ok, run

from memfeat.cache import Cache, CacheSpec, export_features, exporting, verify, write_shard
from memfeat.cache.exporting import VIDEOS_AT_ONCE
from memfeat.errors import CacheError, DamagedShardError
from memfeat.manifest import VideoRecord, write_manifest

DIM = 8
LENGTHS = {"b": 3, "a@ü+1": 5, "c": 1}


def spec() -> CacheSpec:
    return made_up.spec(DIM, encoder="toy", normalisation="l2", weights="random")


def video(name, frames, **changes):
    covers = np.arange(frames, dtype=np.int32) % 4 + 1
    size = (640 + frames, 480)
    return made_up.encoded(name, frames, DIM, covers=covers, frame_size=size, **changes)


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


@pytest.mark.parametrize("output", ["f.npz", "f"])
def test_what_is_exported_can_be_imported(cache, tmp_path, output):
    exported = ok("cache", "export", cache, "-o", tmp_path / output, "--partial")
    assert exported.stdout == f"{tmp_path / output}\n"
    assert "4 videos, 11 rows" in exported.stderr
    assert "RANDOM WEIGHTS" in exported.stderr
    for number, arguments in enumerate([[], ["--name", "other", "--normalise", "none"]]):
        result = ok("cache", "import", tmp_path / output, *arguments, "-o", tmp_path / f"{number}")
        assert ("'other' is not kept" in result.stderr) == bool(arguments)
        before, after = (Cache.open(folder) for folder in (cache, tmp_path / f"{number}"))
        assert after.spec == before.spec
        one, other = (each.load(["c", "half", "b", "a@ü+1"]) for each in (before, after))
        for name in ("values", "pts_seconds", "covers", "offsets"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
        names = "status", "reason", "source_sha256", "source_bytes", "frame_size"
        of = operator.attrgetter(*names)
        assert {n: of(e) for n, e in after.entries.items()} == {
            n: of(e) for n, e in before.entries.items() if n != "gone"
        }
        assert verify(after.folder) == {}
    again = ok("cache", "import", tmp_path / output, "-o", tmp_path / "0")
    assert "4 there already" in again.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("covers", np.zeros(9, np.int32), "covers are not all from 1 to"),
        ("pts_seconds", np.zeros(3), "pts_seconds is float64 (3,)"),
        ("status", np.array(["ok", "fine", "ok"]), "a status is 'fine', not one of ok"),
        ("reason", np.array(["", "", "why not"]), "a reason is 'why not', which is not one word"),
        ("reason", np.array(["", "", "missing"]), "a video is ok, and the reason is 'missing'"),
        ("frame_size", np.ones((3, 2)), "frame_size is float64 (3, 2)"),
        ("frame_size", np.full((3, 2), 1 << 31), "a video has frames of 2147483648 x 2147483648"),
        ("spec", np.array("{}"), "its spec is none of this memfeat's"),
        ("features", np.ones((9, DIM), np.float16), "a vector's length is 2.82843, not 1"),
    ],
)
def test_an_export_that_was_changed_is_refused(cache, tmp_path, name, value, message):
    export_features(cache, tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        np.savez(tmp_path / "changed.npz", **dict(file) | {name: value})
    result = run("cache", "import", tmp_path / "changed.npz", "-o", tmp_path / "again")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "again").exists()


def test_a_folder_has_a_file_a_video_that_numpy_reads(tmp_path):
    names = {".hidden": 2, "a@ü+1": 5}
    write_shard(tmp_path / "cache", spec(), [video(name, length) for name, length in names.items()])
    export_features(tmp_path / "cache", tmp_path / "f")
    files = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert files == [".hidden.npy", "a@ü+1.npy", "memfeat.npz"]
    for name, length in names.items():
        found = np.load(tmp_path / "f" / f"{name}.npy")
        np.testing.assert_array_equal(found, video(name, length).embeddings)
    ok("cache", "import", tmp_path / "f", "-o", tmp_path / "again")
    assert Cache.open(tmp_path / "again").usable() == (".hidden", "a@ü+1")
    np.save(tmp_path / "f" / "a@ü+1.npy", video("a@ü+1", 4).embeddings)
    result = run("cache", "import", tmp_path / "f", "-o", tmp_path / "other")
    assert result.exit_code == 1
    assert f"is (4, {DIM}), and memfeat.npz beside it says 5 rows" in result.stderr
    (tmp_path / "f" / "a@ü+1.npy").unlink()
    result = run("cache", "import", tmp_path / "f", "-o", tmp_path / "other")
    assert "is not there; export the features again" in result.stderr


def test_an_export_of_an_early_version_is_imported_without_frame_sizes(cache, tmp_path):
    export_features(cache, tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        arrays = {name: array for name, array in file.items() if name != "frame_size"}
    np.savez(tmp_path / "early.npz", **arrays)
    ok("cache", "import", tmp_path / "early.npz", "-o", tmp_path / "again")
    entries = Cache.open(tmp_path / "again").entries
    assert {name: entry.frame_size for name, entry in entries.items()} == dict.fromkeys(
        LENGTHS, (0, 0)
    )


@pytest.mark.parametrize("kind", ["float64", "U9"])
def test_offsets_of_an_exported_folder_that_are_no_whole_numbers_are_refused(cache, tmp_path, kind):
    export_features(cache, tmp_path / "f")
    with np.load(tmp_path / "f" / "memfeat.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "f" / "memfeat.npz", **arrays | {"offsets": arrays["offsets"].astype(kind)})
    result = run("cache", "import", tmp_path / "f", "-o", tmp_path / "again")
    assert result.exit_code == 1
    assert f"memfeat.npz: offsets is {np.dtype(kind)}; give whole numbers" in result.stderr


def test_parquet_has_a_row_a_frame(cache, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for number in (1, 2):
        export_features(cache, tmp_path / f"{number}.parquet", wanted=["c", "half"], partial=True)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    table = parquet.read_table(tmp_path / "1.parquet")
    found = table.to_pydict()
    assert found["video_id"] == ["c", "half", "half"]
    assert found["status"] == ["ok", "partial", "partial"]
    whole = [video("c", 1), video("half", 2)]
    np.testing.assert_array_equal(
        np.array(found["features"]), np.concatenate([each.embeddings for each in whole])
    )
    for name in ("pts_seconds", "covers"):
        assert found[name] == np.concatenate([getattr(each, name) for each in whole]).tolist()
    assert CacheSpec.model_validate_json(table.schema.metadata[b"spec"]) == spec()
    assert b"RANDOM WEIGHTS" in table.schema.metadata[b"made_by"]


@pytest.mark.parametrize("output", ["f.npz", "f.parquet", "f"])
def test_no_more_is_in_memory_than_a_few_videos(tmp_path, monkeypatch, output):
    if output.endswith("parquet"):
        pytest.importorskip("pyarrow")
    lengths = {f"v{number:03d}": 1 + 7 * (number % 3) for number in range(30)}
    write_shard(tmp_path / "cache", spec(), [video(name, n) for name, n in lengths.items()])
    monkeypatch.setattr(exporting, "BYTES_AT_ONCE", 10 * 2 * DIM)  # ten rows; one video has fifteen
    loaded: list[list[str]] = []
    load = Cache.load

    def noting(self, video_ids):
        loaded.append(list(video_ids))
        return load(self, video_ids)

    monkeypatch.setattr(Cache, "load", noting)
    summary = export_features(tmp_path / "cache", tmp_path / output)
    assert summary.rows == sum(lengths.values())
    assert [name for names in loaded for name in names] == list(lengths)
    assert all(len(names) == 1 or sum(lengths[n] for n in names) <= 10 for names in loaded)
    assert max(len(names) for names in loaded) == 2


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("f.h5", "end its name in .npz or .parquet, or in nothing for a folder"),
        ("full", "is a folder that is there already"),
        ("file", "is a file, and would be a folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(cache, tmp_path, output, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.npy").touch()
    (tmp_path / "file").touch()
    result = run("cache", "export", cache, "-o", tmp_path / output)
    assert result.exit_code == 2
    assert message in result.stderr


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
