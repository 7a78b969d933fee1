"""Batches for the models, gathered by row number from all frames as one flat tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.models import Padded

ORDER_BITS = 39  # of a frame's random rank in its video; the rest of an int64 is for the video


@dataclass(frozen=True)
class Stream:
    """Some videos' frames of one cache.

    A row that stands for several frames is listed as many times, and so counts as if it were
    cached as often.

    Attributes:
        values: (total_rows, width), float16 or float32, on the device where batches are made.
        rows: int64 (total_frames,), each frame's row, on the same device.
        starts: int64 (videos,), where in `rows` each video begins.
        lengths: int64 (videos,), how many frames it has.
    """

    values: Tensor
    rows: Tensor
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of_table(
        cls,
        values: NDArray[Any],
        offsets: NDArray[np.int64],
        covers: NDArray[np.int32],
        device: torch.device,
        columns: int | None = None,
    ) -> Self:
        """Take all videos of a table; on a CPU its values are not copied.

        Args:
            values: (total_rows, width), float16 or float32.
            offsets: int64 (videos + 1,), where each video's rows begin.
            covers: int32 (total_rows,), how many frames each row stands for, at least 1.
            device: where batches are made.
            columns: how many of each row's numbers are used, the first ones; None for all.
        """
        # torch takes no read-only arrays, such as memory maps: those, and only those, are copied.
        whole = torch.from_numpy(np.require(values, requirements=["C", "W"]))
        rows = torch.from_numpy(np.repeat(np.arange(len(covers)), covers)).to(device)
        starts = np.concatenate([[0], np.cumsum(covers, dtype=np.int64)])[offsets]
        return cls(whole[:, :columns].to(device), rows, starts[:-1], np.diff(starts))

    def of(self, chosen: NDArray[np.int64]) -> Self:
        """Return some of the videos, by number."""
        return replace(self, starts=self.starts[chosen], lengths=self.lengths[chosen])

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the same videos, each with its frames in another order.

        Args:
            order: a permutation of the videos' frames, int64 (total of `lengths`,), that keeps
                each within its video.
        """
        firsts = np.cumsum(self.lengths) - self.lengths
        frames = np.repeat(self.starts - firsts, self.lengths) + np.arange(len(order))
        chosen = torch.from_numpy(frames[order]).to(self.rows.device)
        return replace(self, rows=self.rows.index_select(0, chosen), starts=firsts)

    def padded(self, chosen: NDArray[np.int64]) -> Padded:
        """Return the frames of some of the videos, by number; a video's last one where padded."""
        starts, lengths = (torch.from_numpy(each[chosen]) for each in (self.starts, self.lengths))
        step = torch.arange(int(lengths.max()))
        frames = starts.unsqueeze(1) + torch.minimum(step, lengths.unsqueeze(1) - 1)
        rows = self.rows.index_select(0, frames.flatten().to(self.rows.device))
        values = self.values.index_select(0, rows).float()
        return Padded(values.view(*frames.shape, -1), lengths)


@dataclass(frozen=True)
class Videos:
    """Some videos' frames in every cache.

    Attributes:
        streams: one for each cache, all of the same videos.
    """

    streams: tuple[Stream, ...]

    def __len__(self) -> int:
        return len(self.streams[0].starts)

    @property
    def device(self) -> torch.device:
        """Where their batches are made."""
        return self.streams[0].values.device

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many frames each has, in all streams together, int64 (videos,)."""
        lengths: NDArray[np.int64] = np.sum([stream.lengths for stream in self.streams], axis=0)
        return lengths

    def of(self, chosen: NDArray[np.int64]) -> Self:
        """Return some of the videos, by number."""
        return type(self)(tuple(stream.of(chosen) for stream in self.streams))

    def padded(self, chosen: NDArray[np.int64]) -> tuple[Padded, ...]:
        """Return some of the videos, by number, as a batch: one `Padded` for each stream."""
        return tuple(stream.padded(chosen) for stream in self.streams)


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

        Frames are permuted within their video, in each stream by a permutation of its own.

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
        streams: one `Padded` for each cache.
        scores: float32 (batch,).
        weights: float32 (batch,), how much each counts; None for all alike.
    """

    streams: tuple[Padded, ...]
    scores: Tensor
    weights: Tensor | None = None


def epoch_batches(
    videos: Videos,
    scores: NDArray[np.float64],
    shuffle: Shuffle,
    epoch: int,
    batch_size: int,
    *,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[Batch]:
    """Yield an epoch's batches.

    Args:
        videos: the training split's.
        scores: what the model shall learn, (videos,).
        shuffle: the orders of videos and frames.
        epoch: counted from 0.
        batch_size: videos a batch; an epoch's last batch may be smaller.
        weights: how much each video counts, (videos,), or None.
    """
    lengths = [stream.lengths for stream in videos.streams]
    order, frames = shuffle.epoch(epoch, lengths, batch_size)
    reordered = zip(videos.streams, frames, strict=True)
    shuffled = Videos(tuple(stream.reordered(own) for stream, own in reordered))
    targets = torch.from_numpy(scores[order]).float().to(videos.device)
    for start in range(0, len(videos), batch_size):
        chosen = slice(start, start + batch_size)
        counts = None if weights is None else torch.from_numpy(weights[order[chosen]])
        yield Batch(
            shuffled.padded(order[chosen]),
            targets[chosen],
            None if counts is None else counts.float().to(videos.device),
        )
