"""Batches for the models, gathered by row number from all frames as one flat tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ORDER_BITS = 39  # of a frame's random place in its video; the rest of an int64 is for the video


class FrameBank:
    """All frames of a table as one flat tensor on the device; on a CPU without a copy.

    Args:
        values: (total_frames, dim), float16 or float32.
        device: where batches are made.
    """

    def __init__(self, values: NDArray[Any], device: torch.device) -> None:
        # torch takes no read-only arrays, such as memory maps: those, and only those, are copied.
        self.values = torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)

    def gather(self, starts: Tensor, lengths: Tensor, order: Tensor | None = None) -> Tensor:
        """Return frames, float32 (..., batch, time, dim); frames of the bank where padded.

        Args:
            starts: int64 (..., batch), each video's first place in `order`.
            lengths: int64 (..., batch), its number of places from there on, at least 1.
            order: int64 (places,) on the device, the row at each place; None for the bank's own.
        """
        step = torch.arange(int(lengths.max()))
        step = torch.minimum(step, lengths.unsqueeze(-1) - 1)
        places = (starts.unsqueeze(-1) + step).to(self.values.device)
        rows = places.flatten()
        if order is not None:
            rows = order.index_select(0, rows)
        return self.values.index_select(0, rows).float().view(*places.shape, -1)


@dataclass(frozen=True)
class Videos:
    """Where some videos' frames are in a bank.

    Attributes:
        bank: the frames.
        starts: int64 (videos,), each video's first row.
        lengths: int64 (videos,), its number of rows.
    """

    bank: FrameBank
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, chosen: NDArray[np.int64]) -> Self:
        """Return some of the videos, by number."""
        return type(self)(self.bank, self.starts[chosen], self.lengths[chosen])


@dataclass(frozen=True)
class Shuffle:
    """How one model's seed orders its epochs.

    Attributes:
        seed: of all orders; no global generator is asked.
        frames: whether each video's frames are permuted, too (paper, section 2).
        bucket: how many shuffled videos at a time are put into batches by length. The batches
            come in random order all the same.
    """

    seed: int
    frames: bool
    bucket: int = 1

    def epoch(
        self, epoch: int, lengths: NDArray[np.int64], batch_size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of videos (videos,), and of frames (total,) within their videos.

        Args:
            epoch: counted from 0; the same one gives the same orders each time.
            lengths: int64 (videos,).
            batch_size: consecutive videos that make a batch.
        """
        source = np.random.default_rng([self.seed, epoch])
        videos = source.permutation(len(lengths))
        frames = np.arange(lengths.sum())
        if self.frames:
            keys = source.integers(1 << ORDER_BITS, size=len(frames))
            keys += np.repeat(np.arange(len(lengths)) << ORDER_BITS, lengths)
            frames = np.argsort(keys, kind="stable")
        if self.bucket > batch_size:
            videos = self._bucketed(videos, lengths, batch_size, source)
        return videos, frames

    def _bucketed(
        self,
        videos: NDArray[np.int64],
        lengths: NDArray[np.int64],
        batch_size: int,
        source: np.random.Generator,
    ) -> NDArray[np.int64]:
        whole = len(videos) - len(videos) % batch_size  # what is left over stays last
        batches = []
        for start in range(0, whole, self.bucket):
            bucket = videos[start : min(start + self.bucket, whole)]
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
        order = source.permutation(len(batches))
        return np.concatenate([*(batches[i] for i in order), videos[whole:]])


class Batch(NamedTuple):
    """Some videos for each of several models, padded to the longest.

    Attributes:
        frames: float32 (models, batch, time, dim), some frame or other where padded.
        lengths: int64 (models, batch), on the CPU.
        scores: float32 (models, batch).
    """

    frames: Tensor
    lengths: Tensor
    scores: Tensor


def epoch_batches(
    videos: Videos,
    scores: Sequence[NDArray[np.float64]],
    shuffles: Sequence[Shuffle],
    epoch: int,
    batch_size: int,
) -> Iterator[Batch]:
    """Yield an epoch's batches for several models, each in its own order as if alone.

    Args:
        videos: the training split's.
        scores: what each model shall learn, (videos,).
        shuffles: each model's orders.
        epoch: counted from 0.
        batch_size: videos a model and batch; an epoch's last batch may be smaller.
    """
    device = videos.bank.values.device
    firsts = np.cumsum(videos.lengths) - videos.lengths
    own_rows = np.repeat(videos.starts - firsts, videos.lengths) + np.arange(videos.lengths.sum())
    orders = [shuffle.epoch(epoch, videos.lengths, batch_size) for shuffle in shuffles]
    order = torch.from_numpy(np.concatenate([own_rows[frames] for _, frames in orders])).to(device)
    chosen = np.stack([own for own, _ in orders])
    offsets = np.arange(len(shuffles)).reshape(-1, 1) * len(own_rows)
    starts = torch.from_numpy(firsts[chosen] + offsets)
    lengths = torch.from_numpy(videos.lengths[chosen])
    labels = np.stack([own[row] for own, row in zip(scores, chosen, strict=True)])
    targets = torch.from_numpy(labels).float().to(device)
    for start in range(0, len(videos), batch_size):
        batch = slice(start, start + batch_size)
        frames = videos.bank.gather(starts[:, batch], lengths[:, batch], order)
        yield Batch(frames, lengths[:, batch], targets[:, batch])
