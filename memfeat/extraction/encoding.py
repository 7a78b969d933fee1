"""Encoding decoded frames in batches of one fixed shape, which run across videos."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import CacheSpec, EncodedVideo, Rows, Status, blocks_of
from memfeat.config import OnPartial
from memfeat.decoding import (
    CoverCounter,
    DecodedFrames,
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
from memfeat.video import Pixels

PIPELINED = 3  # batches on a GPU: one copied in, one encoded, one copied out
VIDEOS_BEGUN = 2  # for each decoder, before the oldest of them has ended


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
OnFrames = Callable[[int, float], None]  # is given a video's number, and a time in seconds
Sink = Callable[[NDArray[np.float16]], None]  # is given a video's rows, in order
OnBatch = Callable[[Encoding, Sequence[tuple[Sink, int]]], None]
R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class DecodedRows:
    """A decoded video, without the embeddings of its `len(pts_seconds)` rows.

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
            frame_size=self.result.frame_size,
        )


def encode_video(location: Location, encoder: FrameEncoder, spec: CacheSpec) -> EncodedVideo:
    """Decode and encode one video; see `encode_videos`.

    Raises:
        VideoError: the video cannot be had or used at all; a partial one is returned as such.
        RemoteError: nothing of its storage can be had.
    """
    (found,) = encode_videos([location], encoder, spec)
    if isinstance(found, VideoError):
        raise found
    return found


def encode_videos(
    locations: Iterable[Location],
    encoder: FrameEncoder,
    spec: CacheSpec,
    *,
    decoders: int = 1,
    allow_images: bool = False,
    on_frames: OnFrames | None = None,
) -> Generator[EncodedVideo | VideoError, None, None]:
    """Decode and encode videos exactly as a cache of this spec would hold them, in order.

    They are decoded ahead, a few at a time, and share the encoder's batches. In place of a video
    that cannot be had or used at all comes its error.

    Args:
        locations: which videos.
        encoder: the one that the spec describes.
        spec: how they are decoded, sampled and batched.
        decoders: processes that decode; the result is the same with any number.
        allow_images: whether an image is a video of one frame.
        on_frames: called as frames come, with the number of their video, counted from 0, and the
            time of the last one in seconds. What it raises ends the work.

    Raises:
        RemoteError: nothing of a storage can be had.
    """
    records = (
        VideoRecord(video_id="video", path=location, score=None, split="test")
        for location in locations
    )
    sampling = Sampling.parse(spec.sampling)
    settings = DecodeSettings(
        encoder.image_size,
        sampling,
        spec.max_frames,
        spec.max_seconds,
        allow_images=allow_images,
        untagged_hd=spec.untagged_hd,
        crop=spec.resize == "crop",
        fps=spec.fps,
    )
    batches = Batches(encoder, spec.batch_size or 1, deliver)
    begun: dict[int, _BegunVideo] = {}
    number = 0
    most = VIDEOS_BEGUN * decoders
    with decode_ahead(records, settings, decoders=decoders, most_open=most) as videos:
        for event in chain(videos, [None]):
            if event is None:
                batches.flush()
            else:
                if event.number not in begun:
                    begun[event.number] = _BegunVideo(batches)
                begun[event.number].take(event)
            if on_frames is not None and isinstance(event, DecodedFrames):
                on_frames(event.number, event.pts_seconds[-1])
            while number in begun and begun[number].is_encoded:
                yield begun.pop(number).result(sampling)
                number += 1


class _BegunVideo:
    """A video of which some frames were decoded, and its rows so far."""

    def __init__(self, batches: "Batches") -> None:
        self._batches = batches
        self._rows = [np.empty((0, batches.encoder.width), np.float16)]
        self._inputs = EncoderInputs(batches, self._rows.append)
        self._decoded: DecodedRows | None = None
        self._last_row = 0

    def take(self, event: DecodedFrames | DecodedVideo) -> None:
        """Take in its next frames, or its end."""
        if isinstance(event, DecodedFrames):
            self._inputs.add(event)
        else:
            self._decoded = self._inputs.end(event)
            self._last_row = self._batches.added

    @property
    def is_encoded(self) -> bool:
        """Whether it has ended, and all of its rows have come."""
        return self._decoded is not None and self._last_row <= self._batches.encoded

    def result(self, sampling: Sampling) -> EncodedVideo | VideoError:
        """Return the video, or why it cannot be used."""
        decoded, every = self._decoded, np.concatenate(self._rows)
        if decoded is None:
            raise RuntimeError("the video has not ended")
        if decoded.result.status == "failed":
            return VideoError(decoded.result.reason, decoded.result.message)
        kept, decoded = decoded.with_rows(every, sampling)
        return decoded.encoded(every[kept])


def deliver(encoding: Encoding, parts: Sequence[tuple[Sink, int]]) -> None:
    """Wait for a batch, and hand its rows, as a cache stores them, to the videos they are of."""
    filled = sum(count for _, count in parts)
    rows = encoding.result()[:filled].numpy().astype(np.float16)
    start = 0
    for sink, count in parts:
        sink(rows[start : start + count])
        start += count


class Batches:
    """Collects frames, or clips, into batches of one fixed shape, and encodes them.

    A batch that is not full is padded with black, so an embedding depends on its frame and the
    batch size alone.

    Args:
        encoder: encodes them.
        frames: per batch.
        on_batch: called with each batch's encoding, and whose its rows are: a sink, and how many
            rows are for it, again and again. What remains is padding.

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
        self._arrays = [buffer.numpy() for buffer in self._buffers]  # torch would wake its threads
        self._encodings: list[Encoding | None] = [None] * len(self._buffers)
        self._on_batch = on_batch
        self._parts: list[tuple[Sink, int]] = []
        self._filled = 0
        self._number = 0

    @property
    def added(self) -> int:
        """Rows so far, with those that still wait for their batch to be full."""
        return self.encoded + self._filled

    def add(self, inputs: NDArray[np.uint8], sink: Sink) -> None:
        """Add inputs, uint8 (inputs, *input_shape), whose rows are for `sink`."""
        while len(inputs):
            array = self._array()
            count = min(len(inputs), len(array) - self._filled)
            array[self._filled : self._filled + count] = inputs[:count]
            inputs = inputs[count:]
            self._filled += count
            self._parts.append((sink, count))
            if self._filled == len(array):
                self.flush()

    def flush(self) -> None:
        """Encode the frames that are waiting, if any."""
        if not self._filled:
            return
        self._array()[self._filled :] = 0
        started = time.perf_counter()
        encoding = self.encoder.begin(self._buffers[self._number])
        self.seconds += time.perf_counter() - started
        self._encodings[self._number] = encoding
        self.encoded += self._filled
        self._on_batch(encoding, self._parts)
        self._parts = []
        self._filled = 0
        self._number = (self._number + 1) % len(self._buffers)

    def _array(self) -> NDArray[np.uint8]:
        """Return the buffer to fill, once the GPU has copied what was in it."""
        encoding = self._encodings[self._number]
        if encoding is not None:
            started = time.perf_counter()
            encoding.wait()
            self.seconds += time.perf_counter() - started
            self._encodings[self._number] = None
        return self._arrays[self._number]


class EncoderInputs:
    """Puts a video's frames, or clips of them, into batches that it shares with other videos.

    Args:
        batches: where to.
        sink: is given the rows.
    """

    def __init__(self, batches: Batches, sink: Sink) -> None:
        self._batches, self._sink = batches, sink
        self._pts_seconds: list[float] = []
        self._clips = Clips(batches.encoder.clip_frames)

    def add(self, frames: DecodedFrames) -> None:
        """Add the video's next frames."""
        if self._clips.frames == 1:
            self._batches.add(frames.pixels, self._sink)
            self._pts_seconds += frames.pts_seconds
        else:
            self._add_clips(self._clips.add(frames.pixels, frames.pts_seconds))

    def end(self, video: DecodedVideo, on_partial: OnPartial = "keep") -> DecodedRows:
        """End the video; its last rows may still wait for their batch to be full.

        Raises:
            VideoError: it is partial, and `on_partial` is `fail`.
        """
        self._add_clips(self._clips.end())
        result = video.result
        if result.status == "partial" and on_partial == "skip":
            result = result._replace(status="failed")
        elif result.status == "partial" and on_partial == "fail":
            raise VideoError(
                result.reason,
                f"{result.message}; mend it, leave it out, or give --on-partial keep or skip. "
                "Finished shards are kept",
            )
        pts_seconds = np.array(self._pts_seconds)
        covers = result.covers if self._clips.frames == 1 else [1] * len(pts_seconds)
        return DecodedRows(video.record.video_id, result, pts_seconds, np.array(covers, np.int32))

    def _add_clips(self, clips: Iterator[tuple[Pixels, float]]) -> None:
        for clip, begins in clips:
            self._batches.add(clip[None], self._sink)
            self._pts_seconds.append(begins)


class Clips:
    """Cuts a video's frames into clips, uint8 (frames, height, width, 3), as they come.

    Frames that are left over after the last whole clip are left out (ours), unless there is no
    whole one: then the video's last frame is repeated to make it one.

    Args:
        frames: of a clip.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self._waiting: list[Pixels] = []
        self._begins = 0.0
        self._whole = False

    def add(
        self, pixels: NDArray[np.uint8], pts_seconds: Sequence[float]
    ) -> Iterator[tuple[Pixels, float]]:
        """Add frames; yield the clips that are whole now, and when each begins."""
        for frame, seconds in zip(pixels, pts_seconds, strict=True):
            if not self._waiting:
                self._begins = seconds
            self._waiting.append(frame.copy())  # for the memory is soon used again
            if len(self._waiting) == self.frames:
                self._whole = True
                yield np.stack(self._waiting), self._begins
                self._waiting = []

    def end(self) -> Iterator[tuple[Pixels, float]]:
        """End the video; yield its only clip if none was whole."""
        missing = self.frames - len(self._waiting)
        if self._waiting and not self._whole:
            yield np.stack(self._waiting + [self._waiting[-1]] * missing), self._begins
