"""The picture of a comparison: each video's score, its frames' effects, and thumbnails."""

from pathlib import Path
from typing import BinaryIO

from matplotlib.figure import Figure

from memfeat.figures.style import MUTED, SmallPrint, drawable, picture_format, save, style
from memfeat.prediction.comparison import Comparison
from memfeat.prediction.strip import STRIP_WIDTH, Strip, draw_strip, frame_edges
from memfeat.prediction.timeline import (
    EFFECT,
    GAP,
    LEFT,
    WIDTH,
    draw_effect,
)

HEADING = 0.6  # inches, above each video


def draw_comparison(comparison: Comparison, output: Path | BinaryIO) -> None:
    """Draw videos one below the other, the most memorable first, with one scale for effects.

    Args:
        comparison: of videos of which at least one could be scored.
        output: a .png, .svg or .pdf file, or a stream for a PNG.

    Raises:
        VideoError: a video cannot be decoded again.
        ConfigError: the output's name ends in none of .png, .svg and .pdf.
        OSError: the output cannot be written.
    """
    if isinstance(output, Path):
        picture_format(output)
    ranking = comparison.ranking
    frames = [prediction.thumbnails() for prediction in ranking]
    strips = [Strip.of(own) for own in frames]
    effects = [each.effects for each in ranking if each.effects is not None]
    largest = max((float(abs(own).max()) for own in effects), default=0.0)
    with style():
        lines = SmallPrint([*comparison.lines(), *ranking[0].sources], 125)
        heights = [HEADING + EFFECT + strip.height + GAP for strip in strips]
        figure = Figure(figsize=(WIDTH, sum(heights) + lines.height))
        top = figure.get_figheight()
        for prediction, own, strip in zip(ranking, frames, strips, strict=True):
            whole = figure.get_figheight()
            left, width = LEFT / WIDTH, STRIP_WIDTH / WIDTH
            score = f"predicted score {prediction.score:.3f}"
            heading = f"{drawable(prediction.heading())}: {score}"
            figure.text(
                left,
                (top - 0.3) / whole,
                heading,
                fontsize=12.5,
                fontweight="bold",
                parse_math=False,
            )
            beside = drawable("; ".join(prediction.lines()[:1]))
            figure.text(left, (top - 0.5) / whole, beside, color=MUTED, fontsize=8)
            top -= HEADING + EFFECT
            axes = figure.add_axes((left, top / whole, width, EFFECT / whole))
            edges = frame_edges(prediction.pts_seconds)
            axes.set_xlim(edges[0], edges[-1])
            draw_effect(axes, prediction.timeline, edges)
            if largest:
                axes.set_ylim(-1.12 * largest, 1.12 * largest)
            top -= strip.height
            under = figure.add_axes((left, top / whole, width, strip.height / whole), zorder=-1)
            draw_strip(under, strip, prediction.timeline, own)
            top -= GAP
        lines.draw(figure, LEFT)
        save(figure, output)
