"""Decoded videos to embeddings, in batches of one fixed shape that run across videos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import CacheSpec, EncodedVideo, Status
from memfeat.encoders import FrameEncoder
from memfeat.errors import VideoError
from memfeat.extraction.decoding import DecodedVideo, decode_ahead
from memfeat.manifest import VideoRecord


@dataclass(frozen=True)
class VideoOutcome:
    """What became of one video; `message` says in words why it is not ok, or warns."""

    video_id: str
    status: Status
    reason: str
    message: str
    num_frames: int


OnVideo = Callable[[VideoOutcome], None]


def encode_video(path: Path, encoder: FrameEncoder, spec: CacheSpec) -> EncodedVideo:
    """Decode and encode one video exactly as a cache of this spec would hold it.

    Raises:
        VideoError: the video cannot be used at all; a partial one is returned as such.
    """
    record = VideoRecord(video_id="video", path=path, score=None, split="test")
    with decode_ahead(
        [record], size=encoder.image_size, max_frames=spec.max_frames, decoders=1
    ) as videos:
        video = next(videos)
        encoded = encode_videos([video], encoder, spec.batch_size, lambda _: None)[0]
    if video.status == "failed":
        raise VideoError(video.reason, video.message)
    return encoded


def encode_videos(
    videos: Iterable[DecodedVideo], encoder: FrameEncoder, batch_size: int, on_video: OnVideo
) -> list[EncodedVideo]:
    """Encode a shard's videos in batches of one fixed shape that run across videos.

    The last batch is padded with black, so every number follows from the videos and the batch
    size alone.
    """
    batch = torch.zeros((batch_size, encoder.image_size, encoder.image_size, 3), dtype=torch.uint8)
    rows: list[NDArray[np.float16]] = [np.empty((0, encoder.dim), np.float16)]
    filled = 0
    decoded: list[tuple[DecodedVideo, list[float]]] = []

    def encode_batch() -> None:
        nonlocal filled
        batch[filled:] = 0
        rows.append(encoder.encode(batch)[:filled].numpy().astype(np.float16))
        filled = 0

    for video in videos:
        pts_seconds: list[float] = []
        for frame in video:
            batch[filled] = torch.from_numpy(frame.pixels)
            pts_seconds.append(frame.pts_seconds)
            filled += 1
            if filled == batch_size:
                encode_batch()
        decoded.append((video, pts_seconds))
        on_video(
            VideoOutcome(
                video.record.video_id, video.status, video.reason, video.message, len(pts_seconds)
            )
        )
    if filled:
        encode_batch()
    offsets = np.cumsum([0] + [len(pts_seconds) for _, pts_seconds in decoded])
    embeddings = np.concatenate(rows)
    return [
        _encoded_video(video, embeddings[start:stop], pts_seconds)
        for (video, pts_seconds), start, stop in zip(
            decoded, offsets[:-1], offsets[1:], strict=True
        )
    ]


def _encoded_video(
    video: DecodedVideo, embeddings: NDArray[np.float16], pts_seconds: Sequence[float]
) -> EncodedVideo:
    kept = slice(0 if video.status == "failed" else None)
    return EncodedVideo(
        video_id=video.record.video_id,
        embeddings=embeddings[kept],
        pts_seconds=np.array(pts_seconds, np.float64)[kept],
        status=video.status,
        reason=video.reason,
        source_bytes=video.source_bytes,
        source_sha256=video.source_sha256,
        frames_expected=video.frames_expected,
    )
