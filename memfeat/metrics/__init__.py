"""How well predictions agree with the truth, how sure that is, and how well they ever could."""

from memfeat.metrics.agreement import Difference, Metrics, evaluate, paired_difference
from memfeat.metrics.ceilings import SplitHalf, known_ceiling, split_half_ceiling
from memfeat.metrics.resampling import METRICS, MIN_VIDEOS, Interval, Metric

__all__ = [
    "METRICS",
    "MIN_VIDEOS",
    "Difference",
    "Interval",
    "Metric",
    "Metrics",
    "SplitHalf",
    "evaluate",
    "known_ceiling",
    "paired_difference",
    "split_half_ceiling",
]
