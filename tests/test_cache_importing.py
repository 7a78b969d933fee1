"""Features made elsewhere: into a cache, and from there to figures."""

import json
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import ok, run, told

from memfeat.cache import Cache, ImportSummary, import_features, verify
from memfeat.cache.importing import VIDEOS_PER_SHARD
from memfeat.config import ImportConfig
from memfeat.errors import CacheError
from memfeat.manifest import VideoRecord, write_manifest

DIM = 6


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


def unit(values: np.ndarray) -> np.ndarray:
    """What a cache must hold: each vector divided by its length, by NumPy's own norm."""
    values = np.atleast_2d(values).astype(np.float64)
    return (values / np.linalg.norm(values, axis=1)[:, None]).astype(np.float16)


def imported(path: Path, cache: Path, /, **changes) -> ImportSummary:
    config = ImportConfig.model_validate({"name": "theirs"} | changes)
    return import_features(path, cache, config)


def refusal(path: Path, cache: Path, /, **changes) -> str:
    """Import what must be refused in one line, with nothing written."""
    before = sorted(cache.rglob("*")) if cache.exists() else []
    with pytest.raises(CacheError) as error:
        imported(path, cache, **changes)
    assert "\n" not in str(error.value)
    assert (sorted(cache.rglob("*")) if cache.exists() else []) == before
    return str(error.value)


def held(cache: Path) -> dict[str, np.ndarray]:
    table = Cache.open(cache).load()
    return {name: table.frames(index) for index, name in enumerate(table.video_ids)}


def save_npy(folder: Path, **videos: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in videos.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def save_npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


# --- the kinds of files ---


def test_an_npy_file_for_each_video_holds_steps_or_a_single_one(tmp_path):
    videos = {"a@1": draw(4, DIM), "b": draw(DIM, seed=1), "c": draw(1, DIM, seed=2)}
    source = save_npy(tmp_path / "in", **videos)
    (source / "._b.npy").write_bytes(b"what macOS leaves on other disks")
    summary = imported(source, tmp_path / "cache")
    assert (summary.imported, summary.steps) == (3, 6)
    found = held(tmp_path / "cache")
    assert found.keys() == videos.keys()
    for name, values in videos.items():
        np.testing.assert_array_equal(found[name], unit(values))


def test_an_npz_holds_a_vector_or_as_many_steps_for_each_video(tmp_path):
    ids = np.array(["x", "y", "z"])
    for name, features in {"flat": draw(3, DIM), "steps": draw(3, 5, DIM)}.items():
        source = save_npz(tmp_path / f"{name}.npz", video_ids=ids, features=features)
        imported(source, tmp_path / name)
        for index, video_id in enumerate(ids):
            np.testing.assert_array_equal(held(tmp_path / name)[video_id], unit(features[index]))


def test_an_npz_with_offsets_holds_videos_of_any_length(tmp_path):
    features, offsets = draw(9, DIM), np.array([0, 2, 3, 9])
    ids = np.array([b"x", b"y", b"z"])
    source = tmp_path / "f.npz"
    np.savez_compressed(source, video_ids=ids, features=features, offsets=offsets)
    imported(source, tmp_path / "cache")
    found = held(tmp_path / "cache")
    for name, start, stop in [("x", 0, 2), ("y", 2, 3), ("z", 3, 9)]:
        np.testing.assert_array_equal(found[name], unit(features[start:stop]))


def test_a_tsv_is_one_however_its_suffix_is_written(tmp_path):
    (tmp_path / "F.TSV").write_text("id\tx\ty\nv\t3\t4\n")
    imported(tmp_path / "F.TSV", tmp_path / "cache")
    np.testing.assert_array_equal(held(tmp_path / "cache")["v"], np.float16([[0.6, 0.8]]))


@pytest.mark.parametrize("column", ["video_id", "video", "id"])
def test_a_csv_holds_a_vector_in_each_row_beside_the_id(tmp_path, column):
    features = draw(3, DIM)
    header = ",".join([*(f"f{n}" for n in range(3)), column, *(f"f{n}" for n in range(3, DIM))])
    rows = [
        ",".join(map(str, [*values[:3], f" v{n}", *values[3:]]))
        for n, values in enumerate(features)
    ]
    (tmp_path / "f.csv").write_text("\ufeff" + "\n".join([header, *rows]) + "\n")
    imported(tmp_path / "f.csv", tmp_path / "cache")
    for number, values in enumerate(features):
        np.testing.assert_array_equal(held(tmp_path / "cache")[f"v{number}"], unit(values))


def test_any_type_and_order_in_memory_gives_the_same_cache(tmp_path):
    features = np.round(draw(3, 5, DIM) * 4)
    ids = np.array([3, 20, 100])
    caches = []
    for number, array in enumerate(
        [features, np.asfortranarray(features), features.astype(">f8"), features.astype(np.int16)]
    ):
        save_npz(tmp_path / f"{number}.npz", video_ids=ids, features=array)
        imported(tmp_path / f"{number}.npz", tmp_path / str(number))
        caches.append(held(tmp_path / str(number)))
    for other in caches[1:]:
        assert list(other) == ["100", "20", "3"]
        for name, steps in caches[0].items():
            np.testing.assert_array_equal(other[name], steps)


# --- what the cache says of them ---


def test_the_cache_says_that_its_features_were_made_elsewhere(tmp_path):
    source = save_npy(tmp_path / "in", a=draw(4, DIM))
    summary = imported(source, tmp_path / "cache", name="C3D", source="handed out, 2019")
    spec = Cache.open(tmp_path / "cache").spec
    assert spec == summary.spec
    assert spec.is_imported
    assert spec.describe() == f"C3D, made elsewhere (handed out, 2019), {DIM}-d"
    assert (spec.image_size, spec.mean, spec.std, spec.precision, spec.batch_size) == (None,) * 5
    assert spec.normalisation == "l2"
    assert verify(tmp_path / "cache") == {}


def test_without_words_the_source_is_the_files_name_and_steps_are_counted(tmp_path):
    summary = imported(save_npy(tmp_path / "in", a=draw(4, DIM)), tmp_path / "cache")
    assert summary.spec.trained_on == "imported from in"
    table = Cache.open(tmp_path / "cache").load()
    assert table.pts_seconds.tolist() == [0, 1, 2, 3]
    assert table.covers.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("normalise", "values"),
    [("l2", unit(draw(50, DIM))), ("none", np.array([[0, 0, 0], [65504, -1.5, 0.25]]))],
)
def test_unit_vectors_and_those_not_to_be_normalised_stay_as_they_are(normalise, values, tmp_path):
    imported(save_npy(tmp_path / "in", a=values), tmp_path / "cache", normalise=normalise)
    np.testing.assert_array_equal(held(tmp_path / "cache")["a"], values)
    assert Cache.open(tmp_path / "cache").spec.normalisation == normalise


# --- what is refused ---

GOOD = np.ones((2, 3))


AS_THEY_ARE = {"normalise": "none"}


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (np.ones((2, 3, 4)), {}, ": features of shape (2, 3, 4); give (time, dim), or (dim,)"),
        (np.ones((0, 3)), {}, ": features of shape (0, 3); give (time, dim)"),
        (np.array(1.0), {}, ": features of shape (); give"),
        (np.ones((2, 4)), {}, ": 4 values a step, but {}/a.npy has 3; all videos of a cache"),
        (np.array([[1, 2, 3], [4, np.nan, 6]]), {}, ", step 1, value 1: nan is not a finite"),
        (np.array([1, 2, -np.inf]), {}, ", step 0, value 2: -inf is not a finite number"),
        (np.array([[1, 0, 0], [0, 0, 0]]), {}, ", step 1: a vector of length 0 has no direction"),
        (np.array([1e200, 0, 0]), {}, ", step 0: a vector of length inf has no direction"),
        (np.array([[1, 2, 3], [4, 5, -7e4]]), AS_THEY_ARE, ", step 1, value 2: -70000 is"),
        (np.array([[1, 2, 3], [0, 0, -2e-8]]), AS_THEY_ARE, ", step 1: all values are"),
        (np.array(["x", "y", "z"]), {}, ": features of type <U1; give numbers"),
        (np.ones(3) * 1j, {}, ": features of type complex128; give numbers"),
    ],
)
def test_wrong_features_are_named_and_nothing_is_written(values, changes, message, tmp_path):
    source = save_npy(tmp_path / "in", a=GOOD, b=values)
    error = refusal(source, tmp_path / "cache", **changes)
    assert error.startswith(f"{source}/b.npy{message.format(source)}")


def of(*ids, **arrays):
    return {"video_ids": list(ids), "features": GOOD} | arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": GOOD}, " has no array 'video_ids'; it has 'features'"),
        ({"video_ids": ["a"], "data": GOOD}, " has no array 'features'; it has 'data', 'video"),
        (of(0.5, 1.5), ": video_ids is float64 (2,); give one text"),
        (of(["a", "b"]), ": video_ids is <U1 (1, 2); give one text"),
        (of("a", "b", "c"), ": features is (2, 3), but there are 3 video_ids; give 3 x dim, 3 x"),
        (of("a", features=np.ones(3)), ": features is (3,); give N x dim or"),
        (of("a", "b", offsets=[0, 2]), ": offsets is int64 (2,); for 2 video_ids give whole"),
        (of("a", "b", offsets=[0.0, 1.0, 2.0]), ": offsets is float64; give whole numbers"),
        (of("a", "b", offsets=["0", "1", "2"]), ": offsets is <U1; give whole numbers"),
        (of("a", "b", offsets=[0, 2, 1]), ": offsets do not rise: offsets[1] is 2, and the next"),
        (of("a", "b", offsets=[0, 2, 6]), ": offsets run from 0 to 6; features has the rows"),
        (of("a", "a"), ", video 1: the id 'a' is also at {}, video 0; ids are unique"),
        (of("é", "É"), ", video 1: the id '\\xc9' is also at {}, video 0, as '\\xe9'"),
        (of("a", "b/c"), ", video 1: the id 'b/c' is not a plain"),
    ],
)
def test_a_wrong_npz_is_named_and_nothing_is_written(arrays, message, tmp_path):
    source = save_npz(tmp_path / "f.npz", **arrays)
    assert refusal(source, tmp_path / "cache").startswith(f"{source}{message.format(source)}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x\na,1\n", ": no id column; call it one of video_id, video, id. The columns found"),
        ("id,x,y\na,1,2\nb,1,red\n", ", line 3, column y: 'red' is not a number; besides the id"),
        ("id,x,y\na,1,2\nb,1_0,3\n", ", line 3, column x: '1_0' is not a number"),
        ("id,x,y\na,1,2\nb,1,\u0663\n", ", line 3, column y: '\u0663' is not a number"),
        ("id,x,y\na,1,2\nb,1,\n", ", line 3, column y: '' is not a number"),
        ("id,x,y\na,1,2\nb,1,inf\n", ", line 3, step 0, value 1: inf is not a finite number"),
        ("id,x,y\na,1,2\na,1,2\n", ", line 3: the id 'a' is also at {}, line 2; ids are unique"),
        ("id,x,y\na,1,2\nb,1\n", ", line 3: 2 fields ['b', '1'], but the header has 3"),
        ("id,x,y\n", " holds no videos; write a header and a line for each"),
    ],
)
def test_a_wrong_csv_is_named_and_nothing_is_written(text, message, tmp_path):
    source = tmp_path / "f.csv"
    source.write_text(text)
    assert refusal(source, tmp_path / "cache").startswith(f"{source}{message.format(source)}")


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (",video_id,x", "''"),
        ("video_id,x,", "''"),
        ("Unnamed: 0,video_id,x", "'Unnamed: 0'"),
        ("Unnamed: 0.1,id,x", "'Unnamed: 0.1'"),
        ("id,video_id,x", "'id'"),
        ("video,video_id,x", "'video'"),
        ("video,id,x", "'id'"),
        ("video_id,x,ID", "'ID'"),
        ("id,Video ID,x", "'Video ID'"),
        ("id,x,clipId", "'clipId'"),
        ("id,youtube_id,x", "'youtube_id'"),
        ("index,id,x", "'index'"),
        ("id,level_0,x", "'level_0'"),
        ("id,row_nr,x", "'row_nr'"),
        ("#,id,x", "'#'"),
        ("id,mem_score,x", "'mem_score'"),
        ("id,x,Label", "'Label'"),
    ],
)
def test_a_column_named_as_an_id_or_an_index_is_refused_by_name(header, named, tmp_path):
    source = tmp_path / "f.csv"
    id_column = next(name for name in ("video_id", "video", "id") if name in header.split(","))
    rows = [
        ",".join(f"v{n}" if name == id_column else f"0.{n}" for name in header.split(","))
        for n in range(2)
    ]
    source.write_text("\n".join([header, *rows]) + "\n")
    message = refusal(source, tmp_path / "cache", normalise="none")
    assert message.startswith(
        f"{source}: the column {named} is named like an id, an index or a score, "
    )
    assert f"beside the id '{id_column}'; remove it, or give a feature a name of its own" in message


@pytest.mark.parametrize(
    "numbers", [range(3), range(1, 13), range(7, 20), [3, *range(3), *range(4, 12)]]
)
def test_a_column_that_counts_the_rows_is_refused_by_name(numbers, tmp_path):
    numbers = list(numbers)
    features = draw(len(numbers), 2).round(3)
    rows = [f"v{n},{features[n, 0]},{k},{features[n, 1]}" for n, k in enumerate(numbers)]
    source = tmp_path / "f.csv"
    source.write_text("\n".join(["id,f0,f1,f2", *rows]) + "\n")
    begin = ", ".join(map(str, numbers[:3]))
    message = refusal(source, tmp_path / "cache")
    assert message.startswith(f"{source}: the column 'f1' counts the rows ({begin}, ...)")
    assert "remove it, or give the features as a .npz" in message


@pytest.mark.parametrize("numbers", [(0,), (1,), (0, 1), (1, 2)])
@pytest.mark.parametrize("header", ["count,id,x,y", "id,x,count,y", "id,x,y,count"])
def test_of_one_or_two_rows_the_only_column_of_whole_numbers_may_not_count_them(
    numbers, header, tmp_path
):
    source, rows = tmp_path / "f.csv", []
    for n, number in enumerate(numbers):
        cells = {"count": f"{number}", "id": f"v{n}", "x": f"{n}.0", "y": "-0.25"}
        rows.append(",".join(cells[name] for name in header.split(",")))
    source.write_text("\n".join([header, *rows]) + "\n")
    message = refusal(source, tmp_path / "cache", normalise="none")
    begin = ", ".join(map(str, numbers))
    assert message.startswith(f"{source}: the column 'count' counts the rows ({begin}, ...)")


@pytest.mark.parametrize(
    "rows",
    [["0.5,0.0"], ["0,1"], ["0.5,2"], ["0.5,0", "0.5,2"], ["0,1", "1,2"], ["1.5,1", "0.2,0"]],
)
def test_of_one_or_two_rows_other_numbers_are_features(rows, tmp_path):
    source = tmp_path / "f.csv"
    lines = [f"v{n},{row}" for n, row in enumerate(rows)]
    source.write_text("\n".join(["id,x,y", *lines]) + "\n")
    imported(source, tmp_path / "cache", normalise="none")
    assert len(held(tmp_path / "cache")) == len(rows)


def test_numbers_that_only_look_like_a_count_are_features(tmp_path):
    columns = {
        "hybrid": [0, 1, 3, 2],
        "video_0": [0, 2, 4, 6],
        "no_face": [9.0] * 4,
        "identity": [5, 5, 5, 5],
        "aesthetic_score": [1, 7, 5, 5],
    }
    source = tmp_path / "f.csv"
    numbers = zip(*columns.values(), strict=True)
    rows = [",".join(map(str, [f"v{n}", *row])) for n, row in enumerate(numbers)]
    source.write_text("\n".join([",".join(["id", *columns]), *rows]) + "\n")
    imported(source, tmp_path / "cache")
    assert held(tmp_path / "cache").keys() == {"v0", "v1", "v2", "v3"}


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_the_bits_of_bfloat16_are_not_taken_for_numbers(kind, tmp_path):
    bits = (draw(2, DIM).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(kind)
    source = save_npz(tmp_path / "f.npz", video_ids=["a", "b"], features=bits)
    message = refusal(source, tmp_path / "cache")
    assert f"features of type {bits.dtype} that look like the bits of bfloat16" in message
    assert "give them as float32" in message


@pytest.mark.parametrize("normalise", ["l2", "none"])
@pytest.mark.parametrize("filling", [0, -0.0, np.nan])
@pytest.mark.parametrize("at", [slice(2, None), slice(0, 3)])
def test_an_npz_filled_up_to_one_length_is_refused_and_offsets_advised(
    normalise, filling, at, tmp_path
):
    features = draw(2, 5, DIM)
    features[1, at] = filling
    source = save_npz(tmp_path / "f.npz", video_ids=["a", "b"], features=features)
    message = refusal(source, tmp_path / "cache", normalise=normalise)
    assert message.startswith(f"{source}, video 1 ('b'): 3 of 5 steps are only 0 or NaN")
    assert "total x dim, with offsets (N + 1,)" in message
    assert "normalise" not in message
    kept = np.ones((2, 5), bool)
    kept[1, at] = False
    save_npz(source, video_ids=["a", "b"], features=features[kept], offsets=[0, 5, 7])
    imported(source, tmp_path / "cache", normalise=normalise)
    found = held(tmp_path / "cache")
    assert {name: len(steps) for name, steps in found.items()} == {"a": 5, "b": 2}


def test_features_meet_the_ids_that_a_manifest_made_of_the_videos_names(tmp_path):
    videos = {"00216": draw(2, DIM), "clip.a.mp4": draw(3, DIM), "217": draw(4, DIM)}
    source = save_npy(tmp_path / "in", **videos, more=draw(1, DIM))
    manifest = manifest_of(tmp_path / "m.csv", ["216", "clip.a", "0217"], 1, np.ones(3) / 2)
    arguments = ["import", source, "--name", "x", "-o", tmp_path / "cache", "--manifest", manifest]
    result = ok("cache", *arguments)
    assert "1 not in the manifest: 1 video: more" in result.stderr
    found = held(tmp_path / "cache")
    assert {name: len(steps) for name, steps in found.items()} == {"216": 2, "clip.a": 3, "0217": 4}
    assert "3 there already" in ok("cache", *arguments).stderr


def test_features_that_may_be_either_of_two_videos_are_refused(tmp_path):
    source = save_npy(tmp_path / "in", **{"0216": draw(2, DIM), "00216": draw(2, DIM)})
    config = ImportConfig(name="x")
    with pytest.raises(CacheError, match="'00216' and '0216' may both be the video '216'; remove"):
        import_features(source, tmp_path / "cache", config, wanted=["216"])
    import_features(source, tmp_path / "cache", config, wanted=["0216", "216"])
    assert list(held(tmp_path / "cache")) == ["0216"]


class Bomb:
    """An object whose unpickling leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_python_objects_are_refused_and_never_unpickled(tmp_path):
    objects = np.array([Bomb(tmp_path / "trace"), "b"], dtype=object)
    folder = save_npy(tmp_path / "in", a=objects)
    npz = save_npz(tmp_path / "f.npz", video_ids=objects, features=GOOD)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "a.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    for source, name in [(folder, "a.npy"), (npz, "f.npz: video_ids"), (bare, "a.npy")]:
        message = refusal(source, tmp_path / "c")
        assert f"{name} is not an array that NumPy saved" in message
        assert "Python objects, which pickle would run" in message
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "claim",
    [
        "'<f4', 'fortran_order': False, 'shape': (10000000000000, 3)}",
        "'<f4', 'fortran_order': True, 'shape': (10000000000000, 3)}",
        "'<f4', 'fortran_order': False, 'shape': (4611686018427387905, 4)}",
        "'<f4', 'fortran_order': False, 'shape': (-2, -3)}",
        "'<f4', 'fortran_order': False, 'shape': (True, 3)}",
        "'|S0', 'fortran_order': False, 'shape': (1000000000000000000, 3)}",
        "'<f4', 'fortran_order': False, 'shape': (2, 3",
        "((((", "",
    ],
)  # fmt: skip
def test_a_header_that_claims_what_is_not_there_is_refused_and_takes_no_memory(claim, tmp_path):
    header = f"{{'descr': {claim}\n".encode()
    array = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(24)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.npy").write_bytes(array)
    assert f"{tmp_path}/in/a.npy" in refusal(tmp_path / "in", tmp_path / "cache")
    source = save_npz(tmp_path / "f.npz", video_ids=["a", "b"])
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("features.npy", array)
    assert f"{source}" in refusal(source, tmp_path / "cache")


@pytest.mark.parametrize("cut", [3, 60, -20])
def test_a_file_cut_short_is_refused(cut, tmp_path):
    folder = save_npy(tmp_path / "in", a=GOOD)
    npz = save_npz(tmp_path / "f.npz", video_ids=["a", "b"], features=GOOD)
    for path in (folder / "a.npy", npz):
        path.write_bytes(path.read_bytes()[:cut])
    assert f"{folder}/a.npy is " in refusal(folder, tmp_path / "cache")
    assert f"{npz} is not a sound .npz file" in refusal(npz, tmp_path / "cache")


def test_what_is_no_source_is_refused_with_what_would_be_one(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "f.pkl").touch()
    whats = {"empty": "holds no .npy files", "f.pkl": "is none of", "no": "is not"}
    for name, what in whats.items():
        message = refusal(tmp_path / name, tmp_path / "cache")
        assert message.startswith(f"{tmp_path}/{name} {what}")
        assert "a .csv with an id column, or a .npz with video_ids and features" in message


# --- again, and more ---


def test_importing_again_does_nothing_and_a_lost_shard_comes_back_the_same(tmp_path):
    count = VIDEOS_PER_SHARD + 5
    ids = np.array([f"v{number}" for number in range(count)])
    source = save_npz(tmp_path / "f.npz", video_ids=ids, features=draw(count, DIM))
    cache = tmp_path / "cache"
    assert imported(source, cache).imported == count
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert len(before) == 2
    again = imported(source, cache)
    assert (again.imported, again.already_done, again.steps) == (0, count, 0)
    min(cache.iterdir(), key=lambda path: path.stat().st_size).unlink()
    assert imported(source, cache).imported == 5
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before


def test_a_damaged_shard_is_set_aside_said_so_and_made_again(tmp_path):
    source, cache = save_npy(tmp_path / "in", a=draw(4, DIM)), tmp_path / "cache"
    imported(source, cache)
    (shard,) = cache.iterdir()
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    result = run("cache", "import", source, "-o", cache, "--name", "made elsewhere")
    assert result.exit_code == 0
    assert f"set aside and made again: {shard}.damaged" in result.stderr
    assert imported(source, cache, name="made elsewhere").already_done == 1


def test_more_files_may_follow_under_the_same_name_and_source(tmp_path):
    train = save_npz(tmp_path / "train.npz", video_ids=["a"], features=draw(1, DIM))
    test = save_npz(tmp_path / "test.npz", video_ids=["b"], features=draw(1, DIM, seed=1))
    for source in (train, test):
        imported(source, tmp_path / "cache", source="both")
    assert list(held(tmp_path / "cache")) == ["a", "b"]


def test_a_cache_of_another_making_is_refused_by_name(tmp_path):
    source = save_npy(tmp_path / "in", a=draw(4, DIM))
    cache = tmp_path / "cache"
    imported(source, cache, name="C3D")
    assert "encoder is 'I3D', not 'C3D'" in refusal(source, cache, name="I3D")
    wider = save_npy(tmp_path / "wider", b=draw(4, DIM + 1))
    changes = {"name": "C3D", "source": "imported from in"}
    assert f"dim is {DIM + 1}, not {DIM}" in refusal(wider, cache, **changes)
    assert "normalisation is 'none', not 'l2'" in refusal(
        source, cache, name="C3D", normalise="none"
    )


def test_another_version_of_a_videos_features_is_not_mixed_in(tmp_path):
    source = save_npy(tmp_path / "in", a=draw(4, DIM), b=draw(4, DIM))
    imported(source, tmp_path / "cache")
    save_npy(source, b=draw(4, DIM, seed=1), c=draw(4, DIM))
    message = refusal(source, tmp_path / "cache")
    assert f"holds the features of video 'b' from another file than {source}/b.npy" in message


# --- the command, training, and what cannot be done ---


def manifest_of(path: Path, ids: list[str], dev: int, scores: np.ndarray) -> Path:
    records = [
        VideoRecord(
            video_id=video_id,
            path=path.parent / f"{video_id}.mp4",
            score=float(score),
            split="dev" if index >= len(ids) - dev else "train",
            dataset="made up",
        )
        for index, (video_id, score) in enumerate(zip(ids, scores, strict=True))
    ]
    write_manifest(path, records)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A manifest of 12 videos, their features imported by the command, and a run."""
    home = tmp_path_factory.mktemp("home")
    ids = [f"v{number:02d}" for number in range(12)]
    save_npz(home / "f.npz", video_ids=[*ids, "other"], features=draw(13, 5, DIM))
    manifest = manifest_of(home / "m.csv", ids, 4, np.linspace(0.3, 0.9, 12))
    where = ["--manifest", manifest, "--cache", home / "cache"]
    ok("cache", "import", home / "f.npz", "--name", "C3D", "--source", "a friend's", *where)
    model = ["--aggregator", "bigru", "--head", "linear", "--max-epochs", "1", "--device", "cpu"]
    ok("train", *where, "--run", home / "run", *model, "--bootstrap", "10")
    return home


def test_only_the_manifests_videos_are_imported(trained):
    assert sorted(held(trained / "cache")) == [f"v{number:02d}" for number in range(12)]
    arguments = ["--name", "C3D", "--source", "a friend's", "--manifest", trained / "m.csv"]
    result = run("cache", "import", trained / "f.npz", *arguments, "-o", trained / "cache")
    assert result.exit_code == 0
    assert result.stdout == f"{trained}/cache\n"
    assert "C3D, made elsewhere (a friend's), 6-d" in result.stderr
    assert "12 there already, 1 not in the manifest" in result.stderr


def test_videos_of_the_manifest_that_are_not_there_are_named_with_exit_code_3(trained, tmp_path):
    manifest = manifest_of(tmp_path / "m.csv", ["v01", "gone1", "v02", "gone2"], 2, np.ones(4) / 2)
    arguments = ["--name", "C3D", "--manifest", manifest, "-o", tmp_path / "cache"]
    result = run("cache", "import", trained / "f.npz", *arguments, "--json")
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert summary["missing"] == ["gone1", "gone2"]
    assert (summary["imported"], summary["unused"], summary["steps"]) == (2, 11, 10)
    training = run("train", "--manifest", manifest, "--cache", tmp_path / "cache")
    assert training.exit_code == 1
    assert "2 of the 4 videos" in training.stderr
    command = f"memfeat cache import SRC --cache {tmp_path}/cache --name C3D --manifest {manifest}"
    assert command in training.stderr


def test_a_source_without_any_of_the_manifests_videos_is_refused(trained, tmp_path):
    manifest = manifest_of(tmp_path / "m.csv", ["x", "y"], 1, np.ones(2) / 2)
    arguments = ["--name", "C3D", "--manifest", manifest, "-o", tmp_path / "cache"]
    result = run("cache", "import", trained / "f.npz", *arguments)
    assert result.exit_code == 1
    assert "has none of the 2 videos wanted: it has 'v00' and so on, and 'x' is" in result.stderr


def test_a_name_is_asked_for(trained, tmp_path):
    result = run("cache", "import", trained / "f.npz", "-o", tmp_path / "cache")
    assert result.exit_code == 2
    assert "Missing option '--name'" in result.stderr


def test_figures_and_the_report_say_that_the_features_were_made_elsewhere(trained):
    said = f"features: C3D, made elsewhere (a friend's), {DIM}-d"
    assert said in told("evaluate", trained / "run")["sources"]
    page = Path(ok("report", trained / "run").stdout.strip()).read_text()
    assert "C3D, made elsewhere (a friend" in page


def test_a_run_on_imported_features_predicts_no_new_video_and_says_why(trained):
    result = run("predict", trained / "run", trained / "clip.mp4")
    assert result.exit_code == 1
    assert (
        f"Error: {trained}/run was trained on features that were made elsewhere (a friend's), and "
        "memfeat cannot make them for another video"
    ) in result.stderr


@pytest.mark.soak
def test_eight_thousand_five_hundred_videos_import_in_under_20_seconds_of_cpu(tmp_path):
    generator = np.random.default_rng(0)
    features = generator.standard_normal((8500, 5, 256), dtype=np.float32)
    ids = [f"video{number:05d}" for number in range(8500)]
    source = save_npz(tmp_path / "f.npz", video_ids=ids, features=features)
    started = time.process_time()
    summary = imported(source, tmp_path / "cache")
    assert time.process_time() - started < 20  # which other work does not lengthen
    assert (summary.imported, summary.steps) == (8500, 42_500)
    assert verify(tmp_path / "cache") == {}
    middle = Cache.open(tmp_path / "cache").load(["video04242"]).values
    np.testing.assert_array_equal(middle, unit(features[4242]))
