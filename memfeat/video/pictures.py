"""From a decoded frame to upright RGB pixels, and from those to another size."""

from collections.abc import Mapping
from typing import Any, cast

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from memfeat.config import UNTAGGED_HD

Pixels = NDArray[np.uint8]
Matrix = tuple[int, int, int, int] | None  # a, b, c, d of a display matrix [a b u; c d v; x y w]
TURNS: dict[int, Matrix] = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}

BICUBIC = "antialiased bicubic"
INTERPOLATIONS = {  # to torch's mode, and whether it averages where a picture becomes smaller
    BICUBIC: ("bicubic", True),
    "antialiased bilinear": ("bilinear", True),
    "bicubic": ("bicubic", False),
    "bilinear": ("bilinear", False),
    "nearest": ("nearest", False),
}
HD_LINES = 720
# Tags of a matrix that say nothing: of YUV that it is RGB, nothing at all, and a reserved number.
SILENT_MATRICES = (0, 2, 3)
# Those that FFmpeg's scaler does not know, by their number in ITU-T H.273.
UNKNOWN_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
FLOAT_GREY = ("grayf", "yaf")  # of which FFmpeg's scaler makes other greys, or crashes
SWAPPED = ("rgb555be", "rgb565be", "bgr555be", "bgr565be")  # whose bytes it takes in reverse
FOUR_BITS = ("rgb444", "bgr444")  # of which it makes 0 to 240
# What full range is for each grey level of limited range, which swscale takes for full.
FULL_RANGE = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)


def to_rgb(
    frame: av.VideoFrame,
    reformatter: VideoReformatter,
    *,
    use_alpha: bool = True,
    untagged_hd: str = UNTAGGED_HD,
) -> tuple[Pixels, int]:
    """Return uint8 (height, width, 3) RGB as stored, composited on black, and the largest alpha.

    Args:
        frame: as it was decoded.
        reformatter: one for all frames of a video.
        use_alpha: whether an alpha channel counts; without one, alpha is 255.
        untagged_hd: the matrix of frames of 720 lines or more that name none, `BT.709` or `BT.601`;
            smaller ones are BT.601.

    Raises:
        av.FFmpegError, ValueError: the pixel format cannot be turned into RGB.
    """
    name, components = frame.format.name, frame.format.components
    if name.startswith(FLOAT_GREY):
        return _float_grey(frame), 255
    has_alpha = use_alpha and (frame.format.has_palette or any(c.is_alpha for c in components))
    if name in SWAPPED:
        frame = reformatter.reformat(frame, format=name.replace("be", "le"), threads=1)
    matrix = None
    if frame.colorspace in SILENT_MATRICES:
        is_709 = untagged_hd == "BT.709" and frame.height >= HD_LINES
        matrix = Colorspace.ITU709 if is_709 else Colorspace.ITU601
    try:
        # With PyAV's default of several threads, swscale gets some pixels wrong now and then.
        image = reformatter.reformat(
            frame, format="rgba" if has_alpha else "rgb24", src_colorspace=matrix, threads=1
        )
    except av.FFmpegError as error:
        if frame.colorspace in UNKNOWN_MATRICES:
            tag = UNKNOWN_MATRICES[frame.colorspace]
            raise ValueError(f"their matrix is tagged {tag}") from error
        raise
    pixels = cast(Pixels, image.to_ndarray())
    alpha = 255
    if frame.color_range == ColorRange.MPEG and name.startswith(("gray", "ya")):
        pixels[..., :3] = FULL_RANGE[pixels[..., :3]]
    elif name.startswith(FOUR_BITS):
        pixels |= pixels >> 4
    if has_alpha:
        opacity = pixels[..., 3:] / np.float32(255)
        alpha = int(pixels[..., 3].max())
        pixels = (pixels[..., :3] * opacity + np.float32(0.5)).astype(np.uint8)
    return pixels, alpha


def _float_grey(frame: av.VideoFrame) -> Pixels:
    if not frame.format.name.startswith("grayf32"):
        raise ValueError("it is grey as numbers that FFmpeg cannot convert")
    grey = frame.to_ndarray().astype(np.float32).clip(0, 1)
    return np.repeat((grey * 255).round().astype(np.uint8)[..., None], 3, axis=2)


def cut_margins(pixels: Pixels, margins: tuple[int, int, int, int]) -> Pixels:
    """Leave out so many pixels at the left, right, top and bottom, unless none would remain."""
    (height, width), (left, right, top, bottom) = pixels.shape[:2], margins
    if top + bottom >= height or left + right >= width:
        return pixels
    return pixels[top : height - bottom, left : width - right]


def display_matrix(frame: av.VideoFrame) -> Matrix:
    """Return a frame's display matrix; None without one.

    PyAV's frame and its side data refer to each other, so a frame whose side data was looked at is
    freed by the garbage collector alone, hundreds of frames later: look at few.
    """
    try:
        matrix = cast(Mapping[str, Any], frame.side_data).get("DISPLAYMATRIX")
    except ValueError:
        # PyAV reads no side data beside a kind that it does not know, such as a photo's EXIF or the
        # view of a stereoscopic video; then it knows a turn, but not whether that is mirrored.
        return TURNS.get(frame.rotation % 360)
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return a, b, c, d


def upright(pixels: Pixels, matrix: Matrix) -> Pixels:
    """Apply a display matrix: x' = a x + c y, y' = b x + d y."""
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def resize(pixels: Pixels, size: int) -> Pixels:
    """Squash uint8 (height, width, 3) to (size, size, 3): antialiased bicubic, no crop.

    Within one grey level of PIL's, but for a few values in a million, which are two off.
    """
    return squash(pixels, size, size)


def resize_with_pillow(pixels: Pixels, size: int) -> Pixels:
    """Squash uint8 (height, width, 3) to (size, size, 3) as Pillow does, bilinear, antialiased.

    Slower than `resize`; for models whose scores were published with it.
    """
    squashed = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(squashed)


def crop_square(pixels: Pixels, size: int, *, of: int | None = None, how: str = BICUBIC) -> Pixels:
    """Resize the short side to `of` pixels, by default `size`, and cut (size, size, 3) out.

    Sides are rounded, and the middle is found, as torchvision's Resize and CenterCrop do.
    """
    (height, width), short = pixels.shape[:2], of or size
    if height <= width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    top, left = round((height - size) / 2), round((width - size) / 2)
    resized = squash(pixels, height, width, how=how)[top : top + size, left : left + size]
    return np.ascontiguousarray(resized)


def squash(pixels: Pixels, height: int, width: int, *, how: str = BICUBIC) -> Pixels:
    """Squash uint8 (height, width, 3) to another height and width, by one of `INTERPOLATIONS`."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if not (pixels.flags.c_contiguous and pixels.flags.writeable):
        pixels = pixels.copy()
    # A whole batch of one, its channels last, is what torch's fast uint8 kernel takes as it is.
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    mode, antialias = INTERPOLATIONS[how]
    squashed = interpolate(batch, (height, width), mode=mode, antialias=antialias)
    return np.ascontiguousarray(squashed[0].permute(1, 2, 0).numpy())
