"""The strip beneath a timeline: which frames it shows, and each tied to its time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from memfeat.figures.style import BLUE, MUTED, RULE, SMALL, VERMILION

ACROSS, LEADER = 8.85, 0.62  # inches: the strip's width, and the height of the lines above it
GUTTER = 0.07  # inches between frames


class Timeline(Protocol):
    """What the picture needs; `memfeat.prediction.FrameEffects` is one. Arrays are (time,)."""

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """When each frame appears."""

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """Each frame's weight, if the model has such."""

    @property
    def effect(self) -> NDArray[np.float64] | None:
        """What each frame adds to the score, where that is defined."""

    @property
    def effect_undefined(self) -> str | None:
        """Why it is not."""

    @property
    def window(self) -> int:
        """How many consecutive frames were left out at a time."""

    @property
    def score(self) -> float:
        """The clip's score."""

    @property
    def score_std(self) -> float | None:
        """Its standard deviation over seeds."""


def strip_indices(timeline: Timeline, count: int = 10) -> tuple[int, ...]:
    """Choose the frames to show beneath a timeline: evenly spread, the strongest among them.

    The frame that raises the score most and the one that lowers it most each take the place of
    their nearest neighbour.
    """
    num_frames = len(timeline.pts_seconds)
    chosen = {int(index) for index in np.linspace(0, num_frames - 1, min(count, num_frames))}
    strongest = strongest_of(timeline)
    for strong in strongest:
        free = sorted(chosen - strongest.keys())
        if strong not in chosen and free:
            chosen.remove(min(free, key=lambda index: abs(index - strong)))
            chosen.add(strong)
    return tuple(sorted(chosen))


@dataclass(frozen=True)
class Strip:
    """The strip's measures in inches, from the frames that it shows."""

    slot: float
    thumb: float

    @classmethod
    def of(cls, frames: Mapping[int, NDArray[np.uint8]]) -> Self:
        """Measure out a slot for each of `frames`."""
        slot = ACROSS / max(len(frames), 1)
        shapes = [pixels.shape[:2] for pixels in frames.values()]
        width = min(slot - GUTTER, 1.6)
        tallest = max((width * height / across for height, across in shapes), default=0.0)
        return cls(slot, min(tallest, 1.25))

    @property
    def height(self) -> float:
        """Its whole height: lines, frames and what is written below."""
        return LEADER + self.thumb + 0.42 if self.thumb else LEADER


def edges_of(pts_seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return when each frame appears, and when the last one goes: (time + 1,), increasing."""
    gaps = np.diff(pts_seconds)
    usual = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else 0.04
    edges = np.append(pts_seconds, pts_seconds[-1] + usual)
    return np.maximum.accumulate(edges)


def strongest_of(timeline: Timeline) -> dict[int, float]:
    """Return the frames that raise and lower the score most, with their effects."""
    if timeline.effect is None or not np.any(timeline.effect):
        return {}
    extremes = (int(np.argmax(timeline.effect)), int(np.argmin(timeline.effect)))
    raises, lowers = (float(timeline.effect[index]) for index in extremes)
    strongest = {extremes[0]: raises} if raises > 0 else {}
    return strongest | ({extremes[1]: lowers} if lowers < 0 else {})


def draw_strip(
    axes: Axes,
    strip: Strip,
    timeline: Timeline,
    frames: Mapping[int, NDArray[np.uint8]],
) -> None:
    """Lay thumbnails side by side, each tied to its time on the axis above."""
    axes.set(xlim=(0, ACROSS), ylim=(0, strip.height), yticks=[], xticks=[])
    axes.spines[:].set_visible(False)
    edges = edges_of(timeline.pts_seconds)
    strongest = strongest_of(timeline)
    top = strip.height - LEADER
    for slot, (index, pixels) in enumerate(sorted(frames.items())):
        effect = strongest.get(index)
        colour = RULE if effect is None else BLUE if effect > 0 else VERMILION
        middle = (slot + 0.5) * strip.slot
        moment = (edges[index] + edges[index + 1]) / 2
        place = (moment - edges[0]) / (edges[-1] - edges[0]) * ACROSS
        axes.plot(
            [place, place, middle, middle],
            [strip.height, strip.height - 0.34, top + 0.1, top],
            color=colour,
            linewidth=0.9 if effect is None else 1.6,
        )
        bottom = _draw_frame(axes, strip, pixels, (middle, top), colour)
        caption = axes.text(middle, bottom - 0.06, f"{timeline.pts_seconds[index]:.2f} s")
        caption.set(ha="center", va="top", fontsize=SMALL + 0.5, color=MUTED)
        if effect is not None:
            caption.set_text(f"{caption.get_text()}\n{'raises' if effect > 0 else 'lowers'} most")
            caption.set(color=colour, fontweight="bold")


def _draw_frame(
    axes: Axes,
    strip: Strip,
    pixels: NDArray[np.uint8],
    hook: tuple[float, float],
    colour: str,
) -> float:
    """Hang a frame by the middle of its upper edge; return where its lower edge is."""
    scale = min((strip.slot - GUTTER) / pixels.shape[1], strip.thumb / pixels.shape[0])
    height, width = float(pixels.shape[0] * scale), float(pixels.shape[1] * scale)
    left, bottom = hook[0] - width / 2, hook[1] - height
    extent = (left, left + width, bottom, hook[1])
    axes.imshow(pixels, extent=extent, aspect="auto", interpolation="antialiased")
    thick = 0.9 if colour == RULE else 2.2
    border = Rectangle((left, bottom), width, height, fill=False, edgecolor=colour, linewidth=thick)
    axes.add_patch(border)
    return bottom
