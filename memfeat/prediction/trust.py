"""What is unusual about a video, so that its score is to be trusted less."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memfeat.runs import FamiliarVideos
from memfeat.runs.familiar import FACTOR, FEW

EXTREME = 5.0  # per cent of the known scores at either end


@dataclass(frozen=True)
class Unusual:
    """How a video differs from those that a run was trained on.

    Attributes:
        familiarity: which share of familiar videos lies farther from what the run was trained on,
            from 1 for the most typical to 0; None if an early version trained the run.
        cautions: a line for each way in which the video differs, by a stable code: `unfamiliar`,
            `extreme`, `length`, `frame_rate`, `shape`.
    """

    familiarity: float | None
    cautions: dict[str, str]

    @classmethod
    def of(
        cls,
        familiar: FamiliarVideos | None,
        features: NDArray[np.float64],
        seconds: float,
        frames_per_second: float,
        percentile: float | None,
        *,
        frame_size: tuple[int, int],
    ) -> Self:
        """Compare a video with what a run was trained on.

        Args:
            familiar: what that is like.
            features: the video's own, (dim,).
            seconds: how long it lasts.
            frames_per_second: its frame rate, or 0 if it has none.
            percentile: of its score among those that the run learned from.
            frame_size: width and height of its frames; zeros where not known.
        """
        if familiar is None:
            return cls(None, {})
        distance = float(familiar.distance(features[None])[0])
        cautions = {}
        if distance > familiar.limit:
            cautions["unfamiliar"] = (
                f"its features lie {distance / familiar.limit:.1f} times as far from those that "
                f"the run learned from as those of {100 - 100 * FEW:.0f} % of familiar videos; "
                "neither its score nor the interval can be relied on"
            )
            if percentile is not None and not EXTREME < percentile < 100 - EXTREME:
                cautions["extreme"] = (
                    "an unfamiliar video has a score at the end of the known ones, which is more "
                    "likely an error than a finding"
                )
        if known := _range_left(familiar.seconds, seconds):
            cautions["length"] = f"it lasts {seconds:.1f} s, and the training videos {known} s"
        rates = familiar.frames_per_second
        if frames_per_second and (known := _range_left(rates, frames_per_second)):
            own = f"{frames_per_second:.1f} frames/s"
            cautions["frame_rate"] = f"it has {own}, and the training videos {known}"
        width, height = frame_size
        if height and (known := _range_left(familiar.aspects, width / height)):
            cautions["shape"] = (
                f"its frames are {width / height:.1f} times as wide as high, and those of the "
                f"training videos {known} times"
            )
        return cls(familiar.share_beyond(distance), cautions)


def _range_left(known: NDArray[np.float32], value: float) -> str:
    """Name a range if a value lies far outside of it, or else nothing."""
    low, high = known.tolist()
    far = value > FACTOR * high or value < low / FACTOR
    same = f"{low:.1f}" == f"{high:.1f}"
    return (f"{low:.1f}" if same else f"{low:.1f} to {high:.1f}") if high and far else ""
