"""How well predictions agree with the truth: PLCC, SROCC, MSE and bias, with their intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from memfeat.errors import MemfeatError, counted
from memfeat.metrics.resampling import (
    METRICS,
    MIN_VIDEOS,
    Interval,
    Metric,
    Values,
    interval,
    measure,
    resamples,
)
from memfeat.registry import unknown_name


@dataclass(frozen=True)
class Metrics:
    """Agreement of predictions with the truth over `n` videos (paper, section 3).

    With several seeds each figure is the mean over seeds; `*_std` is its variation over seeds, and
    `*_interval` its uncertainty due to the choice of videos.

    Attributes:
        n: how many videos.
        plcc: Pearson's linear correlation, in [-1, 1]; None where undefined.
        srocc: Spearman's rank correlation, ties at their average rank; None where undefined.
        mse: mean squared error; None for no videos.
        bias: mean of prediction minus truth; None for no videos.
        plcc_std, srocc_std, mse_std: standard deviation over seeds (n - 1); None for one seed, or
            where undefined.
        plcc_interval, srocc_interval, mse_interval: 95 % percentile bootstrap over videos, (low,
            high); None where undefined.
        undefined: why the correlations are None; None where they are not.
    """

    n: int
    plcc: float | None
    srocc: float | None
    mse: float | None
    bias: float | None
    plcc_std: float | None
    srocc_std: float | None
    mse_std: float | None
    plcc_interval: Interval | None
    srocc_interval: Interval | None
    mse_interval: Interval | None
    undefined: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """A metric of one prediction minus that of another; None where either is undefined."""

    value: float | None
    interval: Interval | None


def evaluate(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    groups: Sequence[str] = (),
) -> Metrics:
    """Compare predictions with the truth.

    Resamples that are constant have no correlation and are dropped; if that is more than half of
    them, or there are fewer than 3 videos, there is no interval.

    Args:
        truth: one finite number a video, (videos,).
        prediction: likewise, or one row per seed, (seeds, videos).
        bootstrap: how often to resample the videos; 0 for no intervals.
        seed: for the resampling; the same seed draws the same videos for every prediction.
        groups: the name of each video's group, empty for one without; resampling draws whole
            groups. By default each video is drawn by itself.

    Raises:
        MemfeatError: shapes that do not fit, NaN or infinity.
    """
    true, predicted = _series(truth, prediction=prediction)
    points = _points(true, predicted)
    samples = _resampled(true, predicted, bootstrap, seed, groups)
    figures: dict[str, Any] = {}
    for name in METRICS:
        figures[name] = _mean(points[name])
        figures[f"{name}_std"] = _spread(points[name])
        figures[f"{name}_interval"] = interval(samples[name])
    bias = float(np.mean(predicted - true)) if len(true) else None
    undefined = _why_undefined(true, predicted)
    return Metrics(n=len(true), bias=bias, undefined=undefined, **figures)


def paired_difference(
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    metric: Metric = "srocc",
    bootstrap: int = 1000,
    seed: int = 0,
    groups: Sequence[str] = (),
) -> Difference:
    """Compare two predictions of the same videos on the same resamples: first minus second.

    The interval is of the difference itself, so it is much narrower than those of the two metrics:
    it shows whether one prediction is better than the other on videos such as these.

    Args:
        truth: one finite number a video, (videos,).
        first: predictions, (videos,), or one row per seed, (seeds, videos).
        second: likewise; the number of seeds may differ.
        metric: `plcc`, `srocc` or `mse`; of `mse` a negative difference favours `first`.
        bootstrap: how often to resample the videos; 0 for no interval.
        seed: for the resampling.
        groups: as for `evaluate`.

    Raises:
        MemfeatError: shapes that do not fit, NaN or infinity.
        UnknownNameError: no such metric.
    """
    pairs = paired_differences(
        truth, [first, second], metric=metric, bootstrap=bootstrap, seed=seed, groups=groups
    )
    return pairs[0, 1]


def paired_differences(
    truth: ArrayLike,
    predictions: Sequence[ArrayLike],
    *,
    metric: Metric = "srocc",
    bootstrap: int = 1000,
    seed: int = 0,
    groups: Sequence[str] = (),
) -> dict[tuple[int, int], Difference]:
    """Compare each two of several predictions, as `paired_difference` does; each is resampled once.

    Returns:
        The first minus the second by their places, such as (0, 1), the smaller one first.

    Raises:
        MemfeatError: shapes that do not fit, NaN or infinity.
        UnknownNameError: no such metric.
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    named = {f"predictions {place}": each for place, each in enumerate(predictions)}
    true, *every = _series(truth, **named)
    values = [_mean(_points(true, each)[metric]) for each in every]
    samples = [
        None if value is None else _resampled(true, each, bootstrap, seed, groups)[metric]
        for value, each in zip(values, every, strict=True)
    ]
    found = {}
    for one, other in combinations(range(len(every)), 2):
        (value, drawn), (minus, drawn_too) = ((values[i], samples[i]) for i in (one, other))
        found[one, other] = Difference(None, None)
        if value is not None and minus is not None and drawn is not None and drawn_too is not None:
            found[one, other] = Difference(value - minus, interval(drawn - drawn_too))
    return found


class Line(NamedTuple):
    """The line `slope * prediction + intercept`."""

    slope: float
    intercept: float

    def __call__(self, prediction: ArrayLike) -> Values:
        """Return recalibrated predictions; they can be outside [0, 1]."""
        return self.slope * np.asarray(prediction, np.float64) + self.intercept


def fit_line(prediction: ArrayLike, truth: ArrayLike) -> Line:
    """Fit a line from predictions to the truth by least squares, to recalibrate predictions.

    For constant predictions it is the mean of the truth.

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


def _points(truth: Values, predictions: Values) -> dict[Metric, Values | None]:
    """Return every metric's value for each seed, (seeds,); None where undefined for any."""
    if not len(truth):
        return dict.fromkeys(METRICS)
    once = np.ones((1, len(truth)))
    measured = [measure(truth, prediction, once) for prediction in predictions]
    points: dict[Metric, Values | None] = {
        metric: np.concatenate([each[metric] for each in measured]) for metric in METRICS
    }
    if _why_undefined(truth, predictions):
        points["plcc"] = points["srocc"] = None
    return points


def _mean(values: Values | None) -> float | None:
    return None if values is None else float(values.mean())


def _spread(values: Values | None) -> float | None:
    return None if values is None or len(values) < 2 else float(values.std(ddof=1))


def _resampled(
    truth: Values, predictions: Values, bootstrap: int, seed: int, groups: Sequence[str]
) -> dict[Metric, Values]:
    """Return every metric's mean over seeds on each resample; empty for too few videos."""
    blocks = []
    for counts in resamples(len(truth), bootstrap, seed, groups):
        measured = [measure(truth, prediction, counts) for prediction in predictions]
        blocks.append({m: np.mean([each[m] for each in measured], axis=0) for m in METRICS})
    return {m: np.concatenate([np.empty(0), *(block[m] for block in blocks)]) for m in METRICS}


def _why_undefined(truth: Values, predictions: Values) -> str | None:
    n = len(truth)
    if n < MIN_VIDEOS:
        return f"{counted(n, 'video')}; a correlation needs at least {MIN_VIDEOS}"
    for name, values in (("truth is", truth), *(("predictions are", row) for row in predictions)):
        if not np.ptp(values):
            return f"the {name} constant: {values[0]:.6g} for all {n} videos"
    return None


def _series(truth: ArrayLike, **predictions: ArrayLike) -> list[Values]:
    """Return the truth, float64 (videos,), and each prediction, (seeds, videos), all finite."""
    series = {"truth": truth, **predictions}
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    fit = len(shapes["truth"]) == 1 and all(
        shape[-1:] == shapes["truth"] and (len(shape) == 1 or (len(shape) == 2 and shape[0]))
        for shape in shapes.values()
    )
    if not fit:
        raise MemfeatError(
            "metrics need one true number a video, and predictions of shape (videos,) or "
            f"(seeds, videos); got {shapes}"
        )
    for name, array in arrays.items():
        wrong = np.flatnonzero(~np.isfinite(array))
        if len(wrong):
            raise MemfeatError(
                f"{name} has {len(wrong)} of {array.size} values that are not finite numbers, the "
                f"first {array.ravel()[wrong[0]]} at position {wrong[0]}; leave such videos out"
            )
    return [arrays.pop("truth"), *(np.atleast_2d(array) for array in arrays.values())]
