"""What each frame of a video does to its score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHOWN = 3  # frames of a video that raise its score most, and that lower it most


@dataclass(frozen=True, eq=False)
class FrameEffects:
    """What each frame of one video does to its score, found by leaving it out.

    With several streams, frames are those of the first. What is left out at a time is then a
    stretch of time in all streams, as long as the stream with the fewest rows can resolve, and all
    frames in it share its effect.

    Attributes:
        pts_seconds: float64 (time,), when each frame appears.
        weights: float64 (time,), as in `VideoPrediction`.
        effect: float64 (time,), the score of all frames minus the score without this one: positive
            where the frame raises the score. None where undefined.
        effect_undefined: why `effect` is None, or else None.
        window: the most consecutive frames that were left out at a time, and share one effect. It
            is above 1 for clips of more than `MAX_VARIANTS` frames.
        score, score_std, sources: as in `VideoPrediction`.
        ratings: float64 (time,), each frame's own score, of a ready scorer that rates frames.
    """

    pts_seconds: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    effect: NDArray[np.float64] | None
    effect_undefined: str | None
    window: int
    score: float
    score_std: float | None
    sources: tuple[str, ...]
    ratings: NDArray[np.float64] | None = None


def frames_that_matter(timeline: FrameEffects) -> list[str]:
    """Say at which times the frames are that raise or lower a score most."""
    effects = timeline.effect
    if effects is None:
        return [timeline.effect_undefined or "the effect of its frames is not defined"]
    order = np.argsort(effects)
    lines = []
    for word, frames, sign in (("raised", order[::-1], 1), ("lowered", order, -1)):
        strongest = [frame for frame in frames[:SHOWN].tolist() if sign * effects[frame] > 0]
        moments = [
            f"{timeline.pts_seconds[frame]:.2f} s ({effects[frame]:+.4f})" for frame in strongest
        ]
        if moments:
            lines.append(f"{word} most by the frames at {', '.join(moments)}")
    return lines
