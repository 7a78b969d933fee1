"""Caches that a stranger made, that were damaged, or that were made otherwise."""

import dataclasses
import tracemalloc
from pathlib import Path

import h5py
import made_up
import numpy as np
import pytest
from commands import run
from test_cache import DIM, failed, spec, video

from memfeat.cache import Cache, CacheSpec, repair, same_sources, status_of, verify, write_shard
from memfeat.cache.shard import text_attribute
from memfeat.errors import CacheError, DamagedShardError
from memfeat.manifest import write_manifest

OTHER_SPECS = {
    "encoder": "other",
    "weights_sha256": "1" * 64,
    "activation": "quickgelu",
    "mean": (0.4, 0.5, 0.5),
    "interpolation": "bilinear",
    "image_size": 64,
    "untagged_hd": "BT.709",
    "dim": DIM // 2,
    "tokens": "cls+2x2",
    "sampling": "stride:2",
    "precision": "bfloat16",
}


def shard(folder: Path) -> Path:
    return write_shard(folder, spec(), [video("a", 3), failed("c"), video("b", 5)])


@pytest.mark.parametrize("field", OTHER_SPECS)
def test_caches_made_otherwise_are_refused_naming_the_field_and_both_values(tmp_path, field):
    shard(tmp_path)
    other = CacheSpec(**spec().model_dump() | {field: OTHER_SPECS[field]})
    videos = [failed("z")]  # whose rows have any width
    with pytest.raises(CacheError) as written:
        write_shard(tmp_path, other, videos)
    write_shard(tmp_path / "other", other, videos).rename(tmp_path / "shard-zz.h5")
    for message in (refusal(tmp_path), str(written.value)):
        for word in (field, repr(OTHER_SPECS[field]), repr(getattr(spec(), field))):
            assert word in message
    assert "was meanwhile given shards made differently" in str(written.value)
    assert list(verify(tmp_path)) == [tmp_path / "shard-zz.h5"]


@pytest.mark.parametrize("version", [1, 3])
def test_caches_of_another_schema_are_told_of_and_left_alone(tmp_path, version):
    path = shard(tmp_path)
    rewrite(path, lambda f: respec(f, '"schema_version":2', f'"schema_version":{version}'))
    content = path.read_bytes()
    assert list(status_of(tmp_path).other) == [path]
    done = repair(tmp_path)
    assert (done.set_aside, list(done.left_alone)) == ({}, [path])
    assert "Was it written by another version?" in done.left_alone[path]
    assert path.read_bytes() == content


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def refusal(folder):
    with pytest.raises(CacheError) as caught:
        Cache.open(folder)
    return str(caught.value)


def traced(function, folder):
    """Return what it gives, and the most memory in bytes that Python's objects took meanwhile."""
    tracemalloc.start()
    try:
        return function(folder), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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


def remade(file, name, **how):
    del file[name]
    return file.create_dataset(name, **how)


def respec(file, old, new):
    text = file.attrs["spec"].decode()
    assert old in text
    file.attrs.create("spec", **text_attribute(text.replace(old, new)))


def virtual(file, source):
    shape = file.pop("embeddings").shape
    layout = h5py.VirtualLayout(shape, "<f2")
    layout[:] = h5py.VirtualSource(source, "x", shape)
    file.create_virtual_dataset("embeddings", layout)


def compact(file, name):
    data = file.pop(name)[()]
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.COMPACT)
    space, kind = h5py.h5s.create_simple(data.shape), h5py.h5t.py_create(data.dtype)
    made = h5py.h5d.create(file.id, name.encode(), kind, space, how)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, data)


def named_type(file, name):
    data = file.pop(name)[()]
    file["kind"] = data.dtype
    file.create_dataset(name, data=data, dtype=file["kind"])
    del file["kind"]


STRANGE = {
    "a virtual dataset": lambda f: virtual(f, "/etc/hostname"),
    "a link to the whole": lambda f: f.__setitem__("loop", f["/"]),
    "thousands of members": lambda f: [f.create_group(f"g{i}") for i in range(3000)],
    "a group for a dataset": lambda f: (f.pop("offsets"), f.create_group("offsets")),
    "a dataset inside its header": lambda f: compact(f, "pts_seconds"),
    "a fill value for what is not stored": lambda f: remade(
        f, "pts_seconds", shape=(8,), dtype="<f8", fillvalue=3.0
    ),
    "one text for two datasets": lambda f: replace(f, "reason", f["status"]),
    "numbers with names": lambda f: retyped(
        f, "source_bytes", h5py.h5t.py_create(h5py.enum_dtype({"A": 1}, "<i8"), logical=True)
    ),
    "a scalar": lambda f: replace(f, "offsets", np.int64(3)),
    "no numbers at all": lambda f: replace(f, "offsets", h5py.Empty("<i8")),
    "no ids at all": lambda f: replace(f, "video_ids", h5py.Empty("S3")),
    "a column in two dimensions": lambda f: replace(f, "status", np.zeros((3, 1), "S6")),
    "texts with numbers beside them": lambda f: replace(
        f, "status", np.zeros(3, [("a", "S4"), ("b", "<i4")])
    ),
    "bytes without a meaning": lambda f: replace(f, "status", np.zeros(3, "V6")),
    "lists in place of texts": lambda f: remade(
        f, "status", shape=(3,), dtype=h5py.vlen_dtype("<i4")
    ).__setitem__(0, [1]),
    "a reference for a spec": lambda f: f.attrs.create("spec", f["embeddings"].ref),
    "a reference for a checksum": lambda f: f.attrs.create("sha256", f["status"].regionref[0:1]),
    "numbers for a checksum": lambda f: f.attrs.create("sha256", np.zeros(5000)),
    "nothing for a spec": lambda f: f.attrs.create("spec", h5py.Empty("S64")),
    "nothing for a checksum": lambda f: f.attrs.create("sha256", h5py.Empty("S64")),
    "an id that is not UTF-8": lambda f: replace(f, "video_ids", np.array([b"\xff", b"c", b"b"])),
    "a video that is ok without frames": lambda f: replace(f, "offsets", np.array([0, 0, 3, 8])),
    "a video that failed with frames": lambda f: replace(f, "offsets", np.array([0, 3, 4, 8])),
    "a video that failed for no reason": lambda f: replace(f, "reason", np.zeros(3, "S7")),
    "a video that is ok for a reason": lambda f: replace(f, "reason", np.array([b"missing"] * 3)),
    "a spec that is no JSON": lambda f: respec(f, "{", "["),
    "external storage": lambda f: remade(
        f,
        "embeddings",
        shape=(8, DIM),
        dtype="f2",
        external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)],
    ),
    "a compression filter": lambda f: remade(
        f, "embeddings", data=f["embeddings"][()], compression="gzip"
    ),
    "chunks": lambda f: remade(f, "embeddings", data=f["embeddings"][()], chunks=(1, DIM)),
    "an external link": lambda f: replace(f, "reason", h5py.ExternalLink("other.h5", "/x")),
    "a soft link": lambda f: replace(f, "reason", h5py.SoftLink("/status")),
    "a missing dataset": lambda f: f.pop("offsets"),
    "an unknown dataset": lambda f: f.create_dataset("extra", data=[1]),
    "a shape of 4 GB": lambda f: remade(f, "embeddings", shape=(2**27, DIM), dtype="f2"),
    "a number type of its own": lambda f: retyped(f, "embeddings", odd_float()),
    "numbers the other way round": lambda f: retyped(f, "embeddings", h5py.h5t.IEEE_F16BE),
    "times the other way round": lambda f: retyped(f, "pts_seconds", h5py.h5t.IEEE_F64BE),
    "times in single precision": lambda f: retyped(f, "pts_seconds", h5py.h5t.IEEE_F32LE),
    "offsets with fractions": lambda f: retyped(f, "offsets", h5py.h5t.IEEE_F64LE),
    "offsets that overflow": lambda f: replace(f, "offsets", [0, 2**63 - 1, -2, 8]),
    "falling offsets": lambda f: f["offsets"].__setitem__(1, 99),
    "a frame that stands for none": lambda f: f["covers"].__setitem__(2, 0),
    "a frame that stands for a video without end": lambda f: f["covers"].__setitem__(2, 65_536),
    "an attempt before the first": lambda f: f.create_dataset("attempt", data=[0, -1, 0]),
    "attempts of fewer videos": lambda f: f.create_dataset("attempt", data=[1, 1]),
    "attempts with fractions": lambda f: f.create_dataset("attempt", data=[1.0, 1.0, 1.0]),
    "attempts without end": lambda f: f.create_dataset("attempt", data=[0, 2**63 - 1, 0]),
    "covers in double width": lambda f: retyped(f, "covers", h5py.h5t.STD_I64LE),
    "a spec of variable length": lambda f: f.attrs.__setitem__("spec", f.attrs["spec"].decode()),
    "a checksum of variable length": lambda f: f.attrs.__setitem__("sha256", "0" * 64),
    "a checksum that is a list": lambda f: f.attrs.__setitem__("sha256", [b"0", b"1"]),
    "a spec that is a number": lambda f: f.attrs.__setitem__("spec", 3.0),
    "ids of variable length": lambda f: remade(
        f, "video_ids", data=f["video_ids"][()].tolist(), dtype=h5py.string_dtype("utf-8")
    ),
    "ids that are numbers": lambda f: replace(f, "video_ids", np.arange(3)),
    "no checksum": lambda f: f.attrs.__delitem__("sha256"),
    "no spec": lambda f: f.attrs.__delitem__("spec"),
    "a spec of the first schema": lambda f: respec(f, '"schema_version":2', '"schema_version":1'),
    "tokens of no grid": lambda f: respec(f, '"tokens":"cls"', '"tokens":"cls+0x2"'),
    "a newer schema": lambda f: respec(f, '"schema_version":2', '"schema_version":3'),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_caches_of_a_stranger_are_refused_before_their_embeddings_are_read(tmp_path, strange):
    path = shard(tmp_path)
    Cache.open(tmp_path)  # so that what Python loads for it is not counted below
    rewrite(path, STRANGE[strange])
    message, peak = traced(refusal, tmp_path)
    assert path.name in message
    assert message.isprintable()
    assert len(message) < 1000
    assert peak < 1_000_000 + 2 * path.stat().st_size
    assert path in verify(tmp_path)


def test_caches_whose_shape_overflows_are_refused(tmp_path):
    """Of 8 x 2**60 float16 numbers the bytes are 2**64, which is 0 in 64 bits."""
    path = shard(tmp_path)
    rewrite(path, lambda f: respec(f, f'"dim":{DIM}', f'"dim":{2**60}'))
    shape = np.array([8, DIM], "<u8").tobytes()
    content = path.read_bytes()
    assert shape in content
    path.write_bytes(content.replace(shape, np.array([8, 2**60], "<u8").tobytes()))
    with pytest.raises(DamagedShardError):
        Cache.open(tmp_path)


HARMLESS = {
    "thousands of attributes": lambda f: [f.attrs.create(f"a{i}", i) for i in range(1000)],
    "a type that was given a name": lambda f: named_type(f, "pts_seconds"),
}


@pytest.mark.parametrize("harmless", HARMLESS)
def test_caches_with_something_beside_the_data_are_read_right(tmp_path, harmless):
    path = shard(tmp_path)
    before = content_of(tmp_path)
    rewrite(path, HARMLESS[harmless])
    assert content_of(tmp_path) == before
    assert verify(tmp_path) == {}


def content_of(folder: Path) -> tuple:
    cache = Cache.open(folder)
    table = cache.load(cache.usable(partial=True))
    arrays = table.values, table.pts_seconds, table.covers, table.offsets
    entries = {name: dataclasses.replace(e, shard=None) for name, e in cache.entries.items()}
    return entries, table.video_ids, [array.tobytes() for array in arrays]


def data_bytes(path: Path) -> list[range]:
    """The byte offsets of each of a shard's datasets and attributes."""
    content, found = path.read_bytes(), []
    with h5py.File(path) as file:
        for dataset in file.values():
            start = dataset.id.get_offset() or 0
            found.append(range(start, start + dataset.nbytes))
        for text in file.attrs.values():
            start = content.index(text)
            found.append(range(start, start + len(text)))
    return found


def test_caches_with_one_byte_of_data_flipped_are_found_every_time(tmp_path):
    path = shard(tmp_path)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    found = data_bytes(path)
    assert len(found) == 10 + 2
    for each in found:
        for place in generator.choice(each, min(12, len(each)), replace=False):
            content = bytearray(whole)
            content[place] ^= int(generator.integers(1, 256))
            path.write_bytes(content)
            assert list(verify(tmp_path)) == [path], f"byte {place}"
    path.write_bytes(whole)
    assert verify(tmp_path) == {}


@pytest.mark.parametrize("command", ["train", "ablation", "transfer"])
def test_caches_with_a_flipped_bit_are_never_trained_on(tmp_path, command):
    labels = made_up.records(np.linspace(0.1, 0.2, 12), made_up.splits(4, 4, 4))
    write_manifest(tmp_path / "m.csv", labels)
    videos = [video(label.video_id) for label in labels]
    path = write_shard(tmp_path / "cache", spec(), videos)
    content = bytearray(path.read_bytes())
    content[content.index(video("v5").embeddings.tobytes())] ^= 1  # within what rounding allows
    path.write_bytes(content)
    Cache.open(path.parent).load().require_sound()
    data = f'manifest = "{tmp_path}/m.csv"\ncache = "{path.parent}"\n'
    tables = {
        "train": f'[train]\n{data}run = "{tmp_path}/run"\ndevice = "cpu"\n',
        "ablation": f'[train]\nmanifest = "{tmp_path}/m.csv"\ndevice = "cpu"\n[ablation]\n'
        f'title = "t"\nrun = "{tmp_path}/grid"\ncache_root = "{tmp_path}"\ncaches = ["cache"]\n'
        'aggregators = ["avg"]\nheads = ["linear"]\n',
        "transfer": f'[train]\ndevice = "cpu"\n[transfer]\n'
        f'title = "t"\nrun = "{tmp_path}/table2"\n'
        f'[[transfer.datasets]]\nname = "a"\n{data}[[transfer.datasets]]\nname = "b"\n{data}',
    }
    (tmp_path / "p.toml").write_text(tables[command])
    result = run(command, tmp_path / "p.toml")
    assert result.exit_code == 1, result.output
    assert "does not match its checksum" in " ".join(result.output.split())
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("value", "length"), [(np.nan, "nan"), (np.inf, "inf"), (0.5, "2"), (0.0, "0")]
)
def test_caches_of_vectors_of_another_length_or_none_are_found_and_never_trained_on(
    tmp_path, value, length
):
    odd = dataclasses.replace(video("a"), embeddings=np.full((3, DIM), value, np.float16))
    path = write_shard(tmp_path, spec(), [video("b"), odd])
    assert f"a vector's length is {length}, not 1" in verify(tmp_path)[path]
    with pytest.raises(CacheError, match=rf"video 'a' are damaged: a vector's length is {length},"):
        Cache.open(tmp_path).load().require_sound()


def test_caches_with_the_hash_of_a_source_that_is_none_are_found(tmp_path):
    path = write_shard(tmp_path, spec(), [dataclasses.replace(video("a"), source_sha256="x" * 64)])
    assert "the hash of 'a' is 'xxx" in verify(tmp_path)[path]
    with pytest.raises(DamagedShardError):
        same_sources(Cache.open(tmp_path))


def test_caches_of_long_videos_are_verified_a_part_at_a_time(tmp_path):
    vectors = np.zeros((50_000, DIM), np.float16)
    vectors[:, 0] = 1
    long = dataclasses.replace(video("a", 1), embeddings=vectors, pts_seconds=np.zeros(50_000))
    path = write_shard(tmp_path, spec(), [long])
    found, peak = traced(verify, tmp_path)
    assert found == {}
    assert peak < path.stat().st_size
