"""What is told about one video: its score, and which of its moments that hangs on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import Status
from memfeat.storage import Location


@dataclass(frozen=True)
class VideoPrediction:
    """What a run says about one video.

    Attributes:
        path: the video, here or by its URL.
        score: memorability in (0, 1), the mean over the run's seeds; None if the video failed.
        score_std: standard deviation over seeds (n - 1); None with one seed.
        num_frames: frames decoded and scored, those included that a kept one stands for; of
            several streams, those of the first.
        duration_seconds: from the first frame's appearance to the last one's end.
        status: `ok`; `partial` for a damaged video scored on what there was; or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words.
        weights: each kept frame's weight, float64 (time,), mean over seeds and over the frames
            that it stands for; None if the aggregator gives none. Of several streams, likewise.
        pts_seconds: when each kept frame appears, float64 (time,), likewise.
        sources: lines naming what the score comes from; they belong under whatever shows it.
    """

    path: Location
    score: float | None
    score_std: float | None
    num_frames: int
    duration_seconds: float
    status: Status
    reason: str
    message: str
    weights: NDArray[np.float64] | None
    pts_seconds: NDArray[np.float64]
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields ready for JSON; arrays become lists."""
        fields = vars(self) | {"path": str(self.path), "sources": list(self.sources)}
        fields["pts_seconds"] = self.pts_seconds.tolist()
        fields["weights"] = None if self.weights is None else self.weights.tolist()
        return fields


@dataclass(frozen=True)
class Timeline:
    """Which moments of a video its score hangs on.

    Of several streams, frames are those of the first, and what is left out at a time is a stretch
    of time, in all streams: as long as the stream with the fewest rows tells moments apart, such
    as a segment's, which all frames in it then share.

    Attributes:
        pts_seconds: when each frame appears, float64 (time,).
        weights: each frame's weight, float64 (time,), mean over seeds; None if the aggregator
            gives none.
        effect: the score of all frames minus the score without this one, float64 (time,), so
            positive where the frame raises the score; None where undefined.
        effect_undefined: why `effect` is None; None where it is defined.
        window: how many consecutive frames at most were left out at a time. Above 1, as for clips
            of more than `MAX_VARIANTS` frames, frames of a window share one effect: that of all
            of them.
        score: memorability in (0, 1), the mean over seeds.
        score_std: standard deviation over seeds (n - 1); None with one seed.
        sources: lines naming what the score comes from.
    """

    pts_seconds: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    effect: NDArray[np.float64] | None
    effect_undefined: str | None
    window: int
    score: float
    score_std: float | None
    sources: tuple[str, ...]
