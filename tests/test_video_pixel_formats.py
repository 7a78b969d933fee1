"""Every pixel format that a lossless encoder takes, held against the numbers that were stored."""

import re
from typing import Any

import av
import numpy as np
import pytest
from clips import refusal, write_clip

from memfeat.errors import VideoError
from memfeat.video import VideoReader

LOSSLESS = [
    ("ffv1", "mkv"),
    ("png", "mov"),
    ("tiff", "mov"),
    ("exr", "mov"),
    ("dpx", "mov"),
    ("sgi", "mov"),
    ("qtrle", "mov"),
    ("jpegls", "nut"),
    ("huffyuv", "avi"),
    ("ffvhuff", "avi"),
    ("utvideo", "avi"),
]
BLOCK, HEIGHT = 16, 32
COLOURS = np.array(  # red, green, blue and alpha
    [
        [255, 255, 255, 255],
        [0, 0, 0, 255],
        [200, 60, 40, 255],
        [30, 180, 90, 255],
        [20, 40, 220, 255],
        [128, 128, 128, 128],
        [64, 64, 64, 255],
        [240, 200, 10, 0],
    ]
)
KR, KB = 0.299, 0.114  # of ITU-R BT.601
# Levels of 255. swscale cuts bits off, and is quick for 4:2:0 and 4:2:2: white of 10 bits is 253.
CLOSE, SUBSAMPLED = 1.2, 4


def quantised(levels, bits: int):
    """Return shares of 1 as whole numbers of so many bits, and the shares that those stand for."""
    most = (1 << bits) - 1
    numbers = np.round(levels * most).astype(int)
    return numbers, numbers / most


def yuv(rgb, bits: int):
    """Return limited-range Y, Cb and Cr (colours, 3) as whole numbers, and the RGB they mean."""
    (r, g, b), unit = rgb.T, 1 << (bits - 8)
    y = KR * r + (1 - KR - KB) * g + KB * b
    cb, cr = (b - y) / (1 - KB) / 2, (r - y) / (1 - KR) / 2
    numbers = np.round(np.stack([16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr]) * unit)
    y, cb, cr = (numbers[0] / unit - 16) / 219, *(numbers[1:] / unit - 128) / 224
    r, b = y + 2 * (1 - KR) * cr, y + 2 * (1 - KB) * cb
    return numbers.T.astype(int), np.stack([r, (y - KR * r - KB * b) / (1 - KR - KB), b]).T


def stored(name: str):
    """Return what is stored of each colour in each plane, (planes, colours, channels), and its RGB.

    None of formats that this does not know.
    """
    rgb, alpha = COLOURS[:, :3] / 255, COLOURS[:, 3] / 255
    order, bare = ">" if name.endswith("be") else "<", re.sub("[lb]e$", "", name)
    if found := re.fullmatch(r"(rgb|bgr)(\d)(\d)(\d)", bare):
        if name == bare:
            return None
        bits, channels = list(map(int, found.groups()[1:])), ["rgb".index(c) for c in found[1]]
        words, meant = np.zeros(len(rgb), int), rgb.copy()
        for channel, wide in zip(channels, bits, strict=True):
            numbers, meant[:, channel] = quantised(rgb[:, channel], wide)
            words = words << wide | numbers
        return [words[:, None].astype(f"{order}u2")], meant
    if found := re.fullmatch(r"(gray|ya)(f?)(\d*)", bare):
        kind, is_float, bits = found[1], found[2], int(found[3] or 8)
        grey = rgb @ (KR, 1 - KR - KB, KB)
        channels = np.stack([grey, alpha])[: len(kind.removesuffix("ray"))].T
        bits = 8 if name == "ya8" else bits
    elif found := re.fullmatch(r"gbr(a?)p(f?)(\d*)", bare):
        is_float, bits = found[2], int(found[3] or 8)
        channels = np.column_stack([rgb[:, [1, 2, 0]], *([alpha] if found[1] else [])])
    elif found := re.fullmatch(r"([rgba0]{3,4})(24|48|64)?", bare):
        is_float, bits = "", {"48": 16, "64": 16}.get(found[2], 8)
        values = {"r": rgb[:, 0], "g": rgb[:, 1], "b": rgb[:, 2], "a": alpha, "0": 0 * alpha}
        channels = np.stack([values[letter] for letter in found[1]]).T
    elif found := re.fullmatch(r"yuv(a?)4(?:44|22|20)p(\d*)", bare):
        bits = int(found[2] or 8)
        numbers, meant = yuv(rgb, bits)
        numbers = np.column_stack([numbers, *([quantised(alpha, bits)[0]] if found[1] else [])])
        meant = meant * alpha[:, None] if found[1] else meant
        kind = np.uint8 if bits == 8 else f"{order}u2"
        return list(numbers.astype(kind).T[..., None]), meant
    else:
        return None
    numbers, meant = (channels, channels) if is_float else quantised(channels, bits)
    kind = f"{order}f{bits // 8}" if is_float else np.uint8 if bits == 8 else f"{order}u2"
    if bare.startswith(("gray", "ya")):
        seen = meant[:, [0, 0, 0]]
    elif bare.startswith("gbr"):
        seen = meant[:, [2, 0, 1]]
    else:
        seen = meant[:, [bare.index(letter) for letter in "rgb"]]
    has_alpha = bare.startswith(("ya", "gbra")) or "a" in bare[:4].replace("gray", "")
    seen = seen * alpha[:, None] if has_alpha else seen
    numbers = numbers.astype(kind)
    return (list(numbers.T[..., None]) if "p" in bare else [numbers]), seen


def frame_of(name: str, planes) -> av.VideoFrame:
    """Return a frame with a block of each colour, 16 pixels wide, whose planes are written here."""
    frame = av.VideoFrame(BLOCK * len(COLOURS), HEIGHT, name)
    frame.color_range = 2 if name.startswith(("gray", "ya")) else 0
    for plane, values in zip(frame.planes, planes, strict=True):
        row = values.repeat(plane.width // len(COLOURS), axis=0).reshape(-1).view(np.uint8)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : len(row)] = row
        plane.update(rows.tobytes())
    return frame


def error_of(path, name: str, codec: str) -> str | None:
    """Store the colours; return how they are read wrongly, or None."""
    planes, meant = stored(name)
    how: dict[str, Any] = {"color_range": 2} if name.startswith(("gray", "ya")) else {}
    how |= {"options": {"strict": "experimental"}} if codec == "ffv1" else {}
    write_clip(path, [frame_of(name, planes)], codec=codec, pix_fmt=name, **how)
    try:
        with VideoReader(path) as reader:
            (frame,) = reader
    except VideoError as error:
        return None if "cannot be turned into RGB" in str(error) else str(error)
    found = frame.pixels[HEIGHT // 2, BLOCK // 2 :: BLOCK]
    off = np.abs(found - meant.clip(0, 1) * 255).max()
    allowed = SUBSAMPLED if "420" in name or "422" in name else CLOSE
    return None if off <= allowed else f"{off:.1f} off: {found.tolist()}"


@pytest.mark.parametrize(("codec", "suffix"), LOSSLESS)
def test_each_pixel_format_of_a_lossless_codec_gives_what_was_stored(tmp_path, codec, suffix):
    names = [each.name for each in av.Codec(codec, "w").video_formats]
    known = [name for name in names if stored(name)]
    assert known
    errors = {name: error_of(tmp_path / f"{name}.{suffix}", name, codec) for name in known}
    assert {name: error for name, error in errors.items() if error} == {}


# What uncompressed video in NUT has names for.
RAW = [
    *(
        f"{order}{bits}{end}"
        for order in ("rgb", "bgr")
        for bits in (565, 555, 444)
        for end in ("le", "be")
    ),
    *(f"{name}{end}" for name in ("gray10", "gray12", "gray14", "gray16") for end in ("le", "be")),
    *(f"{name}{end}" for name in ("rgb48", "bgr48", "rgba64", "bgra64") for end in ("le", "be")),
    *("gray", "ya8", "rgb24", "bgr24", "rgba", "argb", "abgr", "bgra", "0rgb", "bgr0"),
]


@pytest.mark.parametrize("name", RAW)
def test_each_uncompressed_pixel_format_gives_what_was_stored(tmp_path, name):
    assert error_of(tmp_path / "a.nut", name, "rawvideo") is None


def test_quicktime_s_uncompressed_16_bits_give_what_was_stored(tmp_path):
    assert error_of(tmp_path / "a.mov", "rgb555be", "rawvideo") is None


@pytest.mark.parametrize(
    ("suffix", "name", "bytes_of_a_pixel"),
    [("nut", "rgbaf16le", 8), ("nut", "ya16le", 4), ("mov", "rgb0", 4), ("mov", "0rgb", 4)],
)
def test_uncompressed_pixels_under_the_name_of_others_are_refused(
    tmp_path, suffix, name, bytes_of_a_pixel
):
    """FFmpeg writes what NUT, AVI and QuickTime have no name for as if it were RGB."""
    frame = av.VideoFrame(64, 32, name)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    path = write_clip(tmp_path / f"a.{suffix}", [frame], codec="rawvideo", pix_fmt=name)
    error = refusal(path)
    assert error.reason == "unreadable"
    assert f"but has {64 * 32 * bytes_of_a_pixel} for each frame" in str(error)


@pytest.mark.parametrize("width", [37, 64])
@pytest.mark.parametrize(
    ("suffix", "name"),
    [("avi", "bgr24"), ("avi", "rgb555le"), ("mov", "rgb24"), ("nut", "yuv420p")],
)
def test_rows_of_uncompressed_pixels_may_be_padded(tmp_path, suffix, name, width):
    picture = np.random.default_rng(0).integers(0, 256, (21, width, 3), np.uint8)
    path = write_clip(tmp_path / f"a.{suffix}", [picture], codec="rawvideo", pix_fmt=name)
    with VideoReader(path) as reader:
        assert [frame.pixels.shape for frame in reader] == [picture.shape]
