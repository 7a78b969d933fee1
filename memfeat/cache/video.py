"""One video: as stage 1 encodes it, and as a cache's index lists it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar  # with a default, which typing has from 3.13 on

Status = Literal["ok", "partial", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
MOST_ATTEMPTS = 1 << 31
MOST_PIXELS = 1 << 31  # a side


class Rows(Protocol):
    """Embeddings, float16 (frames, width), that can be read in parts: an array, or a spool."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> NDArray[np.float16]: ...


BLOCK_BYTES = 1 << 18


def blocks_of(rows: Rows) -> Iterator[NDArray[np.float16]]:
    """Yield all of them, about `BLOCK_BYTES` at a time."""
    width = rows[:0].shape[1]
    step = max(1, BLOCK_BYTES // (2 * width))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


R_co = TypeVar("R_co", bound=Rows, covariant=True, default=NDArray[Any])


@dataclass(frozen=True)
class EncodedVideo(Generic[R_co]):
    """One video as stage 1 encodes it.

    Attributes:
        video_id: as in the manifest.
        embeddings: float16 (frames, width), each vector of unit L2 norm; no rows if the video
            failed. An array, unless said otherwise.
        pts_seconds: float64 (frames,).
        status: `ok`, `partial` (some frames could not be decoded) or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        source_bytes: size of the file, or -1.
        source_sha256: hash of the file, or empty.
        frames_expected: what the container promises, if it does.
        covers: int32 (frames,), how many decoded frames, or clips, each one stands for, itself
            included; None for one each.
        attempt: how many entries of the video this one replaces, one after another.
        frame_size: width and height of the video's first frame in pixels, upright and before it is
            resized; zeros where not known.
    """

    video_id: str
    embeddings: R_co
    pts_seconds: NDArray[np.float64]
    status: Status = "ok"
    reason: str = ""
    source_bytes: int = -1
    source_sha256: str = ""
    frames_expected: int | None = None
    covers: NDArray[np.int32] | None = None
    attempt: int = 0
    frame_size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class VideoEntry:
    """A video's entry in a cache.

    `start` and `stop` are rows of its shard, which cover `num_covered` decoded frames, or clips;
    `frames_expected` is -1 where the container is silent, `source_sha256` empty where the file
    could not be read, and `frame_size` as in `EncodedVideo`. Of several entries of a video, the one
    of the highest `attempt` counts.
    """

    video_id: str
    status: Status
    reason: str
    start: int
    stop: int
    num_covered: int
    frames_expected: int
    source_sha256: str
    shard: Path
    attempt: int = 0
    source_bytes: int = -1
    frame_size: tuple[int, int] = (0, 0)

    @property
    def num_frames(self) -> int:
        """Frames cached."""
        return self.stop - self.start

    @property
    def rank(self) -> tuple[int, int]:
        """Of several entries of a video, the one of the least rank counts."""
        return -self.attempt, STATUSES.index(self.status)

    def repeats(self, video: EncodedVideo[Any]) -> bool:
        """Whether a video that was tried again came out as this entry says already."""
        covered = len(video.embeddings) if video.covers is None else int(video.covers.sum())
        expected = -1 if video.frames_expected is None else video.frames_expected
        found = video.status, video.reason, video.source_sha256, len(video.embeddings)
        known = self.status, self.reason, self.source_sha256, self.num_frames
        return (*found, covered, expected) == (*known, self.num_covered, self.frames_expected)

    @property
    def contradiction(self) -> str:
        """How the entry contradicts itself, in words; empty if it does not."""
        if self.status == "failed" and self.num_frames:
            return f"a video failed, but has {self.num_frames} frames"
        if self.status != "failed" and not self.num_frames:
            return f"a video is {self.status}, but has no frames"
        if (self.status == "ok") == bool(self.reason):
            return f"a video is {self.status}, and the reason is {self.reason!r}"
        return self._odd_number()

    def _odd_number(self) -> str:
        if self.frames_expected < -1:
            return f"{self.frames_expected} frames are expected of a video"
        if not 0 <= self.attempt < MOST_ATTEMPTS:
            return f"{self.attempt} attempts are counted of a video"
        width, height = self.frame_size
        known = width or height
        if known and not (0 < width < MOST_PIXELS and 0 < height < MOST_PIXELS):
            return f"a video has frames of {width} x {height} pixels"
        return ""
