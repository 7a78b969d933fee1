"""One video's features, as they are given, to vectors as a cache keeps them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.given import GivenVideo
from memfeat.cache.spec import CacheSpec
from memfeat.errors import CacheError

LARGEST = float(np.finfo(np.float16).max)
UNIT = 1e-3  # a vector whose length is 1 up to this stays as it is, to the last bit


def steps_of(video: GivenVideo) -> NDArray[Any]:
    """Return a video's features as (time, dim).

    Raises:
        CacheError: their shape or type is another.
    """
    features = video.features
    if features.dtype.kind not in "fiu":
        raise CacheError(f"{video.place}: features of type {features.dtype}; give numbers")
    if features.ndim not in (1, 2) or not features.size:
        raise CacheError(
            f"{video.place}: features of shape {features.shape}; give (time, dim), or (dim,) for "
            "one step, without a 0"
        )
    return np.atleast_2d(features)


def vectors_of(video: GivenVideo, spec: CacheSpec, first: str) -> NDArray[np.float16]:
    """Check a video's features and return them as the cache keeps them, float16 (time, dim).

    Args:
        video: the video.
        spec: their width, and whether they are divided by their length.
        first: where the video stands that the width is of.

    Raises:
        CacheError: features of another shape or width, values that are not finite or too large,
            vectors that have no length to divide by, or that are too small for float16.
    """
    steps = steps_of(video)
    if steps.shape[1] != spec.dim:
        raise CacheError(
            f"{video.place}: {steps.shape[1]} values a step, but {first} has {spec.dim}; all "
            "videos of a cache have the same"
        )
    values = steps.astype(np.float64)
    if not np.isfinite(values).all():
        raise _odd_value(video, values, ~np.isfinite(values), "is not a finite number")
    if spec.normalisation == "l2":
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            step = int(np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[0])
            raise CacheError(
                f"{video.place}, step {step}: a vector of length {lengths[step, 0]:g} has no "
                "direction; give another, or import with --normalise none"
            )
        values /= np.where(np.abs(lengths - 1) < UNIT, 1, lengths)
    too_large = np.abs(values) > LARGEST
    if too_large.any():
        why = f"is beyond float16, which ends at {LARGEST:g}; scale the features, or --normalise l2"
        raise _odd_value(video, values, too_large, why)
    stored = values.astype(np.float16)
    vanished = np.flatnonzero(values.any(axis=1) & ~stored.any(axis=1))
    if len(vanished):
        step = int(vanished[0])
        raise CacheError(
            f"{video.place}, step {step}: all values are nothing but 0 in float16, the largest is "
            f"{np.abs(values[step]).max():g}; scale the features, or --normalise l2"
        )
    return stored


def _odd_value(
    video: GivenVideo, values: NDArray[np.float64], odd: NDArray[np.bool_], why: str
) -> CacheError:
    step, column = (int(index) for index in np.argwhere(odd)[0])
    return CacheError(f"{video.place}, step {step}, value {column}: {values[step, column]:g} {why}")
