"""How well predictions agree with the truth, how certain that is, and the best attainable."""

from memfeat.metrics.agreement import (
    Difference,
    Line,
    Metrics,
    evaluate,
    fit_line,
    paired_difference,
    paired_differences,
)
from memfeat.metrics.ceilings import SplitHalf, known_ceiling, split_half_ceiling
from memfeat.metrics.resampling import METRICS, MIN_VIDEOS, Interval, Metric, group_indices

__all__ = [
    "METRICS",
    "MIN_VIDEOS",
    "Difference",
    "Interval",
    "Line",
    "Metric",
    "Metrics",
    "SplitHalf",
    "evaluate",
    "fit_line",
    "group_indices",
    "known_ceiling",
    "paired_difference",
    "paired_differences",
    "split_half_ceiling",
]
