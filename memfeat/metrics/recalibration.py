"""Predictions made fit for another scale of scores, by one straight line."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from memfeat.errors import MemfeatError
from memfeat.metrics.resampling import Values


class Line(NamedTuple):
    """The line `slope * prediction + intercept`."""

    slope: float
    intercept: float

    def __call__(self, prediction: ArrayLike) -> Values:
        """Return recalibrated predictions; they may leave [0, 1]."""
        return self.slope * np.asarray(prediction, np.float64) + self.intercept


def fit_line(prediction: ArrayLike, truth: ArrayLike) -> Line:
    """Return the line that makes predictions fit the truth best, by least squares.

    Of constant predictions it is the truth's mean.

    Args:
        prediction: (videos,).
        truth: (videos,).

    Raises:
        MemfeatError: there are no videos.
    """
    predicted, true = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if not len(true):
        raise MemfeatError("there are no scored videos to fit a line to; give at least one")
    centred = predicted - predicted.mean()
    spread = float(centred @ centred) if np.ptp(predicted) else 0.0
    slope = float(centred @ (true - true.mean())) / spread if spread else 0.0
    return Line(slope, float(true.mean() - slope * predicted.mean()))
