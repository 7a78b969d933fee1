"""How long a video is by its header, which takes no decoding and is advice, not a count."""

from pathlib import Path

import av

from memfeat.video.header import counted_samples
from memfeat.video.opening import open_video


def frames_by_header(path: Path) -> float | None:
    """Return how many frames a video's header counts, or its duration and rate amount to.

    Frames that an edit list hides, or that are damaged, are in it; None if the header is silent.

    Raises:
        VideoError: `missing`, `not_a_file`, `permission`, `unreadable`, `no_video`, `no_frames`
            or `image`.
    """
    with open_video(path) as (container, stream):
        counted = counted_samples(container, stream)
        if counted:
            return float(counted)
        seconds = (container.duration or 0) / av.time_base
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        return seconds * float(stream.guessed_rate or 0) or None
