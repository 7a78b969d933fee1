"""Decoded videos to embeddings, in batches of one fixed shape that run across videos."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import CacheSpec, EncodedVideo, Status
from memfeat.encoders import FrameEncoder
from memfeat.errors import VideoError
from memfeat.extraction.decoding import DecodedVideo, decode_ahead
from memfeat.extraction.sampling import Cover, Sampling
from memfeat.manifest import VideoRecord
from memfeat.video import Frame, Pixels


@dataclass(frozen=True)
class VideoOutcome:
    """What became of one video; `message` says in words why it is not ok, or warns.

    `num_frames` counts those that were decoded, whether or not a sampler left them out.
    """

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
    sampling, frames = Sampling.parse(spec.sampling), spec.batch_size or 1
    with decode_ahead(
        [record],
        size=encoder.image_size,
        max_frames=spec.max_frames,
        sampling=sampling,
        decoders=1,
    ) as videos:
        video = next(videos)
        encoded = encode_videos([video], encoder, sampling, frames, lambda _: None)[0]
    if video.status == "failed":
        raise VideoError(video.reason, video.message)
    return encoded


def encode_videos(
    videos: Iterable[DecodedVideo],
    encoder: FrameEncoder,
    sampling: Sampling,
    batch_frames: int,
    on_video: OnVideo,
) -> list[EncodedVideo]:
    """Encode a shard's videos in batches of one fixed shape that run across videos.

    The last batch is padded with black, so every number follows from the videos and the batch
    size alone.
    """
    size = max(1, batch_frames // encoder.clip_frames)
    batch = torch.zeros((size, *encoder.input_shape), dtype=torch.uint8)
    rows: list[NDArray[np.float16]] = [np.empty((0, encoder.width), np.float16)]
    filled = 0
    decoded: list[tuple[DecodedVideo, list[float], list[int]]] = []

    def encode_batch() -> None:
        nonlocal filled
        batch[filled:] = 0
        rows.append(encoder.encode(batch)[:filled].numpy().astype(np.float16))
        filled = 0

    for video in videos:
        pts_seconds: list[float] = []
        for pixels, seconds in _inputs(video, encoder.clip_frames):
            batch[filled] = torch.from_numpy(pixels)
            pts_seconds.append(seconds)
            filled += 1
            if filled == size:
                encode_batch()
        covers = video.covers if encoder.clip_frames == 1 else [1] * len(pts_seconds)
        decoded.append((video, pts_seconds, covers))
        on_video(
            VideoOutcome(
                video.record.video_id, video.status, video.reason, video.message, sum(video.covers)
            )
        )
    if filled:
        encode_batch()
    ends = np.cumsum([len(covers) for _, _, covers in decoded])
    each = np.split(np.concatenate(rows), ends[:-1])
    return [
        _encoded_video(video, embeddings, np.array(pts_seconds), covers, sampling)
        for (video, pts_seconds, covers), embeddings in zip(decoded, each, strict=True)
    ]


def _inputs(video: DecodedVideo, clip_frames: int) -> Iterator[tuple[Pixels, float]]:
    """Yield what the encoder makes one row of, and when it begins: frames, or clips of them."""
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
    clip: list[Frame] = []
    whole = False
    for frame in frames:
        clip.append(frame)
        if len(clip) == clip_frames:
            whole = True
            yield np.stack([each.pixels for each in clip]), clip[0].pts_seconds
            clip = []
    if clip and not whole:
        missing = [clip[-1]] * (clip_frames - len(clip))
        yield np.stack([each.pixels for each in clip + missing]), clip[0].pts_seconds


def _encoded_video(
    video: DecodedVideo,
    embeddings: NDArray[np.float16],
    pts_seconds: NDArray[np.float64],
    covers: list[int],
    sampling: Sampling,
) -> EncodedVideo:
    cover = Cover(sampling.of_embeddings())
    kept = np.array([cover.keeps(*row) for row in zip(embeddings, covers, strict=True)], bool)
    counts = np.array(cover.counts, np.int32)
    if video.status == "failed":
        kept[:], counts = False, counts[:0]
    return EncodedVideo(
        video_id=video.record.video_id,
        embeddings=embeddings[kept],
        pts_seconds=pts_seconds[kept],
        status=video.status,
        reason=video.reason,
        source_bytes=video.source_bytes,
        source_sha256=video.source_sha256,
        frames_expected=video.frames_expected,
        covers=counts,
    )
