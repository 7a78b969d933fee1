import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from locks import ERRORS, lockless, needs_shim

from memfeat.storage import remove_stale_parts, sha256_of_file, write_atomically, write_json
from memfeat.storage.files import STALE_SECONDS, part_name

WRITE_FOREVER = """
import sys
from pathlib import Path
from memfeat.storage import write_atomically
while True:
    for letter in b"ab":
        write_atomically(Path(sys.argv[1]), bytes([letter]) * 300_000)
"""


HOLD = """
import sys
from pathlib import Path
from memfeat.storage.files import locked_part
with locked_part(Path(sys.argv[1]), "x") as part:
    print(part.name, flush=True)
    sys.stdin.read()
"""
NAME = """
from memfeat.storage.files import part_name
print(part_name("ended"), end="")
"""
WRITE = """
import sys
from pathlib import Path
from memfeat.storage import remove_stale_parts, write_atomically
removed = remove_stale_parts(Path(sys.argv[1]))
write_atomically(Path(sys.argv[1], "file"), b"new")
print(removed, end="")
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


@needs_shim
@pytest.mark.parametrize("error", ERRORS)
def test_on_any_file_system_files_are_written_and_only_killed_writers_parts_removed(
    tmp_path, error
):
    hold = [sys.executable, "-c", HOLD, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    how = {**pipes, "text": True, "env": lockless(error)}
    with subprocess.Popen(hold, **how) as living, subprocess.Popen(hold, **how) as killed:
        kept, stale = (Path(each.stdout.readline().strip()) for each in (living, killed))
        killed.kill()
        killed.wait()
        assert stale.exists()
        write = [sys.executable, "-c", WRITE, tmp_path]
        assert subprocess.run(write, check=True, **how).stdout == "1"
        assert set(tmp_path.iterdir()) == {kept, tmp_path / "file"}


def renamed(name: str, field: int, value: str) -> str:
    """A part file's name with another machine (0), process (1) or start of that (2)."""
    begin, writer, end = name.rsplit(".", 2)
    parts = writer.split("-")
    parts[field] = value
    return ".".join([begin, "-".join(parts), end])


def test_another_machines_part_stays_until_nothing_was_written_for_a_day(tmp_path):
    part, folder = (tmp_path / renamed(part_name(name), 0, "0" * 8) for name in ("file", "folder"))
    part.touch()
    folder.mkdir()
    assert remove_stale_parts(tmp_path) == 0
    before = time.time() - STALE_SECONDS
    for path in (part, folder):
        os.utime(path, (before + 60, before + 60))
    assert remove_stale_parts(tmp_path) == 0
    for path in (part, folder):
        os.utime(path, (before - 60, before - 60))
    assert remove_stale_parts(tmp_path) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process started")
def test_a_later_process_of_the_same_number_is_not_taken_for_the_writer(tmp_path):
    (tmp_path / part_name("own")).touch()
    (tmp_path / renamed(part_name("earlier"), 2, "1")).touch()
    command = [sys.executable, "-c", NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ended:
        (tmp_path / ended.stdout.read()).touch()
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # which leaves it a zombie
        assert remove_stale_parts(tmp_path) == 2
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".own."]


def test_a_part_that_may_not_be_deleted_or_read_ends_nothing(tmp_path):
    (tmp_path / ".a.part").mkdir()
    (tmp_path / ".b.part").symlink_to("nowhere")
    assert remove_stale_parts(tmp_path) == 0


def test_json_is_utf8_and_refuses_nan(tmp_path):
    write_json(tmp_path / "file", {"é": 1})
    assert (tmp_path / "file").read_bytes() == '{\n  "é": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", float("nan"))


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(b"x" * 1000).hexdigest()
