"""From a decoded frame to upright RGB pixels, and from those to another size."""

from collections.abc import Mapping
from typing import Any, cast

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch.nn.functional import interpolate

Pixels = NDArray[np.uint8]
Matrix = tuple[int, int, int, int] | None  # a, b, c, d of a display matrix [a b u; c d v; x y w]
TURNS: dict[int, Matrix] = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}


def to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> Pixels:
    """Return uint8 (height, width, 3) RGB as stored, composited on black where it has alpha.

    Raises:
        av.FFmpegError, ValueError: the pixel format cannot be turned into RGB.
    """
    has_alpha = frame.format.has_palette or any(c.is_alpha for c in frame.format.components)
    layout = "rgba" if has_alpha else "rgb24"
    # With PyAV's default of several threads, swscale gets some pixels wrong now and then.
    image = reformatter.reformat(frame, format=layout, threads=1)
    pixels = cast(Pixels, image.to_ndarray())
    if has_alpha:
        opacity = pixels[..., 3:] / np.float32(255)
        pixels = (pixels[..., :3] * opacity + np.float32(0.5)).astype(np.uint8)
    return pixels


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


def squash(pixels: Pixels, height: int, width: int) -> Pixels:
    """Squash uint8 (height, width, 3) to another height and width, as `resize` does."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if not (pixels.flags.c_contiguous and pixels.flags.writeable):
        pixels = pixels.copy()
    # A whole batch of one, its channels last, is what torch's fast uint8 kernel takes as it is.
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    squashed = interpolate(batch, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(squashed[0].permute(1, 2, 0).numpy())
