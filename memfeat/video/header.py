"""What a header promises: the number of samples, the end of the stream, the number of frames."""

import re
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from memfeat.video.opening import open_video

# FFmpeg works their duration out from the data that is there, so it promises nothing.
FORMATS_WITHOUT_DURATION = ("mpeg", "mpegts", "mpegvideo")
SAME_LENGTH = 0.002  # seconds: FFmpeg gives some formats' streams the duration of the file


def counted_samples(container: InputContainer, stream: VideoStream) -> int | None:
    """Return the header's count of samples, None if it has none or also counts the skipped."""
    if container.format.name == "avi":
        return None
    edited = stream.frames and container.format.name.startswith("mov")
    return (len(stream.index_entries) if edited else stream.frames) or None


def promised_ends(container: InputContainer, stream: VideoStream) -> tuple[float, float]:
    """Return the second at which the stream ends by its header, or the file; 0 where not said."""
    if container.format.name in FORMATS_WITHOUT_DURATION:
        return 0.0, 0.0
    if stream.frames and stream.average_rate:  # AVI
        return stream.frames / float(stream.average_rate), 0.0
    whole = (container.duration or 0) / av.time_base
    tag = re.match(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag and container.format.name.startswith("matroska"):
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return min(whole, (hours * 60 + minutes) * 60 + seconds), 0.0
    if stream.duration and stream.time_base:
        length = float(stream.duration * stream.time_base)
        start = float((stream.start_time or 0) * stream.time_base)
        return (start + length, 0.0) if abs(length - whole) > SAME_LENGTH else (0.0, start + length)
    return 0.0, whole


def frames_by_header(path: Path) -> float | None:
    """Return how many frames a video has by its header's count, or its duration and rate.

    That takes no decoding, and is an estimate: it includes frames that an edit list hides, or that
    are damaged. None if the header says nothing.

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
