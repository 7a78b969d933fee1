"""One copy of a table in memory, for several processes."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.folder import Cache
from memfeat.cache.spec import CacheSpec
from memfeat.cache.table import FeatureTable
from memfeat.errors import CacheError
from memfeat.storage import remove_stale_parts
from memfeat.storage.files import locked_part

ZEROS = bytes(1 << 20)


@dataclass(frozen=True)
class SharedTable:
    """A table in a file that `shared_table` keeps; small, so it can be sent to other processes.

    Attributes:
        path: the file; two of these are equal if it is the same.
        offsets, video_ids, frame_sizes: as in `FeatureTable`.
        spec: what made the features.
    """

    path: Path
    offsets: NDArray[np.int64] = field(compare=False)
    video_ids: tuple[str, ...] = field(compare=False)
    spec: CacheSpec = field(compare=False)
    frame_sizes: NDArray[np.int32] = field(compare=False)

    def open(self) -> FeatureTable:
        """Map the table. All processes share the same memory.

        The arrays are writable, as torch requires, but writes stay private to this table. They
        outlive the file.

        Raises:
            CacheError: the file is gone, because the process that shared it has ended.
        """
        try:
            with self.path.open("rb") as file:
                with suppress(OSError):  # so that other machines do not take it for left over
                    os.utime(file.fileno())
                return self.map(file, mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise CacheError(
                f"cannot map the shared features {self.path}: {error}. They are there only while "
                "the process that shares them runs; start that again"
            ) from error

    def write_back(self) -> None:
        """Write the file's pages to disk, so that other machines that share the disk see them."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def map(self, file: BinaryIO, access: int) -> FeatureTable:
        """Map `file`, which is this table's, with an access of the `mmap` module."""
        frames, width = int(self.offsets[-1]), self.spec.width
        memory = mmap.mmap(file.fileno(), _size(frames, width), access=access)
        # The widest numbers first, so that all are aligned.
        pts_seconds = np.frombuffer(memory, np.float64, frames)
        covers = np.frombuffer(memory, np.int32, frames, offset=8 * frames)
        values = np.frombuffer(memory, np.float16, frames * width, offset=12 * frames)
        values = values.reshape(frames, width)
        of_videos = self.offsets, self.video_ids, self.spec, self.frame_sizes
        return FeatureTable(values, pts_seconds, covers, *of_videos)


@contextmanager
def shared_table(cache: Cache, video_ids: Sequence[str], folder: Path) -> Iterator[SharedTable]:
    """Load features once into a file of `folder`, for several processes to map.

    They are read straight into the file's pages, which are memory that the system can write back
    when it runs short. The file is deleted when the context ends; what a killed process left is
    deleted at the next call.

    Args:
        cache: where the features are.
        video_ids: which videos, in the order wanted.
        folder: for the file; made if need be.

    Raises:
        CacheError: as `Cache.load`; or the disk is full, or the folder cannot be written to.
    """
    ids = tuple(video_ids)
    offsets = cache.offsets_of(ids)
    size = _size(int(offsets[-1]), cache.spec.width)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale_parts(folder)
            file = stack.enter_context(locked_part(folder, "features"))
            sizes = cache.frame_sizes_of(ids)
            table = SharedTable(Path(file.name), offsets, ids, cache.spec, sizes)
            _reserve(file, size)
        except OSError as error:
            raise CacheError(
                f"cannot lay {size / 1e6:,.1f} MB of features down in {folder}, where several "
                f"processes can map them: {error.strerror}. Mend that, or choose another folder"
            ) from error
        cache.fill(table.map(file, mmap.ACCESS_WRITE))
        yield table


def _size(frames: int, width: int) -> int:
    """Return how many bytes a table takes; without frames one, for nothing cannot be mapped."""
    return max(1, frames * (8 + 4 + 2 * width))


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserve disk space: a disk found full later, under the mapping, would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    left = size
    while left:
        left -= os.write(file.fileno(), ZEROS[:left])
