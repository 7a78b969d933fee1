"""What a page is made of, whichever result it shows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from memfeat.figures import inline_svg, scatter
from memfeat.report.table import Pairs, Table
from memfeat.report.worst import WorstVideo
from memfeat.runs import Predictions, Run


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Gallery:
    """The worst predictions of one model on one split.

    Attributes:
        words: which they are, to stand between "The videos" and "is most wrong about".
        videos: the worst first.
        note: what to know about them.
        heading: stands above; empty where there is one gallery alone.
    """

    words: str
    videos: tuple[WorstVideo, ...]
    note: str
    heading: str = ""


@dataclass(frozen=True)
class Page:
    """All that the template shows; `table` for a grid, `pairs` for Table 2, `splits` for a run."""

    title: str
    sources: tuple[str, ...]
    runs: tuple[Run, ...]
    table: Table | None = None
    pairs: Pairs | None = None
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overview: Picture | None = None
    scatters: tuple[Picture, ...] = ()
    worst: tuple[Gallery, ...] = ()
    versions: dict[str, Any] = field(default_factory=dict)


def scatter_of(predictions: Predictions, split: str, name: str, key: str) -> Picture:
    """Draw a split's truth against prediction; `key` keeps the figure's ids apart."""
    chosen = (np.array(predictions.split) == split) & ~np.isnan(predictions.score)
    truth, predicted = predictions.score[chosen], predictions.prediction[chosen]
    figure = scatter(truth, predicted, title=name)
    description = f"Scatter plot of {name}: measured against predicted score of {len(truth)} videos"
    return Picture(Markup(inline_svg(figure, description, key)), name)  # noqa: S704


def run_of(folder: Path) -> Run | None:
    """Load a run that a result names, or None where it is not beside the result any more."""
    return Run.load(folder) if folder.is_dir() else None
