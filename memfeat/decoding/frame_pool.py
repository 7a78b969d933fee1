"""The memory that decoder processes write frames into and their parent reads them from."""

import mmap
import os
import tempfile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import DecoderError

CHUNK_FRAMES = 8  # handed over at once
CHUNKS_AHEAD = 2  # that a decoder may fill: one, and the next
MOST_CHUNKS = 16  # for each decoder
MOST_BYTES = 256 << 20  # for all of them, unless that is too few chunks to go on with


class PoolShape(NamedTuple):
    """Its size: `chunks` of `CHUNK_FRAMES` frames each, of at most `size` by `size` pixels."""

    chunks: int
    size: int

    @classmethod
    def of_frames(cls, size: int, decoders: int) -> "PoolShape":
        """Return the shape for frames of `size` pixels a side, within `MOST_BYTES` if it can be."""
        fit = MOST_BYTES // (CHUNK_FRAMES * size * size * 3)
        return cls(min(max(fit, CHUNKS_AHEAD * decoders), MOST_CHUNKS * decoders), size)

    @property
    def num_bytes(self) -> int:
        """How much memory it takes, once all of it has been used."""
        return self.chunks * CHUNK_FRAMES * self.size * self.size * 3


class FramePool:
    """Memory without a name, so that none is left behind by a crash.

    Attributes:
        shape: its size.
        descriptor: of the memory, for `attach` in another process.
        free: chunks that nobody uses; the last one freed is used first.

    Raises:
        DecoderError: there is no room.
    """

    def __init__(self, shape: PoolShape) -> None:
        self.shape = shape
        # Not in /dev/shm, which containers keep so small that writing to it ends a process.
        self.descriptor = os.memfd_create("frames") if hasattr(os, "memfd_create") else _unnamed()
        self.free = list(range(shape.chunks))
        try:
            os.ftruncate(self.descriptor, shape.num_bytes)
            self._chunks = attach(self.descriptor, shape)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise DecoderError(
                f"cannot get {shape.num_bytes >> 20} MB for decoded frames: {why}; free memory, or "
                "give fewer --decoders"
            ) from error

    def __del__(self) -> None:
        os.close(self.descriptor)

    def frames(self, chunk: int, count: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the first `count` frames of a chunk, uint8 (count, *shape, 3)."""
        return self._chunks[chunk, :count, : shape[0], : shape[1]]


def _unnamed() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def attach(descriptor: int, shape: PoolShape) -> NDArray[np.uint8]:
    """Map the memory as uint8 (chunks, CHUNK_FRAMES, size, size, 3)."""
    frames = np.frombuffer(mmap.mmap(descriptor, shape.num_bytes), np.uint8)
    return frames.reshape(shape.chunks, CHUNK_FRAMES, shape.size, shape.size, 3)
