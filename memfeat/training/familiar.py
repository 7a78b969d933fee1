"""Summing up what a run's training videos are like, so that others can be told from them."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.devices import seeded
from memfeat.runs import FamiliarVideos
from memfeat.runs.familiar import LEVELS

MOST_DIRECTIONS = 64
VIDEOS_PER_DIRECTION = 10  # fewer could not tell how much they vary along it
PARTS = 5  # of the train split
LEAST = 1e-3  # of the mean variance: no direction counts for more than this makes it
SMALLEST = 1e-8  # variance of a unit vector's numbers in float16, by rounding alone


def sum_up(
    train: NDArray[np.float64],
    dev: NDArray[np.float64],
    seconds: NDArray[np.float64],
    frames_per_second: NDArray[np.float64],
    aspects: NDArray[np.float64],
) -> FamiliarVideos:
    """Sum up the videos of the train split.

    What distances are usual is learned from the dev split, and from the train split a part at a
    time, with a summary of the others.

    Args:
        train: the features of that split's videos, (videos, dim).
        dev: those of the dev split.
        seconds: how long the former last, (videos,).
        frames_per_second: their frame rates, (videos,); zero where not known.
        aspects: their frames' width over height, (videos,); zero where not known.
    """
    known = _summary(train)
    distances = [known.distance(dev)]
    parts = np.arange(len(train)) % PARTS
    for part in range(PARTS if len(train) >= PARTS else 0):
        distances.append(_summary(train[parts != part]).distance(train[parts == part]))
    quantiles = np.quantile(np.concatenate(distances), LEVELS)
    return replace(
        known,
        distances=quantiles.astype(np.float32),
        seconds=_range(seconds),
        frames_per_second=_range(frames_per_second[frames_per_second > 0]),
        aspects=_range(aspects[aspects > 0]),
    )


def _summary(features: NDArray[np.float64]) -> FamiliarVideos:
    """Sum up features (videos, dim), without distances and ranges."""
    count, dim = features.shape
    mean = features.mean(0)
    centred = features - mean
    most = min(MOST_DIRECTIONS, count // VIDEOS_PER_DIRECTION, dim)
    directions, variances = np.zeros((0, dim)), np.zeros(0)
    if most:
        with seeded(0):
            _, values, vectors = torch.svd_lowrank(
                torch.from_numpy(centred), q=min(2 * most, count, dim), niter=4
            )
        directions = vectors[:, :most].T.numpy()
        variances = (values[:most].square() / (count - 1)).numpy()
    total = float(np.square(centred).sum()) / max(count - 1, 1)
    residual = (total - float(variances.sum())) / max(dim - most, 1)
    least = max(LEAST * total / dim, SMALLEST)
    return FamiliarVideos(
        mean=mean.astype(np.float32),
        directions=directions.astype(np.float32),
        variances=variances.clip(least).astype(np.float32),
        residual=np.array([max(residual, least)], np.float32),
        distances=np.zeros(len(LEVELS), np.float32),
        seconds=np.zeros(2, np.float32),
        frames_per_second=np.zeros(2, np.float32),
        aspects=np.zeros(2, np.float32),
    )


def _range(values: NDArray[np.float64]) -> NDArray[np.float32]:
    ends = [values.min(), values.max()] if len(values) else [0.0, 0.0]
    return np.array(ends, np.float32)
