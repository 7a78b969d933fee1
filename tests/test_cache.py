import fcntl
import os
import resource
from contextlib import ExitStack
from dataclasses import replace

import h5py
import made_up
import numpy as np
import pytest

from memfeat.cache import Cache, CacheSpec, EncodedVideo, repair, verify, write_shard
from memfeat.cache.shard import open_shard
from memfeat.cache.shared_table import shared_table
from memfeat.errors import CacheError
from memfeat.storage import write_atomically

DIM = 16


def spec(**changes) -> CacheSpec:
    return made_up.spec(DIM, **({"encoder": "toy", "normalisation": "l2"} | changes))


def video(name, frames=3, **changes):
    return made_up.encoded(name, frames, DIM, **changes)


def failed(name: str) -> EncodedVideo:
    return video(name, 0, status="failed", reason="missing")


@pytest.fixture
def folder(tmp_path):
    write_shard(tmp_path, spec(), [video("a", 3), failed("b"), video("ç @+1", 5)])
    write_shard(tmp_path, spec(), [video("d", 1, status="partial", reason="truncated")])
    return tmp_path


def test_what_is_written_is_read_back_in_the_order_asked_for(folder):
    table = Cache.open(folder).load(["d", "ç @+1", "a"])
    assert table.video_ids == ("d", "ç @+1", "a")
    assert table.lengths.tolist() == [1, 5, 3]
    assert table.values.flags.c_contiguous
    for index, (name, frames) in enumerate([("d", 1), ("ç @+1", 5), ("a", 3)]):
        np.testing.assert_array_equal(table.frames(index), video(name, frames).embeddings)
    np.testing.assert_array_equal(table.pts_seconds[1:6], np.arange(5) / 25)


def test_a_cache_knows_each_videos_status_and_loads_only_whole_ones_unasked(folder):
    cache = Cache.open(folder)
    assert {v: (e.status, e.reason) for v, e in cache.entries.items()} == {
        "a": ("ok", ""),
        "b": ("failed", "missing"),
        "ç @+1": ("ok", ""),
        "d": ("partial", "truncated"),
    }
    assert cache.load().video_ids == ("a", "ç @+1")
    assert cache.usable(partial=True) == ("a", "d", "ç @+1")
    assert cache.summary()["videos"] == {"ok": 2, "partial": 1, "failed": 1}
    assert cache.summary()["frames"] == 9


def test_one_shard_is_the_same_bytes_whoever_writes_it(tmp_path):
    videos = [video("a"), video("b", 7)]
    first = write_shard(tmp_path / "1", spec(), videos)
    second = write_shard(tmp_path / "2", spec(), videos)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_a_shards_name_follows_from_spec_and_ids(tmp_path):
    names = {
        write_shard(tmp_path / "1", spec(), [video("a")]).name,
        write_shard(tmp_path / "2", spec(), [video("b")]).name,
        write_shard(tmp_path / "3", spec(batch_size=8), [video("a")]).name,
    }
    assert len(names) == 3


def test_a_shard_is_read_while_whoever_put_it_in_place_still_locks_it(folder):
    with ExitStack() as stack:
        for path in folder.glob("shard-*"):
            fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_EX)
        assert Cache.open_whole(folder)[1] == ()
        assert Cache.open(folder).load().video_ids == ("a", "ç @+1")


def test_where_no_more_files_can_be_opened_no_shard_is_taken_for_damaged(folder):
    path = next(folder.glob("shard-*"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(path, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as error, open_shard(path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not isinstance(error.value, CacheError)
    assert error.value.filename == str(path)


def test_a_retried_video_that_works_now_counts(folder):
    write_shard(folder, spec(), [video("b", 2)])
    assert Cache.open(folder).entries["b"].status == "ok"
    assert Cache.open(folder).load(["b"]).lengths.tolist() == [2]


@pytest.mark.parametrize("other", range(6))
def test_the_latest_attempt_counts_whatever_the_names_of_the_shards(tmp_path, other):
    cut = {"status": "partial", "reason": "truncated"}
    names = [
        write_shard(tmp_path, spec(), [video("a", 3 + n, **cut, attempt=n), video(f"{other}{n}")])
        for n in range(3)
    ]
    assert len(set(names)) == 3
    assert Cache.open(tmp_path).entries["a"].num_frames == 5
    write_shard(tmp_path, spec(), [replace(failed("a"), attempt=3)])
    assert Cache.open(tmp_path).entries["a"].reason == "missing"


def test_frame_sizes_are_kept_where_one_is_known_and_absent_where_none_is(tmp_path):
    sizes = {"a": (1080, 1920), "b": (0, 0), "c": (640, 480)}
    path = write_shard(tmp_path, spec(), [video(n, frame_size=s) for n, s in sizes.items()])
    with h5py.File(path) as file:
        assert file["frame_size"][()].tolist() == list(map(list, sizes.values()))
    cache = Cache.open(tmp_path)
    assert {name: entry.frame_size for name, entry in cache.entries.items()} == sizes
    assert cache.load(["c", "a", "b"]).frame_sizes.tolist() == [[640, 480], [1080, 1920], [0, 0]]
    with shared_table(cache, ["b", "a"], tmp_path) as table:
        assert table.open().frame_sizes.tolist() == [[0, 0], [1080, 1920]]
    write_shard(tmp_path, spec(), [failed("d"), video("b", attempt=1)])
    assert repair(tmp_path).superseded == 1, "which writes the shard anew without the earlier b"
    kept = Cache.open(tmp_path)
    assert [kept.entries[name].frame_size for name in "acb"] == [sizes["a"], sizes["c"], (0, 0)]
    assert verify(tmp_path) == {}
    with h5py.File(write_shard(tmp_path / "other", spec(), [video("a")])) as file:
        assert "frame_size" not in file


@pytest.mark.parametrize("size", [(-1, 5), (0, 5), (5, 0)])
def test_an_impossible_frame_size_is_damage(tmp_path, size):
    write_shard(tmp_path, spec(), [video("a", frame_size=size)])
    with pytest.raises(CacheError, match=f"has frames of {size[0]} x {size[1]} pixels: 'a'"):
        Cache.open(tmp_path)


def test_attempts_of_the_same_videos_are_different_shards(tmp_path):
    paths = [write_shard(tmp_path, spec(), [video("a", attempt=n)]) for n in range(3)]
    assert len(set(paths)) == 3
    other = write_shard(tmp_path / "other", spec(), [video("a"), video("2")])
    assert other.name not in {path.name for path in paths}
    assert verify(tmp_path) == {}


def test_embeddings_lie_contiguous_and_uncompressed(folder):
    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            assert file["embeddings"].chunks is None
            assert file["embeddings"].dtype == np.float16
            stored = file["embeddings"][()].tobytes()
        assert stored in path.read_bytes()


def hdf5_frames(folder) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read every video's embeddings and times with h5py alone."""
    frames = {}
    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            starts, names = file["offsets"][()], file["video_ids"][()]
            for name, start, stop in zip(names, starts[:-1], starts[1:], strict=True):
                frames[name.decode()] = (
                    file["embeddings"][start:stop],
                    file["pts_seconds"][start:stop],
                )
    return frames


def assert_is_hdf5s(table, folder):
    frames = hdf5_frames(folder)
    assert table.lengths.tolist() == [len(frames[name][0]) for name in table.video_ids]
    for index, name in enumerate(table.video_ids):
        rows = slice(*table.offsets[index : index + 2])
        np.testing.assert_array_equal(table.values[rows], frames[name][0])
        np.testing.assert_array_equal(table.pts_seconds[rows], frames[name][1])


def test_any_videos_in_any_order_are_what_hdf5_reads(tmp_path):
    names = [f"v{i}" for i in range(12)]
    for start in range(0, 12, 4):
        write_shard(tmp_path, spec(), [video(n, 1 + int(n[1:])) for n in names[start : start + 4]])
    cache, generator = Cache.open(tmp_path), np.random.default_rng(0)
    assert_is_hdf5s(cache.load(names), tmp_path)
    for size in (0, 1, 2, 5, 12, 12, 12):
        assert_is_hdf5s(cache.load(generator.permutation(names)[:size].tolist()), tmp_path)
    assert_is_hdf5s(cache.load(["v1", "v2", "v1", "v1", "v2"]), tmp_path)


def test_a_shard_with_something_before_its_first_byte_is_read_right(tmp_path):
    path = write_shard(tmp_path, spec(), [video("a"), video("b", 5)])
    moved = relaid(path, userblock_size=1024)
    assert moved != path.read_bytes()
    path.write_bytes(moved)
    assert_is_hdf5s(Cache.open(tmp_path).load(["b", "a"]), tmp_path)
    assert verify(tmp_path) == {}


def relaid(path, **how) -> bytes:
    """The same shard with its bytes in other places."""
    other = path.with_suffix(".other")
    with h5py.File(path) as old, h5py.File(other, "w", **how) as new:
        for name in reversed(list(old)):
            old.copy(name, new)
        for name in old.attrs:
            new.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
    content = other.read_bytes()
    other.unlink()
    return content


@pytest.mark.parametrize("in_place", [True, False])
def test_a_shard_written_again_with_the_same_videos_is_looked_at_anew(tmp_path, in_place):
    path = write_shard(tmp_path, spec(), [video("a", 3), failed("c"), video("b", 5)])
    cache = Cache.open(tmp_path)
    content, before = relaid(path), hdf5_frames(tmp_path)
    assert content.index(before["b"][0].tobytes()) != path.read_bytes().index(
        before["b"][0].tobytes()
    )
    if in_place:
        path.write_bytes(content)
    else:
        write_atomically(path, content)
    assert_is_hdf5s(cache.load(["b", "a"]), tmp_path)


@pytest.mark.parametrize("videos", [[("a", 4), ("b", 4)], [("b", 5), ("a", 3)], [("a", 3)]])
def test_a_shard_written_again_with_other_frames_is_refused(tmp_path, videos):
    path = write_shard(tmp_path, spec(), [video("a", 3), video("b", 5)])
    cache = Cache.open(tmp_path)
    other = write_shard(tmp_path / "other", spec(), [video(*each) for each in videos])
    other.replace(path)
    with pytest.raises(CacheError, match=rf"{path.name} was meanwhile written again, with other f"):
        cache.load(["a"])


def test_a_shard_made_differently_since_is_refused(tmp_path):
    path = write_shard(tmp_path, spec(), [video("a", 3)])
    cache = Cache.open(tmp_path)
    write_shard(tmp_path / "other", spec(encoder="other"), [video("a", 3)]).replace(path)
    with pytest.raises(CacheError, match=r"was meanwhile made differently: encoder is 'other', no"):
        cache.load(["a"])


@pytest.mark.parametrize("keep", [0, 2000, -1, None])
def test_a_shard_cut_short_or_gone_since_is_refused(tmp_path, keep):
    path = write_shard(tmp_path, spec(), [video("a", 3), video("b", 5)])
    cache = Cache.open(tmp_path)
    content = path.read_bytes()[:keep]
    path.unlink()
    if keep is not None:
        path.write_bytes(content)
    with pytest.raises(CacheError, match=rf"{path.name} is damaged: "):
        cache.load(["a"])


def test_missing_and_failed_videos_are_named(folder):
    cache = Cache.open(folder)
    with pytest.raises(CacheError, match=r"2 of 3 videos are not in .*, 'x' first; `memfeat ext"):
        cache.load(["a", "x", "y"])
    with pytest.raises(CacheError, match=r"video 'b' failed \(missing\)"):
        cache.load(["b"])


def test_an_empty_folder_says_how_to_make_a_cache(tmp_path):
    with pytest.raises(CacheError, match=f"{tmp_path} holds no cache; `memfeat extract --cache"):
        Cache.open(tmp_path)
    with pytest.raises(CacheError, match="holds no cache"):
        verify(tmp_path / "nowhere")


def test_a_cache_and_its_table_show_themselves_in_a_line(folder):
    cache = Cache.open(folder)
    assert repr(cache) == f"<Cache {folder}: 4 videos; {spec().describe()}>"
    found = repr(cache.load(["a", "d"]))
    assert found == f"<FeatureTable of 2 videos, 4 frames; {spec().describe()}>"


def test_random_weights_are_named_as_such():
    assert "RANDOM WEIGHTS" in spec().describe()
    trained = spec(weights="openai", trained_on="image-text pairs").describe()
    assert trained == "toy, openai weights (image-text pairs), 16-d"


@pytest.mark.parametrize("keep", [0, 7, 100, 2000, -1])
def test_a_truncated_shard_is_refused_and_can_be_set_aside(folder, keep):
    path = sorted(folder.glob("*.h5"))[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CacheError, match=rf"{path.name} is damaged: .*`memfeat cache rep"):
        Cache.open(folder)
    cache = Cache.open(folder, damaged_ok=True)
    assert list(cache.damaged) == [path]
    assert len(cache.shards) == 1
    assert list(verify(folder)) == [path]
