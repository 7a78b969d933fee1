"""Frame samplers: which frames are kept; each kept frame stands for those left out after it.

The paper keeps every frame, and names leaving out redundant ones as future work. Here that is a
choice of stage 1: `stride:4` keeps each fourth frame, `fps:2` two a second; `thumbnail:X` and
`embedding:X` leave out frames that barely differ from the last one kept. Thumbnails are compared
before the encoder, so it is spared the frames left out; embeddings after it, which spares the cache
alone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import MOST_COVERED
from memfeat.errors import ConfigError
from memfeat.registry import Registry
from memfeat.video import squash

THUMBNAIL = 16  # pixels a side
TICK = 0.001  # seconds, to which Matroska rounds times


class Sampler(ABC):
    """Base of all samplers: decides about one video's frames, one after another.

    Attributes:
        default: its number where none is given; None for a sampler that takes none.
        allowed: which numbers it can work with, in words.
        of_embeddings: whether it is shown embeddings, rather than pixels.
    """

    default: ClassVar[float | None] = None
    allowed: ClassVar[str] = "no number"
    of_embeddings: ClassVar[bool] = False

    def __init__(self, number: float) -> None:
        self.number = number

    @classmethod
    def allows(cls, number: float) -> bool:  # noqa: ARG003
        """Return whether the number is one that the sampler can work with."""
        return False

    @abstractmethod
    def keeps(self, frame: NDArray[Any], seconds: float) -> bool:
        """Return whether the next frame is kept.

        Args:
            frame: uint8 (height, width, 3), or, with `of_embeddings`, (width,) of unit length.
            seconds: when it is shown.
        """


SAMPLERS: Registry[type[Sampler]] = Registry("sampler")


@SAMPLERS.register("every")
class Every(Sampler):
    """Keeps every frame, as the paper does (section 2.1)."""

    def keeps(self, frame: NDArray[Any], seconds: float) -> bool:  # noqa: ARG002
        """Return True."""
        return True


@SAMPLERS.register("stride")
class Stride(Sampler):
    """Keeps the first of every so many frames."""

    default = 4
    allowed = "a whole number from 1 on"

    def __init__(self, number: float) -> None:
        super().__init__(number)
        self._seen = 0

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether it is a whole number of frames."""
        return number >= 1 and number == int(number)

    def keeps(self, frame: NDArray[Any], seconds: float) -> bool:  # noqa: ARG002
        """Return whether it is a stride's first."""
        self._seen += 1
        return (self._seen - 1) % self.number == 0


@SAMPLERS.register("fps")
class Rate(Sampler):
    """Keeps so many frames a second: the first that is shown in each such part of one."""

    default = 1
    allowed = "a number above 0"

    def __init__(self, number: float) -> None:
        super().__init__(number)
        self._first: float | None = None
        self._last = -1

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether it is above 0."""
        return number > 0

    def keeps(self, frame: NDArray[Any], seconds: float) -> bool:  # noqa: ARG002
        """Return whether it is the first of its part of a second."""
        if self._first is None:
            self._first = seconds
        part = int((seconds - self._first + TICK) * self.number)
        kept, self._last = part > self._last, max(part, self._last)
        return kept


class Change(Sampler):
    """Base of those that keep a frame if it differs by more than `number` from the last kept.

    Attributes:
        furthest: how far apart two frames are at most; no frame differs by more than that.
    """

    furthest: ClassVar[float]

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether two frames may differ by more, and by less."""
        return 0 < number < cls.furthest

    def __init__(self, number: float) -> None:
        super().__init__(number)
        self._last: NDArray[np.float32] | None = None

    def keeps(self, frame: NDArray[Any], seconds: float) -> bool:  # noqa: ARG002
        """Return whether it is the first, or far enough from the last one kept."""
        current = self.features(frame)
        if self._last is not None and self.distance(self._last, current) <= self.number:
            return False
        self._last = current
        return True

    @abstractmethod
    def features(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        """Return what is compared of a frame."""

    @abstractmethod
    def distance(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        """Return how far apart two frames are, 0 if they are the same."""


@SAMPLERS.register("thumbnail")
class Thumbnail(Change):
    """Compares thumbnails by their value that changes most, in [0, 1]: a small change counts."""

    default = 0.05
    furthest = 1
    allowed = "a number above 0 and below 1"

    def features(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        """Return the frame's thumbnail, (16, 16, 3)."""
        return squash(frame, THUMBNAIL, THUMBNAIL).astype(np.float32)

    def distance(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        """Return the largest difference, in [0, 1]."""
        return float(np.abs(one - other).max()) / 255


@SAMPLERS.register("embedding")
class Embedding(Change):
    """Compares embeddings by one minus their cosine, in [0, 2]."""

    default = 0.02
    furthest = 2
    allowed = "a number above 0 and below 2"
    of_embeddings = True

    def features(self, frame: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vector."""
        return frame.astype(np.float32)

    def distance(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        """Return one minus the cosine; of several tokens, of all as one."""
        lengths = np.linalg.norm(one) * np.linalg.norm(other)
        return float(1 - one @ other / lengths)


@dataclass(frozen=True)
class Sampling:
    """A sampler and its number, as `--sampler` names them and a cache records them."""

    name: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `every`, `stride:4`, `thumbnail`, and so on; without a number, the default's.

        Raises:
            UnknownNameError: no such sampler.
            ConfigError: a number that the sampler cannot work with.
        """
        name, colon, given = text.partition(":")
        sampler = SAMPLERS.get(name)
        try:
            number = float(given) if colon else sampler.default or 0.0
        except ValueError:
            number = -1.0
        if sampler.default is None:
            fits, example = not colon, name
        else:
            fits = np.isfinite(number) and sampler.allows(number)
            example = f"{name}:{sampler.default:g}"
        if not fits:
            raise ConfigError(
                f"sampler {text!r} is not allowed; write it like {example}, with {sampler.allowed}"
            )
        return cls(name, number)

    def __str__(self) -> str:
        """Return what `parse` reads as the very same number, so that no two caches look alike."""
        number = repr(float(self.number)).removesuffix(".0")
        return self.name if self.of_type.default is None else f"{self.name}:{number}"

    @property
    def of_type(self) -> type[Sampler]:
        """The sampler's class."""
        return SAMPLERS.get(self.name)

    def of_pixels(self) -> Sampler:
        """Return the sampler for one video's frames, before the encoder."""
        return Every(0.0) if self.of_type.of_embeddings else self.of_type(self.number)

    def of_embeddings(self) -> Sampler:
        """Return the sampler for one video's embeddings, after the encoder."""
        return self.of_type(self.number) if self.of_type.of_embeddings else Every(0.0)


class CoverCounter:
    """Counts what each kept frame stands for: itself, and those left out after it."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.counts: list[int] = []

    def keeps(self, frame: NDArray[Any], stands_for: int = 1, *, seconds: float = 0.0) -> bool:
        """Return whether the next frame, shown at `seconds`, is kept, and count it either way."""
        full = bool(self.counts) and self.counts[-1] + stands_for > MOST_COVERED
        kept = self._sampler.keeps(frame, seconds) or full
        if kept:
            self.counts.append(stands_for)
        else:
            self.counts[-1] += stands_for
        return kept


EVERY_FRAME = Sampling("every", 0.0)
