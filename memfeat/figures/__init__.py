"""Figures: truth against prediction, and a table's intervals; the style of all figures."""

from memfeat.figures.plots import IntervalRow, intervals, scatter
from memfeat.figures.style import inline_svg, is_warning, picture_format, save

__all__ = [
    "IntervalRow",
    "inline_svg",
    "intervals",
    "is_warning",
    "picture_format",
    "save",
    "scatter",
]
