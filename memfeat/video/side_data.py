"""What a container says of a stream beside its packets: cropping, and Dolby Vision."""

import re
from typing import Any, NamedTuple, cast

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Dolby Vision profiles that may come without a picture that others can show, in HEVC, AV1, MV-HEVC.
DOLBY_PROFILES = ("5", "10", "20")


class SideData(NamedTuple):
    """What counts for its pictures.

    Attributes:
        crop: pixels to leave out at the left, right, top and bottom.
        is_dolby: whether its colours are Dolby Vision's alone.
    """

    crop: tuple[int, int, int, int]
    is_dolby: bool


def read_side_data(container: InputContainer, stream: VideoStream) -> SideData:
    """Read a stream's side data in FFmpeg's description of the file: PyAV shows it nowhere else."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        text: str = cast(Any, container).dumps_format()
    finally:
        av.logging.set_level(level)
    of_stream = re.search(rf"  Stream #0:{stream.index}\D.*?(?=  Stream #0:|\Z)", text, re.DOTALL)
    own = of_stream.group() if of_stream else ""
    crop = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", own, re.IGNORECASE)
    dolby = re.search(r"DOVI .*profile: (\d+),.*compatibility id: 0\b", own)
    return SideData(
        cast(tuple[int, int, int, int], tuple(map(int, crop.groups()))) if crop else (0, 0, 0, 0),
        dolby is not None and dolby[1] in DOLBY_PROFILES,
    )
