"""What every source of features made elsewhere has in common."""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.spec import CacheSpec
from memfeat.errors import CacheError
from memfeat.storage import sha256_of_file

# What NumPy raises for a header that is damaged, cut short, or claims more than there is.
_NOT_AN_ARRAY = (ValueError, TypeError, TokenError, EOFError, MemoryError)


@dataclass(frozen=True)
class SourceVideo:
    """One video's features as they were read; nothing is checked yet.

    Attributes:
        video_id: its id.
        where: file, and line or number, for messages.
        features: (time, dim), or (dim,) for a single step; of any type.
        known: what an exported cache says of it, for `EncodedVideo`; empty of other sources.
        unpadded: how to give them without steps that only fill up an array in which all videos have
            as many, in words; empty where they need not have.
    """

    video_id: str
    where: str
    features: NDArray[Any]
    known: Mapping[str, Any] = field(default_factory=dict)
    unpadded: str = ""


class FeatureSource(ABC):
    """Features of many videos; `open_source` opens them.

    Attributes:
        ids: (video id, where it was read) in order; an id given twice is there twice.
        spec: what made them, if the source is an exported cache.
    """

    ids: Sequence[tuple[str, str]]
    spec: CacheSpec | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = cache(sha256_of_file)

    def file(self, video_id: str) -> Path:  # noqa: ARG002
        """Return the file that a video's features are in."""
        return self._path

    def sha256(self, video_id: str) -> str:
        """Return the hash of the file that a video's features are of."""
        return self._digest(self.file(video_id))

    @abstractmethod
    def videos(self, wanted: Container[str]) -> Iterator[SourceVideo]:
        """Yield the videos wanted, in order, one in memory at a time where the format allows it.

        Raises:
            CacheError: one cannot be read.
        """


@contextmanager
def array_errors(name: str) -> Iterator[None]:
    """Turn what NumPy raises for a bad or pickled array into `CacheError`."""
    try:
        with np.errstate(over="ignore"):  # of the bytes that a header claims
            yield
    except _NOT_AN_ARRAY as error:
        why = (str(error).splitlines() or ["its header is cut short"])[0].rstrip(".")
        raise CacheError(
            f"{name} is not an array that NumPy saved, or is cut short, or holds Python objects, "
            f"which pickle would run: {why}. Save numbers, and ids as np.array(ids, dtype=str)"
        ) from error


def load_mapped(path: Path) -> NDArray[Any]:
    """Map a `.npy` file, so that a header's claims are compared with the size of the file.

    Raises:
        CacheError: it is not there, or no array of numbers that NumPy saved.
    """
    with array_errors(str(path)):
        try:
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise CacheError(f"{path} is not there; export the features again") from error
        if not isinstance(features, np.ndarray):
            raise ValueError("it is a .npz")
        return features
