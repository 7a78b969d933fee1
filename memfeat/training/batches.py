"""Batches for the models, gathered by row number from all frames as one flat tensor."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """Some videos, padded to the longest.

    Attributes:
        frames: float32 (batch, time, dim), zero where padded.
        lengths: int64 (batch,), on the CPU.
        scores: float32 (batch,).
    """

    frames: Tensor
    lengths: Tensor
    scores: Tensor


class FrameBank:
    """All frames of a table as one flat tensor on the device; on a CPU without a copy.

    Args:
        values: (total_frames, dim), float16 or float32.
        device: where batches are made.
    """

    def __init__(self, values: NDArray[Any], device: torch.device) -> None:
        # torch takes no read-only arrays, such as memory maps: those, and only those, are copied.
        self._values = torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)

    def gather(self, rows: Sequence[Rows]) -> tuple[Tensor, Tensor]:
        """Return frames, float32 (batch, time, dim), and lengths, int64 (batch,) on the CPU.

        Args:
            rows: each video's row numbers, at least one, in the order its frames shall have.
        """
        lengths = torch.tensor([len(video) for video in rows])
        index = pad_sequence([torch.from_numpy(video) for video in rows], batch_first=True)
        chosen = self._values.index_select(0, index.flatten().to(self._values.device))
        frames = chosen.float().view(*index.shape, -1)
        if int(lengths.min()) < index.shape[1]:
            padded = torch.arange(index.shape[1]) >= lengths.unsqueeze(1)
            frames.masked_fill_(padded.unsqueeze(-1).to(frames.device), 0.0)
        return frames, lengths


@dataclass(frozen=True)
class EpochBatches:
    """The training split's batches, epoch by epoch.

    Videos come in a new order each epoch, and so do each video's frames (paper, section 2). All
    orders follow from seed, epoch and video id; no global generator is asked.

    Attributes:
        bank: the frames.
        rows: each video's row numbers in order of time.
        video_ids: each video's id.
        scores: float32 (videos,), on the CPU.
        batch_size: videos per batch; an epoch's last batch may be smaller.
        shuffle_frames: whether to permute frames.
        seed: of both orders.
    """

    bank: FrameBank
    rows: Sequence[Rows]
    video_ids: Sequence[str]
    scores: Tensor
    batch_size: int
    shuffle_frames: bool
    seed: int

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, counted from 0; the same ones each time."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            frames, lengths = self.bank.gather([self._frame_order(i, epoch) for i in chosen])
            yield Batch(frames, lengths, self.scores[torch.from_numpy(chosen)].to(frames.device))

    def _frame_order(self, video: int, epoch: int) -> Rows:
        if not self.shuffle_frames:
            return self.rows[video]
        source = np.random.default_rng([self.seed, epoch, self._keys[video]])
        return source.permutation(self.rows[video])

    @cached_property
    def _keys(self) -> list[int]:
        """A number that stands for each video's id, whatever other videos there are."""
        hashes = (hashlib.blake2b(name.encode(), digest_size=8) for name in self.video_ids)
        return [int.from_bytes(each.digest()) for each in hashes]
