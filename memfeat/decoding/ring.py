"""A bounded ring of frames in memory that a decoder's process and its parent share."""

import mmap
import os
import tempfile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import DecoderError

CHUNK_FRAMES = 8  # handed over at once
MOST_CHUNKS = 16
FEWEST_CHUNKS = 2  # one to fill while the other is emptied
MOST_BYTES = 48 << 20  # where that leaves the fewest chunks or more


class RingShape(NamedTuple):
    """Its size: `chunks` of `CHUNK_FRAMES` square frames each, `size` pixels a side."""

    chunks: int
    size: int

    @classmethod
    def of_frames(cls, size: int) -> "RingShape":
        """Return the shape for frames of `size` pixels a side: as many as fit into `MOST_BYTES`."""
        fit = MOST_BYTES // (CHUNK_FRAMES * size * size * 3)
        return cls(min(max(fit, FEWEST_CHUNKS), MOST_CHUNKS), size)

    @property
    def num_bytes(self) -> int:
        """How much memory it takes."""
        return self.chunks * CHUNK_FRAMES * self.size * self.size * 3


def reserve(shape: RingShape) -> tuple[int, NDArray[np.uint8]]:
    """Make room for a ring in memory without a name, so that none is left behind by a crash.

    Returns:
        Its file descriptor, to `attach` to in another process, and the ring.

    Raises:
        DecoderError: there is no room.
    """
    # Not in /dev/shm, which containers keep so small that writing to it ends a process.
    descriptor = os.memfd_create("frames") if hasattr(os, "memfd_create") else _unnamed()
    try:
        os.ftruncate(descriptor, shape.num_bytes)
        return descriptor, attach(descriptor, shape)
    except OSError as error:
        os.close(descriptor)
        raise DecoderError(
            f"cannot get {shape.num_bytes >> 20} MB for decoded frames: {error.strerror}; free "
            "memory, or give fewer --decoders"
        ) from error


def _unnamed() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def attach(descriptor: int, shape: RingShape) -> NDArray[np.uint8]:
    """Map a ring as uint8 (chunks, CHUNK_FRAMES, size, size, 3)."""
    frames = np.frombuffer(mmap.mmap(descriptor, shape.num_bytes), np.uint8)
    return frames.reshape(shape.chunks, CHUNK_FRAMES, shape.size, shape.size, 3)
