"""Remote files through fsspec: read and written whole, with retries, and errors in one line.

All functions raise `RemoteError` as `fetch` tells.

Everything between fetching and uploading works on this machine's disk.
"""

import contextlib
import errno
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from threading import Event, Lock
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

from memfeat.errors import RemoteError
from memfeat.storage.files import PART_SUFFIX
from memfeat.storage.locations import Url

T = TypeVar("T")
FileSystem = Any  # fsspec's AbstractFileSystem, which has no types
Work = Callable[[FileSystem, str], T]

READING = {"read", "list"}
TRIES = 3
PAUSE_SECONDS = 0.5  # before the second try, and twice that before the third

# An object there is whole or absent, so it can be uploaded under its own name.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "r2"}
LOCAL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EFBIG}
SHARED_POSITION = {"memory"}  # where all readers of a file share one position in it
PASSING_STATUSES = {408, 425, 429}  # of HTTP's 400 to 499, those that a retry may mend
VERSIONS = (  # what file systems call that which changes when a file's content does
    "ETag",
    "etag",
    "blob_id",
    "md5Hash",
    "content_md5",
    "generation",
    "mtime",
    "LastModified",
    "last_modified",
    "modified",
    "created",
)
_one_reader = Lock()


class FileInfo(NamedTuple):
    """A remote file: its size in bytes, and what changes when its content does, if known."""

    size: int | None
    version: str


def read(url: Url) -> bytes:
    """Return a file's content."""
    content: bytes = _with_retries(url, "read", lambda system, path: system.cat_file(path))
    return content


def fetch(url: Url, target: Path, *, stop: Event | None = None) -> None:
    """Copy a file to this machine; of a failed copy nothing is left.

    Args:
        url: the file.
        target: where to; what is there is overwritten.
        stop: fetching ends with an error soon after it is set.

    Raises:
        RemoteError: it is not there (`missing`), may not be read (`permission`), cannot be got in
            several tries (`unreachable`), or nothing of its kind can (`unusable`).
        OSError: this machine's disk is full.
    """

    def get(system: FileSystem, path: str) -> None:
        callback = _fsspec().Callback(hooks={"stop": lambda *_: _raise_if_stopped(stop)})
        with _one_reader if url.protocol in SHARED_POSITION else contextlib.nullcontext():
            system.get_file(path, str(target), callback=callback)

    try:
        _with_retries(url, "read", get)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def upload(source: Path, url: Url) -> str:
    """Copy a file from this machine, whole or not at all; return its version there."""

    def put(system: FileSystem, path: str) -> str:
        if url.protocol in OBJECT_STORES:
            system.put_file(str(source), path)
        else:
            _put_and_move(system, source, path)
        system.invalidate_cache(path)
        return _file_info(system.info(path)).version

    return _with_retries(url, "write", put)


def write(url: Url, content: bytes) -> None:
    """Write a small file."""

    def put(system: FileSystem, path: str) -> None:
        _make_parents(system, path)
        system.pipe_file(path, content)

    _with_retries(url, "write", put)


def describe(url: Url) -> FileInfo:
    """Describe a file."""

    def found(system: FileSystem, path: str) -> FileInfo:
        system.invalidate_cache(path)
        return _file_info(system.info(path))

    return _with_retries(url, "read", found)


def list_files(folder: Url) -> dict[str, FileInfo]:
    """Describe the files in a folder, by name; none if there is no such folder."""

    def listed(system: FileSystem, path: str) -> dict[str, FileInfo]:
        system.invalidate_cache(path)
        try:
            found = system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            each["name"].rstrip("/").rpartition("/")[2]: _file_info(each)
            for each in found
            if each["type"] == "file"
        }

    return _with_retries(folder, "list", listed)


def move(url: Url, target: Url) -> None:
    """Give a file another name in the same storage."""
    last = target.name
    _with_retries(url, "rename", lambda fs, path: fs.mv(path, f"{path.rpartition('/')[0]}/{last}"))


def remove(url: Url) -> None:
    """Delete a file."""
    _with_retries(url, "delete", lambda system, path: system.rm_file(path))


class _StoppedError(Exception):
    """The caller's stop event was set."""


def _raise_if_stopped(stop: Event | None) -> None:
    if stop is not None and stop.is_set():
        raise _StoppedError


def _fsspec() -> ModuleType:
    import fsspec  # noqa: PLC0415 (which takes longer than the rest of `memfeat --help`)

    return cast(ModuleType, fsspec)


def _put_and_move(system: FileSystem, source: Path, path: str) -> None:
    """Upload to a `*.part` name, and rename, so that no shard is ever half there."""
    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{name}.{uuid.uuid4().hex}{PART_SUFFIX}"
    _make_parents(system, path)
    try:
        system.put_file(str(source), part)
        system.mv(part, path)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to raise
            system.rm_file(part)
        raise


def _make_parents(system: FileSystem, path: str) -> None:
    """Make the folder of a file where folders have to be made; an object store has none."""
    if not set(_protocols(system)) & OBJECT_STORES:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)


def _protocols(system: FileSystem) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _file_info(info: Mapping[str, Any]) -> FileInfo:
    mark = next((info[name] for name in VERSIONS if info.get(name) is not None), "")
    if isinstance(mark, datetime):  # which some give in one answer, and a number in another
        mark = mark.timestamp()
    return FileInfo(info.get("size"), f"{info.get('size')} {mark}")


def _with_retries(url: Url, verb: str, work: Work[T]) -> T:
    """Call `work` with a URL's file system and path, and again where a retry may help."""
    if url.is_web and verb not in READING:
        why = "a web server's files can only be read; name a folder here, or in a storage"
        raise RemoteError("unusable", f"cannot {verb} {url}: {why}")
    for number in range(1, TRIES + 1):
        try:
            system, path = _fsspec().url_to_fs(url.text)
            return work(system, path)
        # Each file system has a library with errors of its own, and documents none of them.
        except Exception as error:
            if isinstance(error, _StoppedError) or (
                isinstance(error, OSError) and error.errno in LOCAL_ERRORS
            ):
                raise
            problem = _remote_error(url, verb, error)
            if problem.reason != "unreachable" or number == TRIES:
                raise problem from error
        time.sleep(PAUSE_SECONDS * 2 ** (number - 1))
    raise AssertionError  # the last try returns or raises


def _remote_error(url: Url, verb: str, error: Exception) -> RemoteError:
    """Turn the error of a file system's library into one line and a reason."""
    cause = error.__cause__
    if url.is_web and isinstance(error, FileNotFoundError) and isinstance(cause, Exception):
        error = cause  # of which no file is found, whatever it is
    status = getattr(error, "status", None)
    kind, said = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, ImportError | ValueError):  # no package for the protocol, or no protocol
        reason, why = "unusable", said
    elif isinstance(error, NotImplementedError):
        reason = "unusable"
        why = f"{url.protocol}:// can only be read; name a folder here, or in a storage"
    elif "Credentials" in kind:
        reason = "unusable"
        why = (
            f"{said}; set the credentials of {url.protocol}:// in the environment, as its own "
            "tools take them"
        )
    elif isinstance(error, FileNotFoundError | IsADirectoryError) or status in (404, 410):
        reason, why = "missing", "there is no such file, folder or bucket; correct the name"
    elif isinstance(error, PermissionError) or (
        isinstance(status, int) and 400 <= status < 500 and status not in PASSING_STATUSES
    ):
        reason, why = "permission", f"it is not allowed ({said or kind})"
    else:
        reason, why = "unreachable", f"{TRIES} tries failed, the last with: {said or kind}"
    return RemoteError(reason, f"cannot {verb} {url}: {why}")
