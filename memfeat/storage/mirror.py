"""A remote folder of shards, and what of it lies on this machine."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from memfeat.errors import RemoteError
from memfeat.storage.files import atomic_replace, remove_stale_parts, write_atomically
from memfeat.storage.locations import Url
from memfeat.storage.remote import Stored, fetch, list_files, move, upload
from memfeat.storage.scratch import remote_cache

FETCHERS = 8  # at once
PATTERN = "shard-*.h5"
JUST_NOW = 60.0  # seconds


class Mirror:
    """A remote folder of shards with a copy of it in this user's cache, where it is read.

    A shard is fetched if it is not in the copy, or in another version. Beside each lies a note of
    its version, written last. Several processes may share the copy; deleting it costs nothing but
    fetching again.

    Attributes:
        url: the remote folder.
        folder: the copy.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        digest = hashlib.sha256(str(url).encode()).hexdigest()[:16]
        self.folder = remote_cache() / f"{url.name}-{digest}"

    def pull(self, *, anew: bool = False) -> Path:
        """Make the copy like the remote folder, and return it.

        Args:
            anew: whether to fetch even what is there.

        Raises:
            RemoteError: the folder cannot be listed, or a shard not be fetched.
            OSError: this machine's disk is full.
        """
        started = time.time()
        found = list_files(self.url)
        there = {name: found[name] for name in found if fnmatch(name, PATTERN)}
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(self.folder)
        for path in self.folder.glob(PATTERN):
            # A younger one may have been put there, and here, since the folder was listed.
            if path.name not in there and path.stat().st_mtime < started - JUST_NOW:
                path.unlink(missing_ok=True)
        wanted = [name for name in there if anew or self._noted(name) != there[name].version]
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
            list(pool.map(lambda name: self._fetch(name, there[name]), wanted))
        return self.folder

    def push(self, path: Path) -> None:
        """Put a shard in place, and move it from where it is into the copy.

        Args:
            path: on the disk of the copy.

        Raises:
            RemoteError: it cannot be written there; see `memfeat.storage.fetch`.
        """
        version = upload(path, self._at(path.name))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._note(path.name).unlink(missing_ok=True)
        path.replace(self.folder / path.name)
        write_atomically(self._note(path.name), version.encode())

    def drop(self, name: str) -> None:
        """Delete the copy of a shard, so that the next pull fetches it again."""
        (self.folder / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> Url:
        """Rename a remote shard that cannot be read, drop its copy, and return its new place.

        Raises:
            RemoteError: it cannot be renamed.
        """
        target = self._at(f"{name}.damaged")
        move(self._at(name), target)
        self.drop(name)
        return target

    def _at(self, name: str) -> Url:
        return Url(f"{self.url}/{name}")

    def _note(self, name: str) -> Path:
        return self.folder / f".{name}.version"

    def _noted(self, name: str) -> str | None:
        try:
            (self.folder / name).stat()
            return self._note(name).read_text()
        except OSError:
            return None

    def _fetch(self, name: str, stored: Stored) -> None:
        self._note(name).unlink(missing_ok=True)
        with atomic_replace(self.folder / name) as part:
            fetch(self._at(name), part)
            size = part.stat().st_size
            if stored.size not in (None, size):
                raise RemoteError(
                    "unreachable",
                    f"of {self._at(name)} came {size} of {stored.size} bytes; run the same command "
                    "again",
                )
        write_atomically(self._note(name), stored.version.encode())


def files_at(place: Path | Url, pattern: str) -> list[str]:
    """Return the names of files in a folder, sorted; none if there is no such folder.

    Args:
        place: the folder.
        pattern: such as `*.h5`.

    Raises:
        RemoteError: it is remote, and cannot be listed.
    """
    if isinstance(place, Path):
        return sorted(path.name for path in place.glob(pattern))
    return sorted(name for name in list_files(place) if fnmatch(name, pattern))


def shards_at(place: Path | Url) -> list[str]:
    """Return the names of the shards in a folder, sorted; none if there is no such folder.

    Raises:
        RemoteError: it is remote, and cannot be listed.
    """
    return files_at(place, PATTERN)


def local_folder(place: Path | Url, *, anew: bool = False) -> Path:
    """Return where the shards of a folder can be read: there, or in a copy, made like it now.

    Args:
        place: the folder.
        anew: whether to fetch what the copy has already.

    Raises:
        RemoteError: it is remote, and cannot be fetched.
        OSError: this machine's disk is full.
    """
    return place if isinstance(place, Path) else Mirror(place).pull(anew=anew)
