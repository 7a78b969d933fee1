import fcntl
import hashlib
import os
import subprocess
import sys
import time

import pytest

from memfeat.storage import remove_stale_parts, sha256_of_file, write_atomically, write_json

WRITE_FOREVER = """
import sys
from pathlib import Path
from memfeat.storage import write_atomically
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 300_000)
"""


def test_a_file_replaces_the_old_one_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    for delay in (0.0, 0.005, 0.02):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, path]) as writer:
            while not path.exists():
                time.sleep(0.01)
            time.sleep(delay)
            writer.kill()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        path.unlink()
    remove_stale_parts(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(OSError, match="directory"):
        write_atomically(target, b"a file cannot replace a folder")
    assert list(tmp_path.iterdir()) == [target]


def test_a_living_writers_part_is_left_alone(tmp_path):
    dead, alive = tmp_path / ".x.1.part", tmp_path / ".x.2.part"
    dead.touch()
    with alive.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_stale_parts(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [alive]


def test_json_is_utf8_and_refuses_nan(tmp_path):
    write_json(tmp_path / "file", {"é": 1})
    assert (tmp_path / "file").read_bytes() == '{\n  "é": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", float("nan"))


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(b"x" * 1000).hexdigest()
