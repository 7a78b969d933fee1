"""Figures: a clip's timeline, truth against prediction, and a table's intervals."""

from memfeat.figures.plots import IntervalRow, intervals, scatter
from memfeat.figures.strip import strip_indices
from memfeat.figures.style import inline_svg, is_warning, picture_format, save
from memfeat.figures.timeline import draw_timeline

__all__ = [
    "IntervalRow",
    "draw_timeline",
    "inline_svg",
    "intervals",
    "is_warning",
    "picture_format",
    "save",
    "scatter",
    "strip_indices",
]
