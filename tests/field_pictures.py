"""H.264 whose frames are pairs of fields, which no free encoder makes: of raw macroblocks."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

MAIN, LEVEL, I_PCM, I_SLICES = 77, 30, 25, 7


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def fixed(self, *pairs: tuple[int, int]) -> "_Bits":
        self.text += "".join(format(value, f"0{width}b") for width, value in pairs)
        return self

    def golomb(self, *values: int) -> "_Bits":
        for value in values:
            digits = format(value + 1, "b")
            self.text += "0" * (len(digits) - 1) + digits
        return self

    def raw(self, content: bytes) -> "_Bits":
        self.text += "0" * (-len(self.text) % 8) + "".join(format(byte, "08b") for byte in content)
        return self

    def unit(self, header: int) -> bytes:
        """Return the bits as a NAL unit, in which no start code may appear by chance."""
        self.fixed((1, 1)).raw(b"")
        content = int(self.text, 2).to_bytes(len(self.text) // 8, "big")
        unit = bytearray()
        for byte in content:
            if byte <= 3 and unit[-2:] == b"\0\0":
                unit.append(3)
            unit.append(byte)
        return b"\0\0\0\1" + bytes([header]) + bytes(unit)


def _headers(height: int, width: int) -> bytes:
    sequence = _Bits().fixed((8, MAIN), (8, 0), (8, LEVEL)).golomb(0, 0, 2, 1).fixed((1, 0))
    sequence.golomb(width // 16 - 1, height // 32 - 1).fixed((5, 0b00100))  # fields, and no more
    picture = _Bits().golomb(0, 0).fixed((2, 0)).golomb(0, 0, 0).fixed((3, 0)).golomb(0, 0, 0)
    return sequence.unit(0x67) + picture.fixed((3, 0b100)).unit(0x68)


def _field(luma: NDArray[np.uint8], frame: int, is_bottom: int) -> bytes:
    is_first = frame == 0 and not is_bottom
    bits = _Bits().golomb(0, I_SLICES, 0).fixed((4, frame % 16), (1, 1), (1, is_bottom))
    bits = bits.golomb(0).fixed((2, 0)) if is_first else bits.fixed((1, 0))
    bits.golomb(0, 1)
    for top in range(0, luma.shape[0], 16):
        for left in range(0, luma.shape[1], 16):
            block = luma[top : top + 16, left : left + 16].tobytes()
            bits.golomb(I_PCM).raw(block + bytes([128]) * 128)
    return bits.unit(0x65 if is_first else 0x61)


def _fields(lumas: NDArray[np.uint8]) -> Iterator[bytes]:
    for frame, luma in enumerate(lumas):
        for is_bottom in (0, 1):
            yield _field(luma[is_bottom::2], frame, is_bottom)


def write_fields(path: Path, lumas: NDArray[np.uint8], *, each: bool) -> Path:
    """Write grey frames uint8 (time, height, width), 25 a second, whose sides 32 divides.

    Args:
        path: where to; the suffix picks the container.
        lumas: of limited range.
        each: whether each field has a packet of its own, or each frame one for both.
    """
    fields = list(_fields(lumas))
    fields[0] = _headers(*lumas.shape[1:]) + fields[0]
    step = 1 if each else 2
    bare = path.with_suffix(".264")
    bare.write_bytes(b"".join(fields))
    with av.open(str(bare)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for start in range(0, len(fields), step):
            packet = av.Packet(b"".join(fields[start : start + step]))
            packet.stream, packet.time_base = stream, Fraction(1, 50)
            packet.pts = packet.dts = start
            packet.duration, packet.is_keyframe = step, start == 0
            target.mux(packet)
    return path
