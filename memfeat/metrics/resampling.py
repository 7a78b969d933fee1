"""Correlations and errors over many resamples of the videos at once."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Interval = tuple[float, float]
Metric = Literal["plcc", "srocc", "mse"]
METRICS: tuple[Metric, ...] = get_args(Metric)

MIN_VIDEOS = 3  # any two videos correlate perfectly
BLOCK = 250_000  # values resampled at once: few enough for the CPU's cache
_PERCENTILES = (2.5, 97.5)


def measure(truth: Values, prediction: Values, counts: Values) -> dict[Metric, Values]:
    """Compute every metric over resamples, given as how often each video was drawn.

    Counts save sorting each resample: ranks are running sums of counts.

    Args:
        truth: (videos,).
        prediction: (videos,).
        counts: (resamples, videos).

    Returns:
        (resamples,) by metric; a correlation is NaN where truth or prediction is constant.
    """
    true_ranks, ranks = _ranks(truth, counts), _ranks(prediction, counts)
    srocc = _correlation(true_ranks, ranks, counts)
    plcc = _correlation(_scaled(truth), _scaled(prediction), counts)
    # Ranks are exact, so theirs is the correlation that is NaN just where a series is constant.
    plcc[np.isnan(srocc)] = np.nan
    mse = np.einsum("rv,v->r", counts, np.square(prediction - truth)) / counts.sum(axis=1)
    return {"plcc": plcc, "srocc": srocc, "mse": mse}


def _ranks(values: Values, counts: Values) -> Values:
    """Return each video's average rank within each resample, (resamples, videos)."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ties = np.add.reduceat(counts[:, order], starts, axis=1)
    average: Values = np.cumsum(ties, axis=1) - (ties - 1) / 2
    return average[:, codes]


def _correlation(first: Values, second: Values, counts: Values) -> Values:
    """Correlate (videos,) or (resamples, videos) values over each resample, (resamples,)."""
    total = counts.sum(axis=1)
    deviations = []
    for values in (first, second):
        mean = (counts * values).sum(axis=1) / total
        deviations.append(values - mean[:, None])
    moments = [
        np.einsum("rv,rv,rv->r", counts, deviations[one], deviations[other])
        for one, other in ((0, 1), (0, 0), (1, 1))
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: Values = moments[0] / np.sqrt(moments[1] * moments[2])
    return correlation.clip(-1, 1)


def _scaled(values: Values) -> Values:
    """Shift and scale to [-1, 1], so that squares of very small spreads do not underflow."""
    centred: Values = values - values.mean()
    largest = np.abs(centred).max()
    return centred / largest if largest else centred


def resamples(n: int, bootstrap: int, seed: int, groups: Sequence[str] = ()) -> Iterator[Values]:
    """Yield blocks (resamples, n): how often each video is drawn; `bootstrap` rows in all.

    Where videos share one of `groups`, whole groups are drawn, as many as there are. With fewer
    than `MIN_VIDEOS` videos or groups there are none.
    """
    of_group = group_indices(groups) if len(set(groups) - {""}) else np.arange(n)
    units = int(of_group.max(initial=-1)) + 1
    if units < MIN_VIDEOS:
        return
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // n)
    for start in range(0, bootstrap, rows):
        size = min(rows, bootstrap - start)
        drawn = generator.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)
        yield counts[:, of_group].astype(np.float64)


def group_indices(groups: Sequence[str]) -> NDArray[np.int64]:
    """Number groups in order of appearance: (videos,); a video without a name is one of its own."""
    number: dict[object, int] = {}
    keys = (name or (at,) for at, name in enumerate(groups))
    return np.array([number.setdefault(key, len(number)) for key in keys], np.int64)


def interval(samples: Values) -> Interval | None:
    """Return the 95 % percentile interval of a metric's values over resamples, (resamples,).

    None where there are none, or more than half are undefined.
    """
    defined = samples[~np.isnan(samples)]
    if not len(defined) or len(defined) < len(samples) / 2:
        return None
    low, high = np.percentile(defined, _PERCENTILES)
    return float(low), float(high)
