"""Features of many videos as one flat table, and one copy of it in memory for several processes."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.shard import find_odd_vector
from memfeat.cache.spec import CacheSpec
from memfeat.errors import CacheError
from memfeat.storage import remove_stale_parts
from memfeat.storage.files import locked_part

if TYPE_CHECKING:
    from memfeat.cache.folder import Cache

ZEROS = bytes(1 << 20)


class VideoFeatures(NamedTuple):
    """One video's features, to be unpacked.

    Attributes:
        vectors: float16 (time, width), one row a frame.
        pts_seconds: float64 (time,), when each frame appears.
    """

    vectors: NDArray[np.float16]
    pts_seconds: NDArray[np.float64]


@dataclass(frozen=True)
class FeatureTable:
    """Embeddings of many videos as one flat table.

    Attributes:
        values: float16 (total_frames, width), contiguous.
        pts_seconds: float64 (total_frames,).
        covers: int32 (total_frames,), how many decoded frames, or clips, each one stands for.
        offsets: int64 (videos + 1,); video i has the rows offsets[i]:offsets[i + 1].
        video_ids: (videos,).
        spec: what made them.
    """

    values: NDArray[np.float16]
    pts_seconds: NDArray[np.float64]
    covers: NDArray[np.int32]
    offsets: NDArray[np.int64]
    video_ids: tuple[str, ...]
    spec: CacheSpec

    def __len__(self) -> int:
        return len(self.video_ids)

    def __repr__(self) -> str:
        return (
            f"<FeatureTable of {len(self)} videos, {len(self.values)} frames; "
            f"{self.spec.describe()}>"
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each video, int64 (videos,)."""
        return np.diff(self.offsets)

    def frames(self, index: int) -> NDArray[np.float16]:
        """Return a view of video `index`'s embeddings, (time, width)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def require_sound(self) -> None:
        """Refuse vectors that are not what the spec promises, such as NaN.

        Raises:
            CacheError: names the first such video.
        """
        found = find_odd_vector(self.values, self.spec, zeros=self.spec.is_text)
        if found:
            index = int(np.searchsorted(self.offsets, found[0], side="right")) - 1
            raise CacheError(
                f"the features of video {self.video_ids[index]!r} are damaged: {found[1]}. "
                "`memfeat cache repair` sets the shard aside, and `memfeat extract` makes it again"
            )


@dataclass(frozen=True)
class SharedTable:
    """A table in a file that `shared_table` keeps; small, so it can be sent to other processes.

    Attributes:
        path: the file; two of these are equal if it is the same.
        offsets, video_ids: as in `FeatureTable`.
        spec: what made the features.
    """

    path: Path
    offsets: NDArray[np.int64] = field(compare=False)
    video_ids: tuple[str, ...] = field(compare=False)
    spec: CacheSpec = field(compare=False)

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
        return FeatureTable(values, pts_seconds, covers, self.offsets, self.video_ids, self.spec)


@contextmanager
def shared_table(cache: "Cache", video_ids: Sequence[str], folder: Path) -> Iterator[SharedTable]:
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
            table = SharedTable(Path(file.name), offsets, ids, cache.spec)
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
