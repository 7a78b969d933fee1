"""Label files of published datasets to manifests; and the demo, which is imported by module."""

from memfeat.datasets import (  # noqa: F401 (registers the formats)
    memento10k,
    movie,
    videm,
    videomem,
)
from memfeat.datasets.conversion import Conversion, convert
from memfeat.datasets.formats import FORMATS, Format, Labels, ListedVideo

__all__ = [
    "FORMATS",
    "Conversion",
    "Format",
    "Labels",
    "ListedVideo",
    "convert",
]
