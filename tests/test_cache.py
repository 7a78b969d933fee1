import dataclasses

import h5py
import made_up
import numpy as np
import pytest

from memfeat.cache import Cache, CacheSpec, EncodedVideo, verify, write_shard
from memfeat.cache.shard import text_attribute
from memfeat.errors import CacheError
from memfeat.files import write_atomically

DIM = 16


def spec(**changes) -> CacheSpec:
    return made_up.spec(DIM, **({"encoder": "toy", "normalisation": "l2"} | changes))


def video(name: str, frames: int = 3, **changes) -> EncodedVideo:
    generator = np.random.default_rng(sum(name.encode()))
    vectors = generator.standard_normal((frames, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pts_seconds = np.arange(frames) / 25
    return EncodedVideo(name, vectors.astype(np.float16), pts_seconds, **changes)


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


def test_a_retried_video_that_works_now_counts(folder):
    write_shard(folder, spec(), [video("b", 2)])
    assert Cache.open(folder).entries["b"].status == "ok"
    assert Cache.open(folder).load(["b"]).lengths.tolist() == [2]


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


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoder", "other"), ("weights_sha256", "1" * 64), ("activation", "quickgelu")],
)
def test_mixed_specs_are_refused_naming_field_and_both_values(folder, field, value):
    other = spec(**{field: value})
    write_shard(folder / "other", other, [video("z")]).rename(folder / "shard-other.h5")
    with pytest.raises(CacheError) as read:
        Cache.open(folder)
    with pytest.raises(CacheError) as written:
        write_shard(folder, spec(encoder="third"), [video("z")])
    for word in (field, repr(value), repr(getattr(spec(), field))):
        assert word in str(read.value)
    assert "was meanwhile given shards made differently" in str(written.value)


def test_random_weights_are_named_as_such():
    assert "RANDOM WEIGHTS" in spec().describe()
    trained = spec(weights="openai", trained_on="image-text pairs").describe()
    assert trained == "toy, openai weights (image-text pairs), 16-d"


def test_verify_finds_every_flipped_bit_of_the_data(tmp_path):
    path = write_shard(tmp_path, spec(), [video("a", 20), video("b", 20)])
    assert verify(tmp_path) == {}
    whole = path.read_bytes()
    with h5py.File(path) as file:
        spans = [(file[n].id.get_offset(), file[n].nbytes) for n in file if file[n].nbytes]
    generator = np.random.default_rng(0)
    for start, size in spans:
        for _ in range(12):
            damaged = bytearray(whole)
            damaged[start + generator.integers(size)] ^= 1 << generator.integers(8)
            path.write_bytes(damaged)
            assert list(verify(tmp_path)) == [path]


def test_verify_finds_vectors_that_are_not_unit_length(tmp_path):
    wrong = dataclasses.replace(video("a"), embeddings=np.full((3, DIM), 0.5, np.float16))
    path = write_shard(tmp_path, spec(), [wrong])
    assert "a vector's length is 2, not 1" in verify(tmp_path)[path]


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


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace_embeddings(file, **how):
    data = file["embeddings"][()]
    del file["embeddings"]
    return file.create_dataset("embeddings", data=None if "external" in how else data, **how)


def odd_float() -> h5py.h5t.TypeID:
    """Two bytes, which numpy would call float16, but with fewer bits in the exponent."""
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 11, 4, 0, 11)
    return kind


def retyped(file, name, kind):
    data = file.pop(name)[()]
    space = h5py.h5s.create_simple(data.shape)
    h5py.h5d.create(file.id, name.encode(), kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, data)


def replace(file, name, data):
    del file[name]
    file[name] = data


def respec(file, old, new):
    text = file.attrs["spec"].decode()
    assert old in text
    file.attrs.create("spec", **text_attribute(text.replace(old, new)))


def of_variable_length(file, name):
    texts = file.pop(name)[()].tolist()
    file.create_dataset(name, data=texts, dtype=h5py.string_dtype("utf-8"))


STRANGE = {
    "external storage": lambda f: replace_embeddings(
        f, shape=(8, DIM), dtype="f2", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    ),
    "a compression filter": lambda f: replace_embeddings(f, compression="gzip"),
    "chunks": lambda f: replace_embeddings(f, chunks=(1, DIM)),
    "an external link": lambda f: (
        f.pop("reason"),
        f.__setitem__("reason", h5py.ExternalLink("other.h5", "/x")),
    ),
    "a soft link": lambda f: (f.pop("reason"), f.__setitem__("reason", h5py.SoftLink("/status"))),
    "a missing dataset": lambda f: f.pop("offsets"),
    "an unknown dataset": lambda f: f.create_dataset("extra", data=[1]),
    "a shape bomb": lambda f: (
        f.pop("embeddings"),
        f.create_dataset("embeddings", shape=(2**27, DIM), dtype="f2"),
    ),
    "a number type of its own": lambda f: retyped(f, "embeddings", odd_float()),
    "numbers the other way round": lambda f: retyped(f, "embeddings", h5py.h5t.IEEE_F16BE),
    "times the other way round": lambda f: retyped(f, "pts_seconds", h5py.h5t.IEEE_F64BE),
    "times in single precision": lambda f: retyped(f, "pts_seconds", h5py.h5t.IEEE_F32LE),
    "offsets with fractions": lambda f: retyped(f, "offsets", h5py.h5t.IEEE_F64LE),
    "offsets that overflow": lambda f: replace(f, "offsets", [0, 2**63 - 1, -2, 8]),
    "falling offsets": lambda f: f["offsets"].__setitem__(1, 99),
    "a frame that stands for none": lambda f: f["covers"].__setitem__(2, 0),
    "a frame that stands for a video without end": lambda f: f["covers"].__setitem__(2, 65_536),
    "covers in double width": lambda f: retyped(f, "covers", h5py.h5t.STD_I64LE),
    "a spec of variable length": lambda f: f.attrs.__setitem__("spec", f.attrs["spec"].decode()),
    "a checksum of variable length": lambda f: f.attrs.__setitem__("sha256", "0" * 64),
    "a checksum that is a list": lambda f: f.attrs.__setitem__("sha256", [b"0", b"1"]),
    "a spec that is a number": lambda f: f.attrs.__setitem__("spec", 3.0),
    "ids of variable length": lambda f: of_variable_length(f, "video_ids"),
    "ids that are numbers": lambda f: replace(f, "video_ids", np.arange(3)),
    "no checksum": lambda f: f.attrs.__delitem__("sha256"),
    "no spec": lambda f: f.attrs.__delitem__("spec"),
    "a spec of the first schema": lambda f: respec(f, '"schema_version":2', '"schema_version":1'),
    "tokens of no grid": lambda f: respec(f, '"tokens":"cls"', '"tokens":"cls+0x2"'),
    "a newer schema": lambda f: respec(f, '"schema_version":2', '"schema_version":3'),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strangers_shard_is_refused_before_its_embeddings_are_read(tmp_path, strange):
    path = write_shard(tmp_path, spec(), [video("a", 3), failed("c"), video("b", 5)])
    rewrite(path, STRANGE[strange])
    with pytest.raises(CacheError) as caught:
        Cache.open(tmp_path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
