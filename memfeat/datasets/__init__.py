"""Label files of published datasets to manifests; and the demo, which is imported by module."""

from memfeat.datasets import memento10k, videomem  # registers the formats
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
    "videomem",
]
