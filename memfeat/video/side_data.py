"""What a container says of a stream beside its packets: cropping, Dolby Vision, several views."""

import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Dolby Vision profiles that may come without a picture that others can show, in HEVC, AV1, MV-HEVC.
DOLBY_PROFILES = ("5", "10", "20")
# Several views in one picture or in turn, and projections of a sphere.
LAYOUT = re.compile(
    r"(?:Stereo ?3D|Spherical[^:]*): ((?:side by side|top and bottom|frame alternate|checkerboard"
    r"|interleaved|equirectangular|tiled equi|half equi|cubemap|fisheye)[^,\n]*)",
    re.IGNORECASE,
)
# FFmpeg's AVStereo3DType.
VIEWS = {
    1: "side by side",
    2: "top and bottom",
    3: "frame alternate",
    4: "checkerboard",
    5: "side by side (quincunx subsampling)",
    6: "interleaved lines",
    7: "interleaved columns",
}


class SideData(NamedTuple):
    """What counts for its pictures.

    Attributes:
        crop: pixels to leave out at the left, right, top and bottom.
        is_dolby: whether its colours are Dolby Vision's alone.
        layout: how several views, or a view all around, are laid out in each; empty of plain ones.
    """

    crop: tuple[int, int, int, int]
    is_dolby: bool
    layout: str


def describe(container: InputContainer) -> str:
    """Return FFmpeg's description of a file, with what PyAV shows nowhere else."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        text: str = cast(Any, container).dumps_format()
    finally:
        av.logging.set_level(level)
    return text


def read_side_data(container: InputContainer, stream: VideoStream) -> SideData:
    """Read a stream's side data in the description of the file."""
    text = describe(container)
    of_stream = re.search(rf"  Stream #0:{stream.index}\D.*?(?=  Stream #0:|\Z)", text, re.DOTALL)
    own = of_stream.group() if of_stream else ""
    crop = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", own, re.IGNORECASE)
    dolby = re.search(r"DOVI .*profile: (\d+),.*compatibility id: 0\b", own)
    layout = LAYOUT.search(own)
    return SideData(
        cast(tuple[int, int, int, int], tuple(map(int, crop.groups()))) if crop else (0, 0, 0, 0),
        dolby is not None and dolby[1] in DOLBY_PROFILES,
        layout[1] if layout else "",
    )


def views_in(frame: av.VideoFrame) -> str:
    """Return how several views are laid out by the frame itself, as H.264's SEI says; else empty.

    Look at few frames, as `memfeat.video.pictures.display_matrix` says.
    """
    try:
        found = cast(Mapping[str, Any], frame.side_data).get("STEREO3D")
    except ValueError:  # beside a kind that PyAV does not know
        return ""
    return "" if found is None else VIEWS.get(int.from_bytes(bytes(found)[:4], sys.byteorder), "")
