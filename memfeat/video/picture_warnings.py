"""What a user should know about pictures that are read, but not as they are meant to be seen."""

from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream

from memfeat.video.opening import has_alpha_track, quoted
from memfeat.video.side_data import SideData, views_in

HDR = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
VISIBLE = 128  # of an alpha of 0 to 255
LEAST_TURN = 2  # degrees; PyAV rounds them down


class PictureWarnings:
    """Collects what is unusual about a video's pictures, from its header and its frames.

    Attributes:
        interlaced: how many frames were.
    """

    def __init__(
        self, path: Path, container: InputContainer, stream: VideoStream, side_data: SideData
    ) -> None:
        self.interlaced = 0
        self._name = quoted(path)
        self._transfer = HDR.get(stream.codec_context.color_trc)
        self._side_data = side_data
        self._layout = side_data.layout
        self._has_alpha_track = has_alpha_track(container, stream)
        self._is_aslant = False
        self._largest_alpha: int | None = None

    def note(self, frame: av.VideoFrame, *, is_first: bool) -> None:
        """Note a decoded frame; only the first one's side data is looked at."""
        if is_first:
            self._layout = self._layout or views_in(frame)
        self._is_aslant |= LEAST_TURN <= frame.rotation % 90 <= 90 - LEAST_TURN
        self.interlaced += frame.interlaced_frame

    def note_alpha(self, largest: int) -> None:
        """Note the largest alpha of a picture, 255 where it has none."""
        self._largest_alpha = max(self._largest_alpha or 0, largest)

    def text(self) -> str | None:
        """Return what was found so far, in words; None if that is nothing."""
        return "; ".join(f"{self._name} {said}" for said in self._found()) or None

    def _found(self) -> Iterator[str]:
        if self._side_data.is_dolby:
            yield (
                "is Dolby Vision alone and is read without its colours' transform, so they are "
                "off; convert it to SDR first if that matters"
            )
        elif self._transfer:
            yield (
                f"is HDR ({self._transfer}) and is read without tone mapping, so it looks paler "
                "than on a screen; convert it to SDR first if that matters"
            )
        if self._layout:
            yield (
                f"shows several views, or a whole sphere, in each picture ({self._layout}), which "
                "is read as it is stored; convert it to one plain view first if that matters"
            )
        if self._has_alpha_track:
            yield (
                "has its transparency in a track of its own, which is not applied, so that what "
                "should not be seen is; put it on a background first if that matters"
            )
        if self._is_aslant:
            yield (
                "is to be shown aslant, and only quarter turns are applied; turn its pictures "
                "themselves first if that matters"
            )
        if self.interlaced:
            yield (
                "is interlaced and is read without deinterlacing, so that what moves has combed "
                "edges; deinterlace it first if that matters"
            )
        if self._largest_alpha is not None and self._largest_alpha < VISIBLE:
            yield (
                f"is transparent throughout (alpha of at most {self._largest_alpha} in 255), so "
                "that its frames are black or nearly; convert it without its alpha channel if "
                "they should show something"
            )
