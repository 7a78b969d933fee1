"""What the videos that a run learned from are like: `familiar.safetensors` in its folder.

The mean and the main directions of their features, how far from these they lie, and the ranges of
their lengths, frame rates and shapes. No video's own features are kept.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from memfeat.errors import RunError
from memfeat.runs.files import FAMILIAR, RECOVER
from memfeat.storage import write_atomically

LEVELS = np.linspace(0, 1, 201)  # of the quantiles that are kept
FEW = 0.01  # the share of familiar videos that lie beyond what still counts as one of them
FACTOR = 2.0  # beyond the range of lengths, frame rates or shapes


def shown_seconds(pts_seconds: NDArray[np.float64], covers: NDArray[np.int32]) -> float:
    """Return how long a video's frames are shown, the last one for the median of the others.

    Args:
        pts_seconds: float64 (rows,), when each row's first frame appears.
        covers: int32 (rows,), how many frames each row stands for.
    """
    if len(pts_seconds) < 2:
        return 0.0
    usual = np.median(np.diff(pts_seconds) / covers[:-1])
    return float(pts_seconds[-1] - pts_seconds[0] + usual * covers[-1])


@dataclass(frozen=True)
class FamiliarVideos:
    """What a run's training videos are like; all arrays are float32.

    A video's features are the mean over time of its class tokens, those of several caches side by
    side, so dim is the sum of their widths.

    Attributes:
        mean: (dim,), of the train split.
        directions: (directions, dim), orthonormal, along which that split varies most.
        variances: (directions,), along each of them.
        residual: (1,), the mean variance along any other.
        distances: (201,), quantiles of the distances from the mean of familiar videos.
        seconds: (2,), the shortest and the longest.
        frames_per_second: (2,), the slowest and the fastest; zero if nothing is known.
        aspects: (2,), the narrowest and the widest frames, width over height; zero likewise.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    residual: NDArray[np.float32]
    distances: NDArray[np.float32]
    seconds: NDArray[np.float32]
    frames_per_second: NDArray[np.float32]
    aspects: NDArray[np.float32]

    def distance(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far features (videos, dim) lie from the mean, (videos,).

        Each direction counts by its own standard deviation (Mahalanobis' distance).
        """
        centred = features - self.mean
        along = centred @ self.directions.T
        rest = np.square(centred).sum(1) - np.square(along).sum(1)
        scaled = np.square(along) / self.variances
        distances: NDArray[np.float64] = np.sqrt(scaled.sum(1) + rest.clip(0) / self.residual)
        return distances

    def share_beyond(self, distance: float) -> float:
        """Return which share of the familiar videos lies farther from the mean, in [0, 1]."""
        return 1.0 - float(np.interp(distance, self.distances, LEVELS))

    @property
    def limit(self) -> float:
        """The distance beyond which only `FEW` of the familiar videos lie."""
        return float(np.interp(1 - FEW, LEVELS, self.distances))

    def write(self, folder: Path) -> None:
        """Write the file into a run folder.

        Raises:
            OSError: it cannot be written.
        """
        # safetensors writes the memory as it lies, whatever the strides.
        content = {
            field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)
        }
        write_atomically(folder / FAMILIAR, save(content))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read a run folder's file; None if the run was made before there was one.

        One made before frames had sizes says nothing of those.

        Raises:
            RunError: the file is damaged.
        """
        path = folder / FAMILIAR
        if not path.is_file():
            return None
        try:
            content = {"aspects": np.zeros(2, np.float32)} | load(path.read_bytes())
            found = cls(**{field.name: content[field.name] for field in fields(cls)})
            found._check()
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
        return found

    def _check(self) -> None:
        count, dim = len(self.variances), len(self.mean)
        shapes = {"mean": (dim,), "directions": (count, dim), "variances": (count,)}
        shapes |= {"residual": (1,), "distances": (len(LEVELS),)}
        shapes |= {"seconds": (2,), "frames_per_second": (2,), "aspects": (2,)}
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape or values.dtype != np.float32:
                raise ValueError(f"{name} is {values.dtype} {values.shape}, not float32 {shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds a value that is no number")
        if min([*self.variances, *self.residual]) <= 0 or (np.diff(self.distances) < 0).any():
            raise ValueError("a variance is not positive, or the distances do not increase")
