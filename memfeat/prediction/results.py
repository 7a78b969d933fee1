"""The prediction for one video: score, attention weights, leave-one-out effects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import Status
from memfeat.storage import Location


@dataclass(frozen=True, kw_only=True)
class VideoPrediction:
    """The score of one video, and each frame's attention weight.

    Attributes:
        path: the video's path or URL.
        score: memorability in (0, 1), the mean over the run's seeds; None if the video failed.
        score_std: standard deviation over seeds (n - 1); None with one seed.
        num_frames: frames decoded and scored, with those that a kept frame stands for. With several
            streams, this, `weights` and `pts_seconds` are those of the first.
        duration_seconds: from the first frame's appearance to the last one's end.
        status: `ok`; `partial` for a damaged video, scored on what could be decoded; or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words.
        weights: float64 (time,), each kept frame's weight, the mean over seeds and over the frames
            that it stands for; None if the aggregator gives none.
        pts_seconds: float64 (time,), when each kept frame appears.
        sources: lines that name encoders, weights and training scores; show them with the score.
    """

    path: Location
    score: float | None = None
    score_std: float | None = None
    num_frames: int = 0
    duration_seconds: float = 0.0
    status: Status
    reason: str
    message: str
    weights: NDArray[np.float64] | None = None
    pts_seconds: NDArray[np.float64]
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields ready for JSON; arrays become lists."""
        fields = vars(self) | {"path": str(self.path), "sources": list(self.sources)}
        fields["pts_seconds"] = self.pts_seconds.tolist()
        fields["weights"] = None if self.weights is None else self.weights.tolist()
        return fields


@dataclass(frozen=True)
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
    """

    pts_seconds: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    effect: NDArray[np.float64] | None
    effect_undefined: str | None
    window: int
    score: float
    score_std: float | None
    sources: tuple[str, ...]
