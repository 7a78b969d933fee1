"""MPEG transport streams: whether packets were lost, and whether something else follows the video.

A transport stream is a row of packets of 188 bytes, each of one PID, which it counts modulo 16. A
frame's first packet is marked, and its last one is padded. FFmpeg notes where a counter jumps, but
not whether that is a loss, nor, for some codecs, always at the right frame.
"""

from collections.abc import Collection
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PACKET, SYNC = 188, 0x47
SPACINGS = (PACKET, 192, 204)  # bytes from packet to packet: plain, Blu-ray, with parity
BLOCK = 1 << 15  # packets looked at together
CLOCK = 7  # bytes of an adaptation field that holds a clock and no padding
LONGEST_LOSS = 10.0  # seconds; if times go on later, or back, they are another recording's

Packets = NDArray[np.uint8]


class TransportStream:
    """A file that is read frame by frame.

    Args:
        path: the file.
        pid: the video's.

    Attributes:
        position: where the last frame stands in it, if there was one.
    """

    def __init__(self, path: Path, pid: int) -> None:
        self._path = path
        self._pid = pid
        self._spacing, self._first_count = PACKET, 0
        self.position: int | None = None
        self._seconds = self._longest_gap = 0.0

    def lost_before(self, position: int, seconds: float, *, is_key: bool) -> bool:
        """Return whether packets are missing, or received with errors, before the next frame.

        That counters start anew between two frames is no loss, as where two streams are joined.

        Args:
            position: where the frame stands in the file.
            seconds: when it is decoded.
            is_key: whether it needs no other frame.
        """
        last, gap = self.position, seconds - self._seconds
        if last is None:
            self._spacing = self._find_spacing(position)
            first = self._packets(position, position + self._spacing)
            self._first_count = int(first[0, 3]) & 15 if len(first) else 0
        self._seconds = seconds
        if last is None or position <= last:
            self.position = position
            return False
        self.position = position
        packets = self._packets(last, position + self._spacing)
        own = packets[_pids(packets) == self._pid]
        is_jump, is_start, is_padded = _counters(own)
        if (packets[:, 0] != SYNC).any() or (own[:, 1] & 0x80).any() or is_jump[:-1].any():
            return True
        if len(is_jump) == 0 or not is_jump[-1]:
            self._longest_gap = max(self._longest_gap, gap)
            return False
        if is_key and is_padded[-1] and own[-1, 3] & 15 == self._first_count:
            return False  # another stream begins, whatever its times are
        is_missing = 1.5 * self._longest_gap < gap < LONGEST_LOSS
        return bool(is_missing or not is_start[-1] or not (is_padded[-1] or is_key))

    def lost_at_end(self) -> bool:
        """Return whether packets of the last frame are missing, where it is not the file's end."""
        if self.position is None:
            return False
        packets = self._packets(self.position, self.position + BLOCK * self._spacing)
        own = packets[_pids(packets) == self._pid]
        return bool((packets[:, 0] != SYNC).any() or _counters(own)[0].any())

    def goes_on(self, known: Collection[int], last: int) -> bool:
        """Return whether frames with a PID that is not `known`, or no packets but bytes, follow.

        Args:
            known: PIDs of streams that were there before the video's last frame.
            last: where the last frame of any stream begins that FFmpeg found.
        """
        if self.position is None:
            return False
        step = BLOCK * self._spacing
        for start in count(self.position, step):
            packets = self._packets(start, start + step)
            if not len(packets):
                return self._ends_otherwise(last)
            is_start = (packets[:, 1] & 0x40 > 0) & (packets[:, 3] & 0x10 > 0)
            is_other = (packets[:, 0] == SYNC) & ~np.isin(_pids(packets), list(known))
            for packet in packets[is_start & is_other]:
                payload = 5 + int(packet[4]) if packet[3] & 0x20 else 4
                code = packet[payload : payload + 4].tobytes()
                if code[:3] == b"\0\0\1" and code[3] & 0xF0 == 0xE0:  # ISO 13818-1, table 2-22
                    return True
        return False

    def _ends_otherwise(self, last: int) -> bool:
        """Return whether bytes follow the packet at `last` that are neither packets nor zeros."""
        step = BLOCK * self._spacing
        for start in count(last, step):
            packets = self._packets(start, start + step)
            if packets[packets[:, 0] != SYNC].any():
                return True
            if len(packets) < BLOCK:
                rest = self._read(start + self._spacing * len(packets), start + step)
                rest = rest[self._spacing - PACKET :]
                return bool(rest.any() and rest[0] != SYNC)
        return False

    def _find_spacing(self, position: int) -> int:
        content = self._read(position, position + 3 * SPACINGS[-1])
        for spacing in SPACINGS:
            if (content[spacing - PACKET :: spacing][:2] == SYNC).all():
                return spacing
        return PACKET

    def _packets(self, start: int, end: int) -> Packets:
        before = self._spacing - PACKET
        content = self._read(start + before, end + before)
        whole = len(content) // self._spacing * self._spacing
        return content[:whole].reshape(-1, self._spacing)[:, :PACKET]

    def _read(self, start: int, end: int) -> NDArray[np.uint8]:
        with self._path.open("rb") as file:
            file.seek(start)
            return np.frombuffer(file.read(end - start), np.uint8)


def _pids(packets: Packets) -> NDArray[np.int64]:
    return (packets[:, 1] & 31).astype(np.int64) << 8 | packets[:, 2]


def _counters(own: Packets) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Look at each packet with a payload of one PID, but for the first.

    Returns:
        whether its counter jumps unannounced; whether it is a frame's first; whether the one before
        it is padded, and so a frame's last.
    """
    own = own[own[:, 3] & 0x10 > 0]
    counts, lengths = own[:, 3] & 15, own[:, 4]
    has_field, is_start = own[:, 3] & 0x20 > 0, own[:, 1] & 0x40 > 0
    is_announced = has_field & (lengths > 0) & (own[:, 5] & 0x80 > 0)
    is_padded = has_field & (~is_start | (lengths > CLOCK))
    is_jump = (counts[1:] != (counts[:-1] + 1) % 16) & ~is_announced[1:]
    return is_jump, is_start[1:], is_padded[:-1]
