"""Reading a checked shard's frames at the speed of memory, and errors of damaged shards.

Opening a shard through HDF5 and checking it takes longer than reading all of its frames. So the
byte offsets of its datasets are kept when it is checked, and as long as the file stays the same
frames are read from there, without HDF5.
"""

import errno
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import DamagedShardError

# Errors that say nothing of the file: no permission, too many open files, a server is away, ...
NOT_DAMAGE = {
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT),
}


class ZeroRows:
    """A row of zeros for each video without a text, in place of a shard's."""

    def read_into(
        self,
        values: NDArray[np.float16],
        pts_seconds: NDArray[np.float64],
        covers: NDArray[np.int32],
        spans: "Sequence[Span]",
    ) -> bool:
        """Write them; see `StoredRows.read_into`."""
        for start, stop, target in spans:
            rows = slice(target, target + stop - start)
            values[rows], pts_seconds[rows], covers[rows] = 0, 0, 1
        return True


class FileIdentity(NamedTuple):
    """Identifies a file in one state: it differs for another file, and after any change."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Return the identity of an open file."""
        stat = os.fstat(descriptor)
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Span(NamedTuple):
    """Rows `start:stop` of a shard, which go to the rows of a table from `target` on."""

    start: int
    stop: int
    target: int


@dataclass(frozen=True)
class StoredRows:
    """Byte offsets of a shard's frames, little-endian and without gaps, in a file that was checked.

    Attributes:
        path: the shard.
        file: the file that was checked.
        embeddings_at, pts_seconds_at, covers_at: bytes at which the first frame's begin.
    """

    path: Path
    file: FileIdentity
    embeddings_at: int
    pts_seconds_at: int
    covers_at: int

    def read_into(
        self,
        values: NDArray[np.float16],
        pts_seconds: NDArray[np.float64],
        covers: NDArray[np.int32],
        spans: Sequence[Span],
    ) -> bool:
        """Read spans into a table's arrays, which lie without gaps.

        Returns:
            Whether the file is still the one that was checked; if not, nothing is read.

        Raises:
            DamagedShardError: it cannot be read.
            PermissionError: it may not be read.
        """
        with as_damage(self.path), self.path.open("rb", buffering=0) as file:
            if FileIdentity.of(file.fileno()) != self.file:
                return False
            for start, stop, target in _joined(spans):
                rows = slice(target, target + stop - start)
                _fill(values[rows], file, self.embeddings_at + start * values.strides[0])
                _fill(pts_seconds[rows], file, self.pts_seconds_at + start * pts_seconds.itemsize)
                _fill(covers[rows], file, self.covers_at + start * covers.itemsize)
        return True


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
    """Join adjacent spans, so that a shard read in its own order is one read."""
    joined = spans[0]
    for span in spans[1:]:
        if span.start == joined.stop and span.target - joined.target == span.start - joined.start:
            joined = joined._replace(stop=span.stop)
        else:
            yield joined
            joined = span
    yield joined


def _fill(array: NDArray[Any], file: FileIO, at: int) -> None:
    """Read an array's bytes from byte `at` on."""
    left = array.data.cast("B")
    file.seek(at)
    while left:
        count = file.readinto(left)  # as much as the system gives at once, at most 2 GiB
        if not count:
            raise OSError(f"it ends {len(left)} bytes before a video's frames do")
        left = left[count:]


def damage(path: Path, what: str) -> DamagedShardError:
    """Return the error to raise for a shard that is not as it was written."""
    repair = f"`memfeat cache repair {shlex.quote(str(path.parent))}`"
    return DamagedShardError(
        f"{path} is damaged: {what}. {repair} sets it aside, and `memfeat extract` makes it again"
    )


@contextmanager
def as_damage(path: Path) -> Iterator[None]:
    """Turn the errors of HDF5, the system and our own decoding into `DamagedShardError`.

    Raises:
        DamagedShardError: that.
        OSError: the file may not be read, or nothing can be read at the moment.
    """
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno in NOT_DAMAGE:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise damage(path, " ".join(str(error).split())) from error
