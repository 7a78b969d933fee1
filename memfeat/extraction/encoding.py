"""Encoding decoded frames in batches of one fixed shape, which run across videos."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.cache import CacheSpec, EncodedVideo, Rows, Spool, SpooledRows, Status, blocks_of
from memfeat.config import OnPartial
from memfeat.decoding import (
    CoverCounter,
    DecodedVideo,
    DecodeResult,
    DecodeSettings,
    Sampling,
    decode_ahead,
)
from memfeat.encoders import Encoding, FrameEncoder
from memfeat.errors import EncoderError, VideoError
from memfeat.manifest import VideoRecord
from memfeat.storage import Location
from memfeat.video import Frame, Pixels

PIPELINED = 3  # batches on a GPU: one copied in, one encoded, one copied out


@dataclass(frozen=True)
class VideoOutcome:
    """The result of one video.

    Attributes:
        video_id: as in the manifest.
        status: `ok`, `partial` or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words, or a warning.
        num_frames: frames decoded, whether or not a sampler left them out.
    """

    video_id: str
    status: Status
    reason: str
    message: str
    num_frames: int


OnVideo = Callable[[VideoOutcome], None]
OnBatch = Callable[[Encoding, int], None]
R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class DecodedRows:
    """A video without its embeddings, which are the next `len(pts_seconds)` rows of the batches.

    Attributes:
        video_id: as in the manifest.
        result: how decoding ended.
        pts_seconds: float64 (rows,), when each row's frame is shown.
        covers: int32 (rows,), how many frames, or clips, each row stands for.
    """

    video_id: str
    result: DecodeResult
    pts_seconds: NDArray[np.float64]
    covers: NDArray[np.int32]

    @property
    def outcome(self) -> VideoOutcome:
        """The video's result as `extract` reports it."""
        status, reason, message, *_ = self.result
        return VideoOutcome(self.video_id, status, reason, message, sum(self.result.covers))

    def with_rows(self, rows: Rows, sampling: Sampling) -> tuple[NDArray[np.bool_], "DecodedRows"]:
        """Apply a sampler of embeddings: return which rows are kept, and the video with those."""
        covers = self.covers
        if self.result.status == "failed":
            kept, covers = np.zeros(len(rows), bool), covers[:0]
        elif sampling.of_type.of_embeddings:
            cover = CoverCounter(sampling.of_embeddings())
            kept = np.array([cover.keeps(row) for block in blocks_of(rows) for row in block], bool)
            covers = np.array(cover.counts, np.int32)
        else:
            kept = np.ones(len(rows), bool)
        return kept, DecodedRows(self.video_id, self.result, self.pts_seconds[kept], covers)

    def encoded(self, embeddings: R) -> EncodedVideo[R]:
        """Return the video with its embeddings."""
        return EncodedVideo(
            video_id=self.video_id,
            embeddings=embeddings,
            pts_seconds=self.pts_seconds,
            status=self.result.status,
            reason=self.result.reason,
            source_bytes=self.result.source_bytes,
            source_sha256=self.result.source_sha256,
            frames_expected=self.result.frames_expected,
            covers=self.covers,
        )


def encode_video(location: Location, encoder: FrameEncoder, spec: CacheSpec) -> EncodedVideo:
    """Decode and encode one video exactly as a cache of this spec would hold it.

    Raises:
        VideoError: the video cannot be had or used at all; a partial one is returned as such.
        RemoteError: nothing of its storage can be had.
    """
    record = VideoRecord(video_id="video", path=location, score=None, split="test")
    sampling = Sampling.parse(spec.sampling)
    settings = DecodeSettings(encoder.image_size, sampling, spec.max_frames, spec.max_seconds)
    rows = [np.empty((0, encoder.width), np.float16)]
    batches = Batches(
        encoder,
        spec.batch_size or 1,
        lambda encoding, filled: rows.append(to_float16(encoding, filled)),
    )
    with decode_ahead([record], settings, decoders=1) as videos:
        video = next(videos)
        decoded = batch_frames(video, batches)
        batches.flush()
    if video.result.status == "failed":
        raise VideoError(video.result.reason, video.result.message)
    every = np.concatenate(rows)
    kept, decoded = decoded.with_rows(every, sampling)
    return decoded.encoded(every[kept])


def to_float16(encoding: Encoding, filled: int) -> NDArray[np.float16]:
    """Wait for a batch, and return its first `filled` rows as a cache stores them."""
    return encoding.result()[:filled].numpy().astype(np.float16)


class Batches:
    """Collects frames, or clips, into batches of one fixed shape, and encodes them.

    A batch that is not full is padded with black, so an embedding depends on its frame and the
    batch size alone.

    Args:
        encoder: encodes them.
        frames: per batch.
        on_batch: called with each batch's encoding, and how many of its rows are real.

    Raises:
        EncoderError: there is no memory for a batch.

    Attributes:
        encoded: rows so far.
        seconds: spent in the encoder, or waiting for it.
    """

    def __init__(self, encoder: FrameEncoder, frames: int, on_batch: OnBatch) -> None:
        self.encoder = encoder
        self.encoded = 0
        self.seconds = 0.0
        on_gpu = encoder.device.type == "cuda"
        shape = max(1, frames // encoder.clip_frames), *encoder.input_shape
        try:
            self._buffers = [
                torch.zeros(shape, dtype=torch.uint8, pin_memory=on_gpu)
                for _ in range(PIPELINED if on_gpu else 1)
            ]
        except RuntimeError as error:
            raise EncoderError(
                f"there is no memory for a batch of {frames} frames; give a smaller --batch-size"
            ) from error
        self._encodings: list[Encoding | None] = [None] * len(self._buffers)
        self._on_batch = on_batch
        self._filled = 0
        self._number = 0

    def add(self, pixels: Pixels) -> None:
        """Add a frame, or a clip."""
        batch = self._batch()
        batch[self._filled] = torch.from_numpy(pixels)
        self._filled += 1
        if self._filled == len(batch):
            self.flush()

    def flush(self) -> None:
        """Encode the frames that are waiting, if any."""
        if not self._filled:
            return
        batch = self._batch()
        batch[self._filled :] = 0
        started = time.perf_counter()
        encoding = self.encoder.begin(batch)
        self.seconds += time.perf_counter() - started
        self._on_batch(encoding, self._filled)
        self._encodings[self._number] = encoding
        self.encoded += self._filled
        self._filled = 0
        self._number = (self._number + 1) % len(self._buffers)

    def _batch(self) -> Tensor:
        """Return the buffer to fill, once the GPU has copied what was in it."""
        encoding = self._encodings[self._number]
        if encoding is not None:
            started = time.perf_counter()
            encoding.wait()
            self.seconds += time.perf_counter() - started
            self._encodings[self._number] = None
        return self._buffers[self._number]


def batch_frames(
    video: DecodedVideo, batches: Batches, on_partial: OnPartial = "keep"
) -> DecodedRows:
    """Put a video's frames, or clips, into batches.

    Raises:
        VideoError: it is partial, and `on_partial` is `fail`.
    """
    clip_frames = batches.encoder.clip_frames
    pts_seconds: list[float] = []
    for pixels, seconds in _inputs(video, clip_frames):
        batches.add(pixels)
        pts_seconds.append(seconds)
    result = video.result
    if result.status == "partial" and on_partial == "skip":
        result = result._replace(status="failed")
    elif result.status == "partial" and on_partial == "fail":
        raise VideoError(
            result.reason,
            f"{result.message}; mend it, leave it out, or give --on-partial keep or skip. Finished "
            "shards are kept",
        )
    covers = result.covers if clip_frames == 1 else [1] * len(pts_seconds)
    return DecodedRows(
        video.record.video_id, result, np.array(pts_seconds), np.array(covers, np.int32)
    )


def from_spool(
    videos: Iterable[DecodedRows], spool: Spool, sampling: Sampling
) -> list[EncodedVideo[Rows]]:
    """Return a shard's videos with their embeddings, which the spool holds one after another."""
    encoded: list[EncodedVideo[Rows]] = []
    start = 0
    for video in videos:
        stop = start + len(video.pts_seconds)
        every = SpooledRows(spool, start, stop)
        kept, video = video.with_rows(every, sampling)  # noqa: PLW2901
        encoded.append(video.encoded(every.where(kept)))
        start = stop
    return encoded


def _inputs(video: DecodedVideo, clip_frames: int) -> Iterator[tuple[Pixels, float]]:
    """Yield the encoder's inputs, frames or clips, and when each begins."""
    if clip_frames > 1:
        yield from clips_of(video, clip_frames)
        return
    for frame in video:
        yield frame.pixels, frame.pts_seconds


def clips_of(frames: Iterable[Frame], clip_frames: int) -> Iterator[tuple[Pixels, float]]:
    """Yield a video's clips, uint8 (clip_frames, height, width, 3), and when each begins.

    Frames that are left over after the last whole clip are left out (ours), unless there is no
    whole one: then the video's last frame is repeated to make it one.
    """
    clip: list[Pixels] = []
    begins = 0.0
    whole = False
    for frame in frames:
        if not clip:
            begins = frame.pts_seconds
        clip.append(frame.pixels.copy())  # for a frame's pixels are its own only until the next
        if len(clip) == clip_frames:
            whole = True
            yield np.stack(clip), begins
            clip = []
    if clip and not whole:
        yield np.stack(clip + [clip[-1]] * (clip_frames - len(clip))), begins
