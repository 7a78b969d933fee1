import hashlib
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import made_up
import numpy as np
import pytest
import table_users
import torch

from memfeat.cache import Cache, EncodedVideo, SharedTable, shared_table, write_shard
from memfeat.errors import CacheError

DIM = 512
ON_LINUX = Path("/proc/self/smaps").exists()  # where the system says how much memory is shared
IDS = ["v3", "v0", "v5", "v1"]
SHARE = """
import sys, time
from pathlib import Path
from memfeat.cache import Cache, shared_table
with shared_table(Cache.open(Path(sys.argv[1])), ["v1", "v0"], Path(sys.argv[2])):
    print("shared", flush=True)
    time.sleep(60)
"""
REFUSED = """
import os, resource, sys
from pathlib import Path
from memfeat.cache import Cache, shared_table
from memfeat.errors import CacheError
resource.setrlimit(resource.RLIMIT_FSIZE, (size := int(sys.argv[3]), size))
for _ in range(2):
    try:
        with shared_table(Cache.open(Path(sys.argv[1])), ["v1", "v0"], Path(sys.argv[2])):
            print("shared")
    except CacheError as error:
        print(error)
    vars(os).pop("posix_fallocate", None)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    generator = np.random.default_rng(0)
    videos = [
        EncodedVideo(
            f"v{i}",
            generator.standard_normal((2000 + i, DIM), np.float32).astype(np.float16),
            generator.random(2000 + i),
        )
        for i in range(6)
    ]
    for start in (0, 2, 4):
        write_shard(folder, made_up.spec(DIM), videos[start : start + 2])
    return Cache.open(folder)


def proportional_memory(pid: int, path: Path) -> int:
    """What a process has of a file in memory, each page divided by who else maps it, in kB."""
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE)
    found = [m for m in mappings if m.partition("\n")[0].endswith(path.name)]
    return sum(int(re.search(r"^Pss:\s+(\d+) kB", mapping, re.MULTILINE)[1]) for mapping in found)


@contextmanager
def workers(table: SharedTable, count: int) -> Iterator[list[tuple]]:
    """Processes that have read all of a table; each with what it sent of that."""
    context = multiprocessing.get_context("spawn")
    started = []
    for _ in range(count):
        here, there = context.Pipe()
        process = context.Process(target=table_users.read_all, args=(there, table), daemon=True)
        process.start()
        there.close()
        started.append((process, here))
    yield [(process.pid, *connection.recv()) for process, connection in started]
    for process, connection in started:
        connection.send(None)
        process.join()
        connection.close()
        assert process.exitcode == 0


def test_several_processes_see_the_very_bytes_that_loading_gives_and_hold_one_copy(cache, tmp_path):
    ids = ["v5", *IDS[:2], "v2", "v4", "v1"]
    expected = cache.load(ids)
    with shared_table(cache, ids, tmp_path / "new") as table:
        size = table.path.stat().st_size / 1024
        here = table.open()
        with workers(table, 2) as seen:
            pids = [os.getpid(), *(pid for pid, *_ in seen)]
            held = [proportional_memory(pid, table.path) for pid in pids if ON_LINUX]
    content = expected.values.tobytes() + expected.pts_seconds.tobytes()
    digest = hashlib.sha256(content).hexdigest(), tuple(ids)
    assert [each[1:3] for each in seen] == [digest, digest]
    assert here.values.tobytes() + here.pts_seconds.tobytes() == content
    assert (here.video_ids, here.spec) == (tuple(ids), cache.spec)
    assert (here.values.dtype, here.pts_seconds.dtype) == (np.float16, np.float64)
    np.testing.assert_array_equal(here.offsets, expected.offsets)
    assert size > 12_000
    if ON_LINUX:
        assert sum(held) == pytest.approx(size, rel=0.05)
    assert max(own for *_, own in seen) < 0.1 * size


def test_what_one_writes_stays_with_it_and_torch_takes_the_arrays_as_they_are(cache, tmp_path):
    with shared_table(cache, IDS, tmp_path) as table:
        one, other = table.open(), table.open()
        torch.from_numpy(one.values).zero_()
        torch.from_numpy(one.pts_seconds).zero_()
        for mapped in (other, table.open()):
            np.testing.assert_array_equal(mapped.values, cache.load(IDS).values)
            np.testing.assert_array_equal(mapped.pts_seconds, cache.load(IDS).pts_seconds)
        assert not one.values.any()


def test_it_is_sent_about_in_few_bytes_and_known_by_its_file(cache, tmp_path):
    with shared_table(cache, IDS, tmp_path) as table, shared_table(cache, IDS, tmp_path) as other:
        sent = pickle.dumps(table)
        assert len(sent) < 5000
        assert pickle.loads(sent) == table
        assert hash(pickle.loads(sent)) == hash(table)
        assert table != other


def test_the_file_goes_when_the_context_ends_and_what_is_mapped_stays(cache, tmp_path):
    with pytest.raises(KeyError), shared_table(cache, IDS, tmp_path) as table:
        mapped = table.open()
        assert list(tmp_path.iterdir()) == [table.path]
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(mapped.values, cache.load(IDS).values)
    with pytest.raises(CacheError, match=r"cannot map the shared features .*; start that again"):
        table.open()


def test_a_file_cut_short_is_refused(cache, tmp_path):
    with shared_table(cache, IDS, tmp_path) as table:
        with table.path.open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(CacheError, match="cannot map the shared features"):
            table.open()


def test_what_a_killed_process_left_goes_and_what_a_living_one_shares_stays(cache, tmp_path):
    command = [sys.executable, "-c", SHARE, cache.folder, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "shared\n"
        [theirs] = tmp_path.iterdir()
        with shared_table(cache, IDS, tmp_path) as table:
            assert set(tmp_path.iterdir()) == {theirs, table.path}
        assert list(tmp_path.iterdir()) == [theirs]
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == [theirs]
    with shared_table(cache, IDS, tmp_path) as table:
        assert list(tmp_path.iterdir()) == [table.path]


def test_a_full_disk_is_told_of_and_nothing_stays_with_fallocate_and_without(cache, tmp_path):
    frames = 2000 + 2001
    size = frames * (2 * DIM + 8)
    command = [sys.executable, "-c", REFUSED, cache.folder, tmp_path / "new", str(size - 1)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = done.stdout.splitlines()
    assert len(messages) == 2
    for message in messages:
        assert f"cannot lay {size / 1e6:.1f} MB of features down in {tmp_path}" in message
        assert "File too large. Mend that, or choose another folder" in message
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_of(cache, tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(CacheError, match=r"features down in .*file/new, .*: Not a directory\. Mend"),
        shared_table(cache, IDS, tmp_path / "file" / "new"),
    ):
        pass


def test_without_fallocate_it_is_the_same(cache, tmp_path, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    with shared_table(cache, IDS, tmp_path) as table:
        np.testing.assert_array_equal(table.open().values, cache.load(IDS).values)


def test_vectors_of_any_width_leave_the_times_where_numbers_may_lie(tmp_path):
    made = EncodedVideo("v", np.ones((3, 3), np.float16), np.arange(3.0))
    write_shard(tmp_path, made_up.spec(3), [made])
    with shared_table(Cache.open(tmp_path), ["v"], tmp_path) as table:
        assert table.open().pts_seconds.flags.aligned
        assert table.open().pts_seconds.tolist() == [0, 1, 2]


def test_a_table_may_be_empty(cache, tmp_path):
    with shared_table(cache, [], tmp_path) as table:
        mapped = table.open()
    assert mapped.values.shape == (0, DIM)
    assert len(mapped) == len(mapped.pts_seconds) == 0


def test_missing_videos_are_named_before_anything_is_made(cache, tmp_path):
    with (
        pytest.raises(CacheError, match=r"1 of 2 videos are not in .*, 'x' first"),
        shared_table(cache, ["v1", "x"], tmp_path / "new"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
