"""Local copies of remote files: a mirror of a folder of shards, kept; and single files, not kept.

fsspec's own caches were tried in place of this (2026.9.0) and cannot be used. `simplecache` takes
what a killed download left for the whole file, `filecache` writes a new version into the same file
under a reader that has mapped the old one and fetches again what was just uploaded, and the local
file of `blockcache` has its full length, with zeros wherever nothing was read yet.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from memfeat.errors import RemoteError
from memfeat.storage.files import (
    atomic_replace,
    part_name,
    remove_stale_parts,
    user_cache,
    write_atomically,
)
from memfeat.storage.locations import Location, Url
from memfeat.storage.remote import FileInfo, fetch, list_files, move, remove, upload

FETCHERS = 8  # threads
SHARDS = "shard-*.h5"
RECENT_SECONDS = 60.0


class Mirror:
    """A remote folder of shards and its copy in `$XDG_CACHE_HOME/memfeat/remote`.

    A shard is fetched if the copy lacks it or has another version of it. The version of each is
    kept in a file beside it, written last. Several processes may share the copy; deleting it costs
    nothing but fetching again.

    Attributes:
        url: the remote folder.
        folder: the copy.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        digest = hashlib.sha256(str(url).encode()).hexdigest()[:16]
        self.folder = copies_folder() / f"{url.name}-{digest}"

    def pull(self, *, anew: bool = False) -> Path:
        """Make the copy like the remote folder, and return it.

        With `anew` also what is there already.

        Raises:
            RemoteError: the folder cannot be listed, or a shard not be fetched.
            OSError: this machine's disk is full.
        """
        started = time.time()
        found = list_files(self.url)
        remote = {name: found[name] for name in found if fnmatch(name, SHARDS)}
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(self.folder)
        for path in self.folder.glob(SHARDS):
            # A younger one may have been uploaded, and put here, since the folder was listed.
            if path.name not in remote and path.stat().st_mtime < started - RECENT_SECONDS:
                path.unlink(missing_ok=True)
        wanted = [name for name in remote if anew or self._version(name) != remote[name].version]
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
            list(pool.map(lambda name: self._fetch(name, remote[name]), wanted))
        return self.folder

    def push(self, path: Path) -> None:
        """Upload a shard, and move it from where it is into the copy.

        Args:
            path: on the disk of the copy.

        Raises:
            RemoteError: it cannot be written there; see `memfeat.storage.fetch`.
        """
        version = upload(path, self._at(path.name))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._version_file(path.name).unlink(missing_ok=True)
        path.replace(self.folder / path.name)
        write_atomically(self._version_file(path.name), version.encode())

    def drop(self, name: str) -> None:
        """Delete the copy of a shard, so that the next pull fetches it again."""
        (self.folder / name).unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete a shard there, and its copy.

        Raises:
            RemoteError: it cannot be deleted.
        """
        remove(self._at(name))
        self.drop(name)

    def set_aside(self, name: str) -> Url:
        """Rename a remote shard to `*.damaged`, drop its copy, and return its new URL.

        Raises:
            RemoteError: it cannot be renamed.
        """
        target = self._at(f"{name}.damaged")
        move(self._at(name), target)
        self.drop(name)
        return target

    def _at(self, name: str) -> Url:
        return Url(f"{self.url}/{name}")

    def _version_file(self, name: str) -> Path:
        return self.folder / f".{name}.version"

    def _version(self, name: str) -> str | None:
        """Return the version of the copy of a shard, None if there is none."""
        try:
            (self.folder / name).stat()
            return self._version_file(name).read_text()
        except OSError:
            return None

    def _fetch(self, name: str, info: FileInfo) -> None:
        self._version_file(name).unlink(missing_ok=True)
        with atomic_replace(self.folder / name) as part:
            fetch(self._at(name), part)
            size = part.stat().st_size
            if info.size not in (None, size):
                raise RemoteError(
                    "unreachable",
                    f"of {self._at(name)} came {size} of {info.size} bytes; run the same command "
                    "again",
                )
        write_atomically(self._version_file(name), info.version.encode())


def files_at(folder: Location, pattern: str) -> list[str]:
    """Return the names of the files in a folder that match, sorted; none if there is no folder.

    Raises:
        RemoteError: it is remote, and cannot be listed.
    """
    if isinstance(folder, Path):
        return sorted(path.name for path in folder.glob(pattern))
    return sorted(name for name in list_files(folder) if fnmatch(name, pattern))


def shards_at(folder: Location) -> list[str]:
    """Return the names of the shards in a folder, as `files_at`."""
    return files_at(folder, SHARDS)


@contextmanager
def local_copy(location: Location) -> Iterator[Path]:
    """Give a file on this machine: a remote one is fetched, and its copy deleted with the context.

    Raises:
        RemoteError: it cannot be fetched; see `memfeat.storage.fetch`.
        OSError: this machine's disk is full.
    """
    if isinstance(location, Path):
        yield location
        return
    with scratch_folder() as folder:
        copy = folder / f"copy{location.suffix}"
        fetch(location, copy)
        yield copy


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder of this process alone, beside the copies; it is deleted with the context.

    Those that killed processes left are deleted first; see `remove_stale_parts`.

    Raises:
        RemoteError: this user has no cache.
        OSError: the folder cannot be made.
    """
    parent = copies_folder() / "scratch"
    parent.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(parent)
    folder = parent / part_name("scratch")
    folder.mkdir(0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copies_folder() -> Path:
    """Return the folder in the user's cache for copies of what is remote.

    Raises:
        RemoteError: this user has none.
    """
    folder = user_cache()
    if folder is None:
        raise RemoteError(
            "unusable",
            "there is no folder for copies of remote files, for this user has no home; set "
            "XDG_CACHE_HOME to one",
        )
    return folder / "remote"
