"""Predict how memorable a video is: cached frame embeddings in, scores out.

Examples:
    >>> import memfeat
    >>> memfeat.load("runs/mine").predict("clip.mp4").status
    'ok'

What it gives is imported when it is first asked for, so that `import memfeat` itself is quick.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from memfeat.errors import MemfeatError

if TYPE_CHECKING:
    from memfeat.api import embed, evaluate, extract, load, train
    from memfeat.cache import Cache
    from memfeat.manifest import read_manifest
    from memfeat.prediction import Predictor, VideoPrediction
    from memfeat.runs import Run

# torch's threads wait for each other thousands of times a second. By default they spin meanwhile,
# which takes several times as long where others use the machine, too; asleep they take at most a
# tenth longer where nobody does. Heeded if torch is imported later; `make bench-busy` measures it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = [
    "Cache",
    "MemfeatError",
    "Predictor",
    "Run",
    "VideoPrediction",
    "embed",
    "evaluate",
    "extract",
    "load",
    "read_manifest",
    "train",
]

_PACKAGES = {
    "Cache": "cache",
    "Predictor": "prediction",
    "read_manifest": "manifest",
    "Run": "runs",
    "VideoPrediction": "prediction",
    **dict.fromkeys(("embed", "evaluate", "extract", "load", "train"), "api"),
}


def __getattr__(name: str) -> Any:
    if name not in _PACKAGES:
        raise AttributeError(f"module 'memfeat' has no attribute {name!r}")
    return getattr(import_module(f"memfeat.{_PACKAGES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
