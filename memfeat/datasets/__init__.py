"""Where videos and scores come from: other people's label files, and the demo of our own.

The demo renders videos, and is imported by its own name where it is wanted.
"""

from memfeat.datasets import memento10k, memento10k_mediaeval, videomem  # registers the formats
from memfeat.datasets.conversion import Conversion, SplitCount, convert
from memfeat.datasets.formats import FORMATS, Format, Labels, ListedVideo

__all__ = [
    "FORMATS",
    "Conversion",
    "Format",
    "Labels",
    "ListedVideo",
    "SplitCount",
    "convert",
    "memento10k",
    "memento10k_mediaeval",
    "videomem",
]
