"""Stage 1 as it is commonly done: OpenCV decodes, PIL resizes, one video at a time, no overlap."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from memfeat.encoders import FrameEncoder


def peer_frames(path: Path, size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a video's frames, uint8 (size, size, 3) RGB."""
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            there, pixels = capture.read()
            if not there:
                return
            image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            yield np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    finally:
        capture.release()


def normalised(pixels: NDArray[np.uint8], encoder: FrameEncoder) -> Tensor:
    """Return what such a frame is handed to the encoder as: float32 (3, size, size)."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (encoder.mean, encoder.std))
    return image.sub_(mean).div_(std)


def peer_features(path: Path, encoder: FrameEncoder, batch_size: int) -> NDArray[np.float16]:
    """Return a video's embeddings (frames, dim): all frames, then batch after batch."""
    frames = torch.stack([normalised(f, encoder) for f in peer_frames(path, encoder.image_size)])
    module = encoder._module  # the very network, behind their preprocessing
    with torch.inference_mode():
        features = torch.cat([module(batch) for batch in frames.split(batch_size)])
    return torch.nn.functional.normalize(features, dim=1).numpy().astype(np.float16)
