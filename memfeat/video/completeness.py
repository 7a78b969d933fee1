"""Whether all of a video was there: damaged packets, a missing end, and what nobody read."""

from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from memfeat.video.extent import goes_on, is_cut, is_whole
from memfeat.video.header import counted_samples, promised_ends
from memfeat.video.transport import TransportStream

HEADER_SLACK = 3  # even whole files may lack so many of the frames that their header counts
# Why a video is only partial, by the code of the reason.
PARTIAL = {
    "truncated": "its end is missing; fetch it again",
    "packet_errors": "some of it was lost or could not be decoded; fetch it again",
    "trailing_data": "something else follows its end in the file and was not read; split the file",
}


class Completeness:
    """The packets of a file so far, held against what its header promises.

    Args:
        path: the file.
        container: the same, opened.
        stream: the one that is read.

    Attributes:
        frames_expected: how many frames the header counts, less those that are hidden; or None.
        packets: how many the stream has had.
    """

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self._path, self._container, self._stream = path, container, stream
        self._announced = self.frames_expected = counted_samples(container, stream)
        self._transport: TransportStream | None = None
        if container.format.name == "mpegts":
            self._transport = TransportStream(path, stream.id)
        self.packets = 0
        self._first: int | None = None  # when the first packet is shown
        self._leading = 0  # packets after it that are shown before it
        self._damaged_at: int | None = None  # counted in packets
        self._is_doubted = False  # whether FFmpeg takes the last packet for damaged
        self._ends: dict[int, int] = {}  # when each stream ends, in its time base
        self._starts: dict[int, int] = {}  # where each stream begins in the file
        self._last = 0  # where the last packet of any stream begins

    def note(self, packet: "Packet[Any]") -> bool:
        """Note the file's next packet, and return whether it is one of the stream's with data."""
        number, time = packet.stream_index, packet.dts if packet.pts is None else packet.pts
        if time is not None:
            self._ends[number] = max(self._ends.get(number, 0), time + (packet.duration or 0))
        if packet.pos is not None:
            self._starts.setdefault(number, packet.pos)
            self._last = max(self._last, packet.pos)
        if number != self._stream.index:
            return False
        self.packets += 1
        if self._transport is None:
            is_damaged = packet.is_corrupt
        elif packet.pos is None or packet.dts is None:
            is_damaged = packet.is_corrupt and self._transport.position is None
        else:
            seconds = float(packet.dts * packet.time_base)
            is_damaged = self._transport.lost_before(packet.pos, seconds, is_key=packet.is_keyframe)
        self._is_doubted = packet.is_corrupt
        if self._container.format.name == "dv" and packet.pos is not None:
            # FFmpeg fills up a last frame that is cut.
            is_damaged |= packet.pos + packet.size > self._path.stat().st_size
        if is_damaged:
            self.note_damage()
        if packet.is_discard or not packet.size:  # hidden by an edit list, or an empty sample
            self.frames_expected = self.frames_expected and self.frames_expected - 1
        elif time is not None:
            self._first = time if self._first is None else self._first
            self._leading += time < self._first
        return packet.size > 0

    def note_damage(self) -> None:
        """Note that the last packet cannot be read or decoded."""
        self._damaged_at = self.packets

    def reason_so_far(self) -> str | None:
        """Return `packet_errors` if some of the packets until now are damaged, or None."""
        return None if self._damaged_at is None else "packet_errors"

    def reason(self, frames: int, end: float, gap: float, fields: int = 0) -> str | None:
        """Return why the video, of which all has been read, is only partial; None if it is whole.

        Args:
            frames: how many were decoded.
            end: when the last one ends, in seconds.
            gap: the longest time between two frames, in seconds.
            fields: how many of the frames may have come as two packets, one for each field.
        """
        if self._transport and self._is_doubted and self._transport.lost_at_end():
            self.note_damage()
        if self._damaged_at == self.packets or self._ends_early(end, HEADER_SLACK * gap):
            return "truncated"
        # What leads the first frame may need others before it, as where a video was cut out.
        spare = HEADER_SLACK + self._leading + fields
        falls_short = (self.frames_expected or 0) - frames > spare
        if falls_short or self._damaged_at is not None:
            return "packet_errors"
        return "trailing_data" if self._goes_on() else None

    def _ends_early(self, end: float, slack: float) -> bool:
        name = self._container.format.name
        if name in ("gif", "apng") and is_cut(self._path, name):
            return True
        if self._announced:
            return self._announced - self.packets > HEADER_SLACK
        own, whole = promised_ends(self._container, self._stream)
        end = max(end, self._end_of(self._stream.index)) + slack
        if end < own or max([end, *map(self._end_of, self._ends)]) < whole:
            return not is_whole(self._path, name)  # or the last picture stands still
        # One subtitle may reach the end of a file that is cut, and fragments promise nothing.
        return (end < whole or name.startswith("mov")) and is_cut(self._path, name)

    def _end_of(self, number: int) -> float:
        stream = self._container.streams[number]
        if stream.codec_context is None:
            return 0.0  # as of data, and of what garbage is taken for
        return float(self._ends.get(number, 0) * (stream.time_base or 0))

    def _goes_on(self) -> bool:
        if self._transport is None:
            return goes_on(self._path, self._container.format.name, self._last)
        last = self._transport.position or 0
        known = [s.id for s in self._container.streams if self._starts.get(s.index, last) < last]
        return self._transport.goes_on([self._stream.id, *known], self._last)
