"""Batches for the models, gathered by row number from all frames as one flat tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.models import Padded

ORDER_BITS = 39  # of a frame's random place in its video; the rest of an int64 is for the video


class FrameBank:
    """All frames of a table as one flat tensor on the device; on a CPU without a copy.

    Args:
        values: (total_frames, width), float16 or float32.
        device: where batches are made.
        columns: how many of each frame's numbers are used, the first ones; None for all.
    """

    def __init__(
        self, values: NDArray[Any], device: torch.device, columns: int | None = None
    ) -> None:
        # torch takes no read-only arrays, such as memory maps: those, and only those, are copied.
        whole = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        self.values = whole[:, :columns].to(device)

    def gather(self, starts: Tensor, lengths: Tensor, order: Tensor | None = None) -> Tensor:
        """Return frames, float32 (batch, time, dim); frames of the bank where padded.

        Args:
            starts: int64 (batch,), each video's first place in `order`.
            lengths: int64 (batch,), its number of places from there on, at least 1.
            order: int64 (places,) on the device, the row at each place; None for the bank's own.
        """
        step = torch.arange(int(lengths.max()))
        step = torch.minimum(step, lengths.unsqueeze(1) - 1)
        places = (starts.unsqueeze(1) + step).to(self.values.device)
        rows = places.flatten()
        if order is not None:
            rows = order.index_select(0, rows)
        return self.values.index_select(0, rows).float().view(*places.shape, -1)


@dataclass(frozen=True)
class Stream:
    """Where some videos' frames of one cache are in a bank.

    A video's frames have consecutive places. A row that stands for several frames has as many
    places, and so counts as if it were cached as often.

    Attributes:
        bank: the frames.
        starts: int64 (videos,), each video's first place.
        lengths: int64 (videos,), its number of places.
        rows: int64 (places,) on the bank's device, the row at each; None if the places are the
            rows.
    """

    bank: FrameBank
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    rows: Tensor | None = None

    @classmethod
    def covering(
        cls, bank: FrameBank, offsets: NDArray[np.int64], covers: NDArray[np.int32]
    ) -> Self:
        """Give each row of a bank as many places as it covers frames.

        Args:
            bank: all rows.
            offsets: int64 (videos + 1,), where each video's rows begin.
            covers: int32 (rows,), each at least 1.
        """
        if (covers == 1).all():
            return cls(bank, offsets[:-1], np.diff(offsets))
        rows = torch.from_numpy(np.repeat(np.arange(len(covers)), covers))
        places = np.concatenate([[0], np.cumsum(covers, dtype=np.int64)])[offsets]
        return cls(bank, places[:-1], np.diff(places), rows.to(bank.values.device))

    def of(self, chosen: NDArray[np.int64]) -> Self:
        """Return some of the videos, by number."""
        return replace(self, starts=self.starts[chosen], lengths=self.lengths[chosen])

    def reordered(self, frames: NDArray[np.int64]) -> Self:
        """Return the same videos, each with its frames in another order.

        Args:
            frames: a permutation of all frames, int64 (total,), that keeps each within its video.
        """
        firsts = np.cumsum(self.lengths) - self.lengths
        own = np.repeat(self.starts - firsts, self.lengths) + np.arange(len(frames))
        rows = torch.from_numpy(own[frames]).to(self.bank.values.device)
        if self.rows is not None:
            rows = self.rows.index_select(0, rows)
        return replace(self, starts=firsts, rows=rows)

    def padded(self, chosen: NDArray[np.int64] | slice) -> Padded:
        """Return the frames of some of the videos, by number."""
        starts, lengths = (torch.from_numpy(each[chosen]) for each in (self.starts, self.lengths))
        return Padded(self.bank.gather(starts, lengths, self.rows), lengths)


@dataclass(frozen=True)
class Videos:
    """Some videos, and where their frames are in each cache.

    Attributes:
        streams: one for each cache, all of the same videos.
    """

    streams: tuple[Stream, ...]

    def __len__(self) -> int:
        return len(self.streams[0].starts)

    @property
    def device(self) -> torch.device:
        """Where their batches are made."""
        return self.streams[0].bank.values.device

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many frames each has, in all streams together, int64 (videos,)."""
        lengths: NDArray[np.int64] = np.sum([stream.lengths for stream in self.streams], axis=0)
        return lengths

    def of(self, chosen: NDArray[np.int64]) -> Self:
        """Return some of the videos, by number."""
        return type(self)(tuple(stream.of(chosen) for stream in self.streams))


@dataclass(frozen=True)
class Shuffle:
    """How a seed orders its epochs.

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
        self, epoch: int, lengths: Sequence[NDArray[np.int64]], batch_size: int
    ) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
        """Return the order of videos (videos,), and in each stream that of frames (total,).

        Frames change places within their video, in each stream by a permutation of its own.

        Args:
            epoch: counted from 0; the same one gives the same orders each time.
            lengths: for each stream, int64 (videos,).
            batch_size: consecutive videos that make a batch.
        """
        source = np.random.default_rng([self.seed, epoch])
        videos = source.permutation(len(lengths[0]))
        frames = [
            # A first stream's order is not changed by others beside it.
            self._frames(
                own, np.random.default_rng([self.seed, epoch, stream]) if stream else source
            )
            for stream, own in enumerate(lengths)
        ]
        if self.bucket > batch_size:
            videos = self._bucketed(videos, np.sum(lengths, axis=0), batch_size, source)
        return videos, frames

    def _frames(self, lengths: NDArray[np.int64], source: np.random.Generator) -> NDArray[np.int64]:
        if not self.frames:
            return np.arange(lengths.sum())
        keys = source.integers(1 << ORDER_BITS, size=lengths.sum())
        keys += np.repeat(np.arange(len(lengths)) << ORDER_BITS, lengths)
        return np.argsort(keys, kind="stable")

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
    """Some videos, padded to the longest.

    Attributes:
        streams: for each cache frames, float32 (batch, time, dim), some frame or other where
            padded, and lengths, int64 (batch,), on the CPU.
        scores: float32 (batch,).
    """

    streams: tuple[Padded, ...]
    scores: Tensor


def epoch_batches(
    videos: Videos, scores: NDArray[np.float64], shuffle: Shuffle, epoch: int, batch_size: int
) -> Iterator[Batch]:
    """Yield an epoch's batches.

    Args:
        videos: the training split's.
        scores: what the model shall learn, (videos,).
        shuffle: the orders of videos and frames.
        epoch: counted from 0.
        batch_size: videos a batch; an epoch's last batch may be smaller.
    """
    lengths = [stream.lengths for stream in videos.streams]
    order, frames = shuffle.epoch(epoch, lengths, batch_size)
    streams = [
        stream.reordered(own).of(order) for stream, own in zip(videos.streams, frames, strict=True)
    ]
    targets = torch.from_numpy(scores[order]).float().to(videos.device)
    for start in range(0, len(videos), batch_size):
        batch = slice(start, start + batch_size)
        yield Batch(tuple(stream.padded(batch) for stream in streams), targets[batch])
