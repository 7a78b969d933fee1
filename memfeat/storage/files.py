"""Local files: atomic writes, stale part files, hashes, and the user's cache folder."""

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

PART_SUFFIX = ".part"


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
    """Give an empty `.NAME.*.part` file, deleted when the context ends unless it was renamed.

    The lock on it says that its writer is alive; `remove_stale_parts` deletes those without.
    """
    while True:
        part = folder / f".{name}.{uuid.uuid4().hex}{PART_SUFFIX}"
        with part.open("x+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Another process may have removed it as stale before it was locked.
                if os.fstat(file.fileno()).st_nlink:
                    yield file
                    return
            finally:
                part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as `atomic_replace` does; raises OSError as it does."""
    with atomic_replace(path) as part:
        part.write_bytes(content)


def remove_stale_parts(folder: Path) -> int:
    """Delete the part files that killed writers left in `folder`; return how many.

    A part file whose writer is alive is locked, and stays.
    """
    removed = 0
    for part in folder.glob(f".*{PART_SUFFIX}"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
            removed += 1
    return removed


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


def user_cache() -> Path | None:
    """Return `$XDG_CACHE_HOME/memfeat`, for what can be made again; None if there is no home."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with contextlib.suppress(RuntimeError):
        return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "memfeat"
    return None
