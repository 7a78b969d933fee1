"""NumPy's array files, read without NumPy's loader: pickled objects are refused by their header."""

import math
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from memfeat.errors import CacheError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
PICKLED = (
    "holds Python objects, which only pickle reads, and pickle runs what it reads; save numbers, "
    "and ids as np.array(ids, dtype=str)"
)


class ArrayFile:
    """An array in a `.npy` stream, of which nothing but the header is read yet.

    Attributes:
        name: for messages.
        shape: of the array.
        dtype: of its elements; never objects.
    """

    def __init__(self, stream: IO[bytes], name: str, size: int) -> None:
        """Read the header.

        Args:
            stream: at its beginning.
            name: for messages.
            size: bytes in the stream; no larger array is believed.

        Raises:
            CacheError: it is not NumPy's, or the array is one of Python objects.
        """
        self._stream = stream
        self._size = size
        self.name = name
        try:
            version = npy.read_magic(stream)
            if version not in _HEADERS:
                raise ValueError(f"version {version} of the format is not known")
            self.shape, self._is_fortran, self.dtype = _HEADERS[version](stream)
            if min(self.shape, default=0) < 0 or self.dtype.itemsize == 0:
                raise ValueError(f"there is no {self.dtype} array of shape {self.shape}")
        except (ValueError, TokenError) as error:
            what = str(error).splitlines()[0]
            raise CacheError(f"{name} is not an array that NumPy saved: {what}") from error
        if self.dtype.hasobject:
            raise CacheError(f"{name} {PICKLED}")

    def read(self) -> NDArray[Any]:
        """Read the whole array, from a stream that no row was read of yet.

        Raises:
            CacheError: the file ends before it.
        """
        if not self._is_fortran:
            return self._elements(self.shape)
        return self._elements(self.shape[::-1]).T

    def next_rows(self, count: int) -> NDArray[Any]:
        """Read the next rows of an array that is stored row by row, (count, ...).

        Raises:
            CacheError: the file ends before them.
        """
        return self._elements((count, *self.shape[1:]))

    @property
    def is_by_row(self) -> bool:
        """Whether rows lie one after another, rather than columns."""
        return not self._is_fortran

    def _elements(self, shape: tuple[int, ...]) -> NDArray[Any]:
        wanted = math.prod(shape) * self.dtype.itemsize
        data = self._stream.read(wanted) if wanted <= self._size else b""
        if len(data) < wanted:
            raise CacheError(f"{self.name} is cut short: it promises an array {self.shape}")
        return np.frombuffer(data, self.dtype).reshape(shape)
