"""Truth against prediction as hand-written SVG: a dot a video, whose place a script can find.

A plotting library put into the page would add 1.2 MB (Plotly's basic bundle) or 0.5 MB (Observable
Plot with D3), show nothing without a script, and decide by itself what a keyboard and a screen
reader get. Matplotlib's SVG has an element of some 80 bytes a dot. This takes 14 bytes a dot, a
dozen elements whatever their number, and the page's own script finds the nearest one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from memfeat.errors import counted
from memfeat.metrics import Metrics, evaluate

SIZE = 360  # pixels a side
EDGES = LEFT, RIGHT, TOP, BOTTOM = 46, 352, 8, 314  # of the plot in it
LAYERS = 12  # paths that share the dots out, so that overlapping ones look darker


@dataclass(frozen=True)
class Scatter:
    """A scatter of truth against prediction.

    Attributes:
        name: of the system.
        system: its number in the page's data.
        measures: of the averaged prediction.
        svg: the picture.
        low, high: the scores at the plot's edges.
    """

    name: str
    system: int
    measures: Metrics
    svg: Markup
    low: float
    high: float


def scatter(
    name: str, system: int, truth: NDArray[np.float64], prediction: NDArray[np.float64]
) -> Scatter:
    """Draw truth against prediction, (videos,) each, and the line on which they are equal."""
    both = np.concatenate([truth, prediction, [0.5] * (not len(truth))])
    margin = max(0.06 * float(np.ptp(both)), 0.01)
    low, high = float(both.min()) - margin, float(both.max()) + margin
    videos = counted(len(truth), "video")
    label = f"Scatter plot of {name}: measured against predicted score of {videos}"
    svg = Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 {} {}" class="dots">{}{}'
        '<circle class="ring" r="7"></circle></svg>'
    ).format(label, SIZE, SIZE, _axes(low, high), _dots(truth, prediction, low, high))
    return Scatter(name, system, evaluate(truth, prediction, bootstrap=0), svg, low, high)


def _axes(low: float, high: float) -> Markup:
    ticks = [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high]
    digits = max(len(f"{tick:.4g}".partition(".")[2]) for tick in ticks)
    lines = Markup("").join(
        Markup(
            '<path class="grid" d="M{x:.1f} {b}V{t}M{l} {y:.1f}H{r}"/>'
            '<text x="{x:.1f}" y="{under}" text-anchor="middle">{text}</text>'
            '<text x="{beside}" y="{middle:.1f}" text-anchor="end">{text}</text>'
        ).format(
            x=_across(tick, low, high),
            y=_down(tick, low, high),
            middle=_down(tick, low, high) + 4,
            text=f"{tick:.{digits}f}",
            **{"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM},
            under=BOTTOM + 16,
            beside=LEFT - 6,
        )
        for tick in ticks
    )
    middle = (LEFT + RIGHT) // 2
    return lines + Markup(  # noqa: S704  our own
        f'<path class="equal" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>'
        f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>'
        f'<text class="label" x="{middle}" y="{SIZE - 8}" text-anchor="middle">'
        "measured score (dashed: prediction = truth)</text>"
        f'<text class="label" transform="translate(12 {(TOP + BOTTOM) // 2}) rotate(-90)" '
        'text-anchor="middle">predicted score</text>'
    )


def _dots(
    truth: NDArray[np.float64], prediction: NDArray[np.float64], low: float, high: float
) -> Markup:
    """Draw dots as round ends of lines without length, which is short and quick to lay out."""
    width = float(np.clip(90 / np.sqrt(max(len(truth), 1)), 2.5, 8))
    across, down = _across(truth, low, high), _down(prediction, low, high)
    dots = [f"M{x:.1f} {y:.1f}h0" for x, y in zip(across, down, strict=True)]
    layers = [dots[first::LAYERS] for first in range(LAYERS)]
    paths = "".join(f'<path d="{"".join(layer)}"/>' for layer in layers if layer)
    return Markup(f'<g class="videos" stroke-width="{width:.1f}">{paths}</g>')  # noqa: S704


def _across(score: Any, low: float, high: float) -> Any:
    return LEFT + (score - low) / (high - low) * (RIGHT - LEFT)


def _down(score: Any, low: float, high: float) -> Any:
    return BOTTOM - (score - low) / (high - low) * (BOTTOM - TOP)
