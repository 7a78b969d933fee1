"""A video encoded by a run's encoders, and the windows of it that are left out in turn."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.cache import EncodedVideo
from memfeat.decoding import DecodedVideo, DecodeSettings, decode_ahead
from memfeat.errors import VideoError
from memfeat.manifest import VideoRecord
from memfeat.runs import shown_seconds
from memfeat.storage import Location

LONGEST_SIDE = 480  # pixels of a picture
MAX_VARIANTS = 256  # clips scored for one timeline; longer ones lose several frames at a time


@dataclass(frozen=True)
class Clip:
    """A video, encoded by each of a run's encoders.

    Attributes:
        encoded: (rows, width) each.
        covers: int32 (rows,) each, how many frames a row stands for.
        frames: float32 (time, width) each, on the device; a row for each frame it stands for.
        shown: how many of them are of frames; texts follow these.
    """

    encoded: tuple[EncodedVideo, ...]
    covers: tuple[NDArray[np.int32], ...]
    frames: tuple[Tensor, ...]
    shown: int

    @classmethod
    def of(cls, encoded: Sequence[EncodedVideo], device: str, shown: int) -> "Clip":
        """Take a video's rows to the device."""
        covers = [
            np.ones(len(each.embeddings), np.int32) if each.covers is None else each.covers
            for each in encoded
        ]
        frames = [
            torch.from_numpy(each.embeddings.astype(np.float32).repeat(own, axis=0)).to(device)
            for each, own in zip(encoded, covers, strict=True)
        ]
        return cls(tuple(encoded), tuple(covers), tuple(frames), shown)

    def by_row(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the means (rows,) of the first stream's values (time,) over each row's frames."""
        covers = self.covers[0]
        means: NDArray[np.float64] = np.add.reduceat(values, np.cumsum(covers) - covers) / covers
        return means

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """When each row of the first stream appears, float64 (rows,)."""
        return self.encoded[0].pts_seconds

    @property
    def worst(self) -> EncodedVideo:
        """The first encoding that is not `ok`, or else the first."""
        return next((each for each in self.encoded if each.status != "ok"), self.encoded[0])

    def windows(self) -> list[NDArray[np.int64]]:
        """Return for each stream the window of each row, int64 (time,), from 0 upwards.

        Texts have none beside frames: they stay when frames are left out.
        """
        times = [each.pts_seconds for each in self.encoded[: self.shown or None]]
        coarsest = min(range(len(times)), key=lambda stream: len(times[stream]))
        step = math.ceil(len(times[coarsest]) / MAX_VARIANTS)
        starts = times[coarsest][::step]
        windows = [np.searchsorted(starts, own, side="right").clip(1) - 1 for own in times]
        windows[coarsest] = np.arange(len(times[coarsest])) // step
        return windows

    @property
    def duration_seconds(self) -> float:
        """How long the frames are shown; the last one for the median of the others."""
        return shown_seconds(self.pts_seconds, self.covers[0])

    def mean(self, stream: int, dim: int) -> NDArray[np.float64]:
        """Return the mean over a stream's frames of their class tokens, (dim,)."""
        rows = self.encoded[stream].embeddings[:, :dim].astype(np.float64)
        covers = self.covers[stream]
        mean: NDArray[np.float64] = covers @ rows / covers.sum()
        return mean


def frames_at(place: Location, pts_seconds: Collection[float]) -> dict[float, NDArray[np.uint8]]:
    """Decode the frames with exactly these times, uint8 (height, width, 3) RGB each.

    None of them has a side of more than `LONGEST_SIDE` pixels.

    Raises:
        VideoError: the video cannot be had, or not be used.
        RemoteError: nothing of its storage can be had.
    """
    wanted, found = set(pts_seconds), dict[float, NDArray[np.uint8]]()
    record = VideoRecord(video_id="video", path=place, score=None, split="test")
    settings = DecodeSettings(LONGEST_SIDE, keep_shape=True, hashed=False, allow_images=True)
    with decode_ahead([record], settings, decoders=1) as videos:
        for event in videos:
            if isinstance(event, DecodedVideo):
                if event.result.status == "failed":
                    raise VideoError(event.result.reason, event.result.message)
                continue
            for pixels, seconds in zip(event.pixels, event.pts_seconds, strict=True):
                if seconds in wanted:
                    found[seconds] = pixels.copy()
            if len(found) == len(wanted):
                break
    return found
