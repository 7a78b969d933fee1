"""Writing a shard: rows are spooled as they are encoded, then written as one HDF5 file."""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from memfeat.cache.shard import TEXTS, checksum, open_shard, text_attribute
from memfeat.cache.spec import CacheSpec
from memfeat.cache.video import EncodedVideo, Rows, blocks_of
from memfeat.errors import CacheError, DamagedShardError
from memfeat.storage import Location, Mirror, atomic_replace, scratch_folder

SPOOL_MEMORY = 8 << 20  # bytes of rows kept in memory
HEADER_BYTES = 1 << 16  # at most


def write_shard(folder: Path, spec: CacheSpec, videos: Sequence[EncodedVideo[Rows]]) -> Path:
    """Write one shard, whole or not at all, and return its path.

    The name follows from the spec, the ids and attempts, and the bytes from the content, so the
    same shard made twice, by anyone, is the same file.

    Raises:
        CacheError: the folder holds shards of another making, or cannot be written to.
    """
    for other in _any_shard(folder):
        with suppress(DamagedShardError), open_shard(other) as shard:
            shard.spec.require(spec, f"{folder} was meanwhile given shards made differently")
    parts = [spec.model_dump_json(), *(video.video_id for video in videos)]
    if any(video.attempt for video in videos):
        parts += [f"/{video.attempt}" for video in videos]  # which are no ids
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = folder / f"shard-{key[:16]}.h5"
    with _write_errors(path), atomic_replace(path) as part:
        _write(part, spec, videos)
    return path


class ShardTarget(NamedTuple):
    """The folder that shards are written into, and what then puts each in place."""

    folder: Path
    put: Callable[[Path], None]


@contextmanager
def shard_target(cache: Location) -> Iterator[ShardTarget]:
    """Write shards into the cache itself; or, if that is remote, into a folder to upload from."""
    if isinstance(cache, Path):
        yield ShardTarget(cache, lambda _: None)
        return
    with scratch_folder() as folder:
        yield ShardTarget(folder, Mirror(cache).push)


def _any_shard(folder: Path) -> Iterator[Path]:
    """Yield one shard of the folder, if there is any, without listing a large folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("shard-") and entry.name.endswith(".h5"):
                yield folder / entry.name
                return


class Spool:
    """A spool of rows: those of a shard's videos, as they are encoded, until all are.

    Few are kept in memory, more in an unnamed temporary file in the cache's folder, which is gone
    with the process.

    Attributes:
        num_rows: how many it holds.

    Raises:
        CacheError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.num_rows = 0
        self._path = folder / "shard"
        self._width = width
        with _write_errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.SpooledTemporaryFile(SPOOL_MEMORY, dir=str(folder))  # noqa: SIM115

    def close(self) -> None:
        """Forget the rows."""
        with suppress(OSError):  # what could not be flushed is no longer needed
            self._file.close()

    def append(self, rows: NDArray[np.float16]) -> None:
        """Add rows, float16 (rows, width).

        Raises:
            CacheError: the disk is full.
        """
        with _write_errors(self._path):
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(rows, "<f2").data.cast("B"))
        self.num_rows += len(rows)

    def read(self, start: int, stop: int) -> NDArray[np.float16]:
        """Return the rows from `start` up to `stop`."""
        self._file.seek(start * self._width * 2)
        content = self._file.read((stop - start) * self._width * 2)
        return np.frombuffer(content, "<f2").reshape(-1, self._width)


class SpooledRows:
    """Some rows of a spool, at the places `at`, int (rows,), in rising order."""

    def __init__(self, spool: Spool, at: NDArray[np.int64]) -> None:
        self._spool = spool
        self._at = at

    def where(self, kept: NDArray[np.bool_]) -> "SpooledRows":
        """Return those rows at which `kept`, bool (rows,), is true."""
        return SpooledRows(self._spool, self._at[kept])

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: slice, /) -> NDArray[np.float16]:
        at = self._at[index]
        if not len(at):
            return self._spool.read(0, 0)
        rows: NDArray[np.float16] = self._spool.read(int(at[0]), int(at[-1]) + 1)[at - at[0]]
        return rows


def _write(part: Path, spec: CacheSpec, videos: Sequence[EncodedVideo[Rows]]) -> None:
    """Write a shard's file; its bytes depend on nothing but spec and videos."""
    columns = _columns(videos)
    shape = int(columns["offsets"][-1]), spec.width
    # Disk space is reserved first, so that a full disk is an error of the system, not of HDF5.
    size = 2 * math.prod(shape) + sum(array.nbytes for array in columns.values())
    text = spec.model_dump_json()
    with h5py.File(part, "w", driver="sec2", locking=False) as file:
        _reserve(part, size + HEADER_BYTES)
        for name, array in columns.items():
            utf8 = h5py.string_dtype("utf-8", array.itemsize)
            file.create_dataset(name, data=array.view(utf8) if name in TEXTS else array)
        embeddings = file.create_dataset("embeddings", shape, "<f2")
        start = 0
        for block in _blocks(videos):
            embeddings[start : start + len(block)] = block
            start += len(block)
        file.attrs.create("spec", **text_attribute(text))
        sha256 = checksum(text, columns, shape, _blocks(videos))
        file.attrs.create("sha256", **text_attribute(sha256))
        file.flush()
        size = file.id.get_filesize()
    os.truncate(part, size)


def _reserve(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR)  # where the system cannot reserve, libc also reads
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _blocks(videos: Sequence[EncodedVideo[Rows]]) -> Iterator[NDArray[np.float16]]:
    """Yield the embeddings of all videos, a part at a time."""
    return chain.from_iterable(blocks_of(each.embeddings) for each in videos)


def _columns(videos: Sequence[EncodedVideo[Rows]]) -> dict[str, NDArray[Any]]:
    """Return everything but the embeddings, by name."""
    rows = [each.embeddings for each in videos]
    covers = [
        np.ones(len(own), np.int32) if each.covers is None else each.covers
        for own, each in zip(rows, videos, strict=True)
    ]
    expected = [-1 if each.frames_expected is None else each.frames_expected for each in videos]
    attempts = [video.attempt for video in videos]
    sizes = np.array([video.frame_size for video in videos], np.int32)
    return {
        "pts_seconds": np.concatenate([np.empty(0), *(video.pts_seconds for video in videos)]),
        "covers": np.concatenate([np.empty(0, np.int32), *covers]),
        "offsets": np.cumsum([0, *map(len, rows)], dtype=np.int64),
        "video_ids": _encoded([video.video_id for video in videos]),
        "status": _encoded([video.status for video in videos]),
        "reason": _encoded([video.reason for video in videos]),
        "source_bytes": np.array([video.source_bytes for video in videos], np.int64),
        "source_sha256": _encoded([video.source_sha256 for video in videos]),
        "frames_expected": np.array(expected, np.int64),
        **({"attempt": np.array(attempts, np.int64)} if any(attempts) else {}),
        **({"frame_size": sizes} if sizes.any() else {}),
    }


def _encoded(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Encode texts as fixed-length UTF-8 of at least one byte, which HDF5 needs."""
    return np.array([text.encode() for text in texts], dtype=np.bytes_)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn the errors of the system and of HDF5 into one `CacheError` of one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CacheError(
            f"cannot write {path}: {why}. Finished shards are kept: mend that, and run the same "
            "command again"
        ) from error
