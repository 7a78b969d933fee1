"""The thumbnails beneath a timeline: which frames they are, each connected to its time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from memfeat.figures.style import BLUE, MUTED, RULE, SMALL, VERMILION
from memfeat.prediction.effects import FrameEffects

STRIP_WIDTH, CONNECTORS = 8.85, 0.62  # inches; the second is the height of the lines to the axis
GUTTER = 0.07  # inches between thumbnails


def strip_indices(timeline: FrameEffects, count: int = 10) -> tuple[int, ...]:
    """Choose the frames to show beneath a timeline: evenly spread, the strongest among them.

    The frame that raises the score most and the one that lowers it most each replace their
    nearest neighbour.
    """
    num_frames = len(timeline.pts_seconds)
    chosen = {int(index) for index in np.linspace(0, num_frames - 1, min(count, num_frames))}
    strongest = strongest_frames(timeline)
    for strong in strongest:
        others = sorted(chosen - strongest.keys())
        if strong not in chosen and others:
            chosen.remove(min(others, key=lambda index: abs(index - strong)))
            chosen.add(strong)
    return tuple(sorted(chosen))


@dataclass(frozen=True)
class Strip:
    """Sizes in inches: the width per thumbnail, gutter included, and the thumbnails' height."""

    slot: float
    thumb: float

    @classmethod
    def of(cls, frames: Mapping[int, NDArray[np.uint8]]) -> Self:
        """Compute the sizes for these frames."""
        slot = STRIP_WIDTH / max(len(frames), 1)
        shapes = [pixels.shape[:2] for pixels in frames.values()]
        width = min(slot - GUTTER, 1.6)
        tallest = max((width * rows / columns for rows, columns in shapes), default=0.0)
        return cls(slot, min(tallest, 1.25))

    @property
    def height(self) -> float:
        """The whole height: connectors, thumbnails and captions."""
        return CONNECTORS + self.thumb + 0.42 if self.thumb else CONNECTORS


def frame_edges(pts_seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return when each frame appears and when the last one ends: (time + 1,), increasing."""
    gaps = np.diff(pts_seconds)
    usual = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else 0.04
    return np.maximum.accumulate(np.append(pts_seconds, pts_seconds[-1] + usual))


def strongest_frames(timeline: FrameEffects) -> dict[int, float]:
    """Return the frames that raise and lower the score most, with their effects."""
    effect = timeline.effect
    if effect is None:
        return {}
    highest, lowest = int(np.argmax(effect)), int(np.argmin(effect))
    strongest = {highest: float(effect[highest])} if effect[highest] > 0 else {}
    return strongest | ({lowest: float(effect[lowest])} if effect[lowest] < 0 else {})


def draw_strip(
    axes: Axes,
    strip: Strip,
    timeline: FrameEffects,
    frames: Mapping[int, NDArray[np.uint8]],
) -> None:
    """Draw thumbnails side by side, each connected to its time on the axis above."""
    axes.set(xlim=(0, STRIP_WIDTH), ylim=(0, strip.height), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    edges = frame_edges(timeline.pts_seconds)
    strongest = strongest_frames(timeline)
    top = strip.height - CONNECTORS
    for slot, (index, pixels) in enumerate(sorted(frames.items())):
        effect = strongest.get(index)
        colour = RULE if effect is None else BLUE if effect > 0 else VERMILION
        middle = (slot + 0.5) * strip.slot
        moment = (edges[index] + edges[index + 1]) / 2
        x = (moment - edges[0]) / (edges[-1] - edges[0]) * STRIP_WIDTH
        axes.plot(
            [x, x, middle, middle],
            [strip.height, strip.height - 0.34, top + 0.1, top],
            color=colour,
            linewidth=0.9 if effect is None else 1.6,
        )
        bottom = _draw_thumbnail(axes, strip, pixels, (middle, top), colour)
        caption = axes.text(middle, bottom - 0.06, f"{timeline.pts_seconds[index]:.2f} s")
        caption.set(ha="center", va="top", fontsize=SMALL + 0.5, color=MUTED)
        if effect is not None:
            caption.set_text(f"{caption.get_text()}\n{'raises' if effect > 0 else 'lowers'} most")
            caption.set(color=colour, fontweight="bold")


def _draw_thumbnail(
    axes: Axes,
    strip: Strip,
    pixels: NDArray[np.uint8],
    top_middle: tuple[float, float],
    colour: str,
) -> float:
    """Draw a frame below a point; return the height of its lower edge."""
    scale = min((strip.slot - GUTTER) / pixels.shape[1], strip.thumb / pixels.shape[0])
    height, width = float(pixels.shape[0] * scale), float(pixels.shape[1] * scale)
    left, bottom = top_middle[0] - width / 2, top_middle[1] - height
    extent = (left, left + width, bottom, top_middle[1])
    axes.imshow(pixels, extent=extent, aspect="auto", interpolation="antialiased")
    thick = 0.9 if colour == RULE else 2.2
    border = Rectangle((left, bottom), width, height, fill=False, edgecolor=colour, linewidth=thick)
    axes.add_patch(border)
    return bottom
