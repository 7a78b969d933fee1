"""Local files: atomic writes, stale part files, hashes, and the user's cache folder."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PART_SUFFIX = ".part"
STALE_SECONDS = 24 * 60 * 60.0  # since another machine has written to a part file
# Machine, process, and when that started.
_WRITER = re.compile(rf"\.([0-9a-f]{{8}})-(\d{{1,9}})-(\d*)-[0-9a-f]{{8}}{re.escape(PART_SUFFIX)}")


@contextmanager
def atomic_replace(path: Path) -> Iterator[Path]:
    """Give a `*.part` file beside `path` to write, and rename it to `path` when the context ends.

    A reader, or a crash, sees the old file or the new one: the part file is fsynced, renamed over
    the target, and the folder is fsynced. Missing parent folders are made.

    Raises:
        OSError: the disk is full, the folder is read-only, and so on; no part file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked_part(path.parent, path.name) as locked:
        part = Path(locked.name)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked_part(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Give an empty part file, deleted when the context ends unless it was renamed.

    It is locked, where the file system has locks.
    """
    part = folder / part_name(name)
    with part.open("x+b") as file:
        try:
            with contextlib.suppress(OSError):  # NFS and Lustre may have none
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            part.unlink(missing_ok=True)


def part_name(name: str) -> str:
    """Return a new `.NAME.*.part`, which says what process of what machine writes it."""
    process = os.getpid()
    writer = f"{_machine()}-{process}-{_start_of(process)}-{uuid.uuid4().hex[:8]}"
    return f".{name}.{writer}{PART_SUFFIX}"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as `atomic_replace` does; raises OSError as it does."""
    with atomic_replace(path) as part:
        part.write_bytes(content)


def remove_stale_parts(folder: Path) -> int:
    """Delete the part files, and folders, that killed writers left in `folder`; return how many.

    What is locked stays, and what a living process of this machine writes. What another machine
    writes stays until nothing was written to it for a day: its processes are not known here, and
    NFS and Lustre can be mounted without locks, or with locks that other machines do not see.
    """
    removed = 0
    for part in folder.glob(f".*{PART_SUFFIX}"):
        with contextlib.suppress(OSError):  # it has just gone, or is not ours to delete
            if _is_stale(part):
                # Another thread may be deleting the same: neither stops at what the other took.
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink()
                removed += not part.exists()
    return removed


def _is_stale(part: Path) -> bool:
    locked, writer = _is_locked(part), _WRITER.search(part.name)
    if locked:
        return False
    if writer and writer[1] == _machine():
        return not _is_running(int(writer[2]), writer[3])
    if writer is None and (locked is False or part.is_dir()):  # an earlier version's, or not ours
        return locked is False
    return time.time() - part.stat().st_mtime > STALE_SECONDS


def _is_locked(part: Path) -> bool | None:
    """Whether another process has locked a part file; None where that cannot be known."""
    try:
        with part.open("r+b") as file:  # NFS locks no file that is open for reading alone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


@functools.cache
def _machine() -> str:
    """Return a mark of the machine, or of the container, that this process's number counts in."""
    space = Path()
    with contextlib.suppress(OSError):
        space = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{os.uname().nodename} {space}".encode()).hexdigest()[:8]


def _is_running(pid: int, start: str) -> bool:
    """Whether a process runs that started then; a later one may have its number."""
    now = _start_of(pid)
    if start and now:
        return start == now
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True


def _start_of(pid: int) -> str:
    """Return when a process started, `Z` if it only waits to be reaped, empty if nothing tells."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "Z" if state in "ZX" else fields[18]
    return ""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN and infinity are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def sha256_of_file(path: Path, on_block: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Args:
        path: the file.
        on_block: called after each mebibyte, for a large file takes a while.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if on_block is not None:
                on_block()
    return digest.hexdigest()


def stand_in(start: bytes) -> str | None:
    """Say in words what often stands in a file's place; None if it does not begin like that."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs."):
        return "a pointer of Git LFS in the file's place; `git lfs pull` where it came from gets it"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page in the file's place, as servers send to say why not; fetch it again"
    return None


def user_cache() -> Path | None:
    """Return `$XDG_CACHE_HOME/memfeat`, for what can be made again; None if there is no home."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with contextlib.suppress(RuntimeError):
        return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "memfeat"
    return None
