"""How well predictions agree with the truth, how sure that is, and how well they ever could."""

from memfeat.metrics.agreement import Difference, Metrics, evaluate, paired_difference
from memfeat.metrics.ceilings import SplitHalf, known_ceiling, split_half_ceiling
from memfeat.metrics.recalibration import Line, fit_line
from memfeat.metrics.resampling import METRICS, MIN_VIDEOS, Interval, Metric

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
    "known_ceiling",
    "paired_difference",
    "split_half_ceiling",
]
