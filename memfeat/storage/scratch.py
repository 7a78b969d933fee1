"""Where copies of remote files lie on this machine: in the user's cache, and not for longer."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from memfeat.errors import RemoteError
from memfeat.storage.files import user_cache
from memfeat.storage.locations import Url
from memfeat.storage.remote import fetch

LOCK = ".lock"


def remote_cache() -> Path:
    """Return the folder that copies lie in: `$XDG_CACHE_HOME/memfeat/remote`.

    Raises:
        RemoteError: this user has no cache.
    """
    folder = user_cache()
    if folder is None:
        raise RemoteError(
            "unusable",
            "there is no folder for copies of remote files, for this user has no home; set "
            "XDG_CACHE_HOME to one",
        )
    return folder / "remote"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder of this process alone, beside the copies; it is deleted with the context.

    Those that killed processes left are deleted first: a living one holds a lock in its own.

    Raises:
        RemoteError: this user has no cache.
        OSError: the folder cannot be made.
    """
    home = remote_cache() / "scratch"
    home.mkdir(parents=True, exist_ok=True)
    _remove_stale(home)
    while True:
        folder = Path(tempfile.mkdtemp(dir=home))
        try:
            with (folder / LOCK).open("xb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not os.fstat(lock.fileno()).st_nlink:
                    continue  # another process took it for stale in the moment before
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_copy(place: Path | Url) -> Iterator[Path]:
    """Give a file on this machine: a remote one is fetched, and its copy deleted with the context.

    Raises:
        RemoteError: it cannot be fetched; see `memfeat.storage.fetch`.
        OSError: this machine's disk is full.
    """
    if isinstance(place, Path):
        yield place
        return
    with scratch_folder() as folder:
        copy = folder / f"copy{place.suffix}"
        fetch(place, copy)
        yield copy


def _remove_stale(home: Path) -> None:
    for lock in home.glob(f"*/{LOCK}"):
        with suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
