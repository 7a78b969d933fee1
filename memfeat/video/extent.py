"""How far a file reaches by its own account, whether all of it is there, and what lies behind."""

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16  # bytes; also those at the beginning in which FLV and ASF say it
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_PARTS = [bytes.fromhex(part) for part in ("3026b275", "3626b275", "90080033", "d329e2d6")]
SEGMENT = bytes.fromhex("18538067")
# Cluster, Cues, Tags, SeekHead, Info, Tracks, Chapters, Attachments; Void and a checksum.
SEGMENT_PARTS = [
    *(bytes.fromhex(part) for part in ("1f43b675", "1c53bb6b", "1254c367", "114d9b74")),
    *(bytes.fromhex(part) for part in ("1549a966", "1654ae6b", "1043a770", "1941a469", "ec", "bf")),
]
RIFF_PARTS = (b"LIST", b"JUNK", b"idx1", b"RIFF")
FLV_PARTS = (8, 9, 18)
UNSOUND = (struct.error, ValueError, OverflowError, OSError)  # what reading may come to


def is_whole(path: Path, format_name: str) -> bool:
    """Return whether a file says how long it is, and consists of sound parts up to there."""
    part = {"matroska,webm": _element, "avi": _chunk, "flv": _tag, "asf": _object}.get(format_name)
    with path.open("rb") as file:
        size = declared_size(file, format_name)
        return part is not None and size is not None and _is_paved(file, size, part)


def is_cut(path: Path, format_name: str) -> bool:
    """Return whether a file says that it is longer than it is."""
    with path.open("rb") as file:
        return (declared_size(file, format_name) or 0) > os.fstat(file.fileno()).st_size


def goes_on(path: Path, format_name: str, last: int) -> bool:
    """Return whether more than zeros lie behind a file's end, with no packet after `last` read.

    Args:
        path: the file.
        format_name: FFmpeg's name of its format.
        last: where the last packet begins that was read.
    """
    with path.open("rb") as file:
        is_flv = format_name == "flv"
        size = _end_of_tags(file, last) if is_flv else declared_size(file, format_name)
        if size is None or not last < size < os.fstat(file.fileno()).st_size:
            return False
        file.seek(size)
        return any(any(block) for block in iter(lambda: file.read(BLOCK), b""))


def declared_size(file: BinaryIO, format_name: str) -> int | None:
    """Return the length in bytes that its header or structure gives a file, or None.

    The file is left where its first part begins.

    Args:
        file: at its beginning.
        format_name: FFmpeg's name of its format.
    """
    ends: dict[str, Callable[[BinaryIO], int | None]] = {
        "mov": _end_of_boxes,
        "matroska": _end_of_segment,
        "avi": _end_of_riffs,
        "gif": _end_of_gif,
        "apng": _end_of_png,
    }
    end = ends.get(format_name.partition(",")[0])
    head = file.read(BLOCK)
    try:
        if end:
            return end(file)
        if format_name == "flv" and (said := re.search(rb"\0\x08filesize\0(.{8})", head, re.S)):
            file.seek(13)
            return int(struct.unpack(">d", said[1])[0]) or None
        if format_name == "asf" and ASF_PROPERTIES in head:
            file.seek(0)
            return int(struct.unpack_from("<Q", head, head.index(ASF_PROPERTIES) + 40)[0]) or None
    except UNSOUND:
        pass
    return None


def _is_paved(file: BinaryIO, end: int, part: Callable[[BinaryIO], int]) -> bool:
    """Return whether parts follow each other up to the end; `part` reads one's header."""
    try:
        while file.tell() < end:
            file.seek(part(file), 1)
    except UNSOUND:
        return False
    return file.tell() == end <= os.fstat(file.fileno()).st_size


def _element(file: BinaryIO) -> int:
    """Read the header of a part of a Matroska segment, and return how many bytes follow it."""
    (first,) = file.read(1)
    name = bytes([first]) + file.read(8 - first.bit_length())
    size = _variable_size(file)
    if name not in SEGMENT_PARTS or size is None:
        raise ValueError(name)
    return size


def _chunk(file: BinaryIO) -> int:
    """Read the header of a part of a `RIFF` chunk."""
    name, size = struct.unpack("<4sI", file.read(8))
    if name not in RIFF_PARTS:
        raise ValueError(name)
    return 4 if name == b"RIFF" else int(size + size % 2)


def _tag(file: BinaryIO) -> int:
    """Read an FLV tag, up to its length, which is repeated behind it."""
    kind, *size = struct.unpack(">B3B7x", file.read(11))
    file.seek(int.from_bytes(size), 1)
    if kind not in FLV_PARTS or int.from_bytes(file.read(4)) != 11 + int.from_bytes(size):
        raise ValueError(kind)
    return 0


def _end_of_tags(file: BinaryIO, start: int) -> int | None:
    """Return where FLV tags end, of which one begins at `start`."""
    end = file.seek(start)
    try:
        while True:
            _tag(file)
            end = file.tell()
    except UNSOUND:
        return end if end > start else None


def _object(file: BinaryIO) -> int:
    """Read the header of an ASF object."""
    name, size = struct.unpack("<4s12xQ", file.read(24))
    if name not in ASF_PARTS or size < 24:
        raise ValueError(name)
    return int(size) - 24


def _end_of_boxes(file: BinaryIO) -> int:
    """Return where boxes (ISO 14496-12) end, or where those of a second file begin."""
    end, at, seen = os.fstat(file.fileno()).st_size, 0, set[bytes]()
    while at < end:
        file.seek(at)
        header = file.read(16)
        if len(header) < 8 and any(header):
            return at + 8
        size, kind, long_size = struct.unpack(">I4sQ", header.ljust(16, b"\0"))
        size = {0: end - at, 1: long_size}.get(size, size)
        again = kind in seen and kind in (b"ftyp", b"moov")
        if size < 8 or again or not (kind.isascii() and kind.decode().isprintable()):
            break
        seen.add(kind)
        at += size
    return at


def _end_of_segment(file: BinaryIO) -> int | None:
    """Return where a Matroska file's segment ends, which follows the EBML header (RFC 8794)."""
    file.seek(4)
    file.seek(_variable_size(file) or 0, 1)
    if file.read(4) != SEGMENT:
        return None
    size = _variable_size(file)
    return size and file.tell() + size


def _variable_size(file: BinaryIO) -> int | None:
    (first,) = file.read(1)
    more = 8 - first.bit_length()
    size = int.from_bytes([first & (0x7F >> more), *file.read(more)])
    return size if size != (1 << 7 * (more + 1)) - 1 else None  # all ones: not known


def _end_of_riffs(file: BinaryIO) -> int | None:
    """Return where the `RIFF` chunk ends, with what belongs to it though it stands behind."""
    end = 0
    while True:
        file.seek(end)
        name, size, kind = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if name not in RIFF_PARTS or not size or (name == b"RIFF" and end and kind != b"AVIX"):
            file.seek(12)
            return end or None
        end += 8 + size + size % 2


def _end_of_gif(file: BinaryIO) -> int | None:
    """Return where a GIF ends, a byte behind the file if that ends within a block, or None.

    Its last block should be a trailer, but some writers leave that out.
    """
    length = os.fstat(file.fileno()).st_size
    try:
        file.seek(10)
        file.seek(13 + _color_table(file.read(1)[0]))
        while kind := file.read(1):
            if kind == b";":
                return file.tell()
            if kind not in b",!":
                return None
            # Before the data stands a label, or a picture's place, colours and width of codes.
            file.seek(_color_table(file.read(9)[8]) + 1 if kind == b"," else 1, 1)
            while size := file.read(1)[0]:
                file.seek(size, 1)
    except IndexError:
        return length + 1
    return max(length, file.tell())


def _color_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _end_of_png(file: BinaryIO) -> int:
    """Return where the chunk `IEND` ends, or a byte behind the file if that is missing."""
    file.seek(8)
    name = b""
    while name != b"IEND":
        header = file.read(8)
        if len(header) < 8:
            return os.fstat(file.fileno()).st_size + 1
        size, name = struct.unpack(">I4s", header)
        file.seek(size + 4, 1)
    return file.tell()
