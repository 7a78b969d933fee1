"""The timeline: how much each frame of a clip raises or lowers its score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from memfeat.figures.style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    VERMILION,
    SmallPrint,
    drawable,
    inline_svg,
    picture_format,
    save,
    style,
)
from memfeat.prediction.effects import FrameEffects, frames_that_matter
from memfeat.prediction.strip import STRIP_WIDTH, Strip, draw_strip, frame_edges

LEFT, RIGHT, GAP = 0.95, 0.2, 0.2  # inches
WIDTH = LEFT + STRIP_WIDTH + RIGHT
HEADING, WEIGHTS, EFFECT = 0.72, 1.2, 1.55  # inches
LABEL = 0.75  # inches along the axis of time that a label needs, with some room
PAGE_WIDTH, PAGE_LEFT, PAGE_BELOW, PAGE_ABOVE = 4.3, 0.9, 0.3, 0.2  # inches, in an HTML page
FEW_FRAMES = 150  # up to here each frame gets a bar or dot of its own


class TimeAxis(NamedTuple):
    """Where time runs in a picture of `draw_timeline`; shares of its width, and seconds."""

    left: float
    right: float
    from_seconds: float
    to_seconds: float

    @classmethod
    def of(cls, timeline: FrameEffects) -> Self:
        """Return the axis of a timeline's picture."""
        edges = frame_edges(timeline.pts_seconds)
        right = (LEFT + STRIP_WIDTH) / WIDTH
        return cls(LEFT / WIDTH, right, float(edges[0]), float(edges[-1]))


def draw_timeline(
    timeline: FrameEffects,
    frames: Mapping[int, NDArray[np.uint8]],
    output: Path | BinaryIO,
    *,
    title: str,
    sources: Sequence[str],
) -> None:
    """Draw each frame's weight, below it the frame's effect on the score, and thumbnails.

    Args:
        timeline: weights and effects of a clip's frames.
        frames: pixels uint8 (height, width, 3) RGB by frame index; `strip_indices` chooses them.
        output: a .png, .svg or .pdf file, or a stream for a PNG.
        title: names the clip.
        sources: lines in small print: where features and scores come from.

    Raises:
        ConfigError: the output's name ends in none of .png, .svg and .pdf.
        OSError: the output cannot be written.
    """
    if isinstance(output, Path):
        picture_format(output)
    strip, panels = Strip.of(frames), _panels(timeline)
    with style():
        lines = SmallPrint(sources, 125)
        height = HEADING + _height(panels) + strip.height + lines.height
        figure = Figure(figsize=(WIDTH, height))
        _draw_panels(figure, timeline, panels, (LEFT, height - HEADING, STRIP_WIDTH))
        _draw_heading(figure, timeline, title)
        strip_axes = figure.add_axes(
            _rectangle(figure, (LEFT, lines.height, STRIP_WIDTH, strip.height)), zorder=-1
        )
        draw_strip(strip_axes, strip, timeline, frames)
        lines.draw(figure, LEFT)
        save(figure, output)


def timeline_svg(timeline: FrameEffects, key: str) -> str:
    """Draw what `draw_timeline` draws, without thumbnails and small print, for an HTML page.

    Args:
        timeline: weights and effects of a clip's frames.
        key: makes its ids differ from those of the page's other figures.

    Returns:
        An `<svg>` element; its label names the frames that matter.
    """
    panels = _panels(timeline)
    height = PAGE_BELOW + _height(panels) + PAGE_ABOVE
    with style():
        figure = Figure(figsize=(PAGE_WIDTH, height))
        plot = (PAGE_LEFT, height - PAGE_ABOVE, PAGE_WIDTH - PAGE_LEFT - PAGE_ABOVE)
        _draw_panels(figure, timeline, panels, plot)
        return inline_svg(figure, ". ".join(["Timeline", *frames_that_matter(timeline)]), key)


def _panels(timeline: FrameEffects) -> list[float]:
    """Return the heights of what there is to draw: each frame's own number, and its effect."""
    has_marks = timeline.weights is not None or timeline.ratings is not None
    return [WEIGHTS, EFFECT] if has_marks else [EFFECT]


def _height(panels: Sequence[float]) -> float:
    return sum(panels) + GAP * (len(panels) - 1)


def _draw_panels(
    figure: Figure,
    timeline: FrameEffects,
    panels: Sequence[float],
    place: tuple[float, float, float],
) -> None:
    """Draw the panels below each other; `place` is their left, top and width in inches."""
    left, top, width = place
    edges = frame_edges(timeline.pts_seconds)
    marks = timeline.weights if timeline.ratings is None else timeline.ratings
    for panel in panels:
        top -= panel
        axes = figure.add_axes(_rectangle(figure, (left, top, width, panel)))
        axes.set_xlim(edges[0], edges[-1])
        if panel == WEIGHTS and marks is not None:
            _draw_marks(axes, marks, "weight" if timeline.ratings is None else "rating", edges)
        else:
            draw_effect(axes, timeline, edges)
        top -= GAP


def _rectangle(
    figure: Figure, inches: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Turn left, bottom, width and height in inches into shares of the figure."""
    across, high = figure.get_size_inches()
    left, bottom, width, height = inches
    return (left / across, bottom / high, width / across, height / high)


def _draw_heading(figure: Figure, timeline: FrameEffects, title: str) -> None:
    height, left = figure.get_figheight(), LEFT / WIDTH
    name = drawable(title)
    spread = f" ± {timeline.score_std:.3f} over seeds" if timeline.score_std is not None else ""
    figure.text(
        left,
        1 - 0.3 / height,
        f"{name}: predicted score {timeline.score:.3f}{spread}",
        fontsize=12.5,
        fontweight="bold",
        parse_math=False,
    )
    what, raises = "this frame", "it raises"
    if timeline.window > 1:
        what, raises = f"{timeline.window} frames in a row", "they raise"
    text = f"Effect: the score with all frames minus the score without {what}. "
    text += f"Blue: {raises} the score."
    if timeline.ratings is not None:
        text += " Rating: the frame's own score."
    elif timeline.weights is None:
        text += " This model gives frames no weights of their own."
    figure.text(left, 1 - 0.53 / height, text, color=MUTED, fontsize=8)


def _draw_marks(
    axes: Axes, marks: NDArray[np.float64], label: str, edges: NDArray[np.float64]
) -> None:
    axes.set_ylabel(label)
    axes.tick_params(labelbottom=False, bottom=False)
    axes.grid(True, axis="y")
    if marks.min() <= 0 <= marks.max():
        axes.axhline(0, color=MUTED, linewidth=0.8)
    if len(marks) <= FEW_FRAMES:
        middles = (edges[:-1] + edges[1:]) / 2
        axes.plot(middles, marks, color=MUTED, linewidth=0.9)
        axes.plot(middles, marks, "o", color=INK, markersize=2.6)
    else:
        axes.stairs(marks, edges, baseline=None, color=INK, linewidth=0.9)
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=4)


def draw_effect(axes: Axes, timeline: FrameEffects, edges: NDArray[np.float64]) -> None:
    """Draw each frame's effect as a bar between its edges, or say why there is none."""
    axes.set_ylabel("effect on score")
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:g} s")
    inches = axes.bbox.width / axes.figure.dpi
    axes.locator_params(axis="x", nbins=max(1, min(8, int(inches / LABEL))))
    for tick in axes.get_xticklabels():
        tick.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 1.5})
    if timeline.effect is None:
        reason = drawable(timeline.effect_undefined or "undefined")
        text = axes.text(0.5, 0.6, reason, transform=axes.transAxes, color=MUTED)
        text.set(ha="center", va="center", parse_math=False)
        axes.set(yticks=[], xticks=[])
        return
    share = 0.86 if len(timeline.effect) <= FEW_FRAMES and timeline.window == 1 else 1.0
    colours = np.where(timeline.effect >= 0, BLUE, VERMILION)
    axes.bar(
        edges[:-1], timeline.effect, np.diff(edges) * share, align="edge", color=colours.tolist()
    )
    axes.grid(True, axis="y")
    axes.margins(y=0.12)
    axes.locator_params(axis="y", nbins=5)
    axes.ticklabel_format(axis="y", scilimits=(-6, 3), useOffset=False)
