"""Stage 1: records x encoder -> shards, going on where an earlier run left off."""

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import Cache, CacheSpec, EncodedVideo, Status, write_shard
from memfeat.config import ExtractConfig
from memfeat.decoding import DecodedVideo, decode_ahead
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.errors import EncoderError, MemfeatError, VideoError
from memfeat.files import remove_stale_parts
from memfeat.manifest import Manifest, VideoRecord


@dataclass(frozen=True)
class VideoOutcome:
    """What became of one video; `message` says in words why it is not ok, or warns."""

    video_id: str
    status: Status
    reason: str
    message: str
    num_frames: int


@dataclass(frozen=True)
class ExtractionSummary:
    """What a call of `extract` did and found.

    Attributes:
        spec: what made the cache.
        wanted: videos asked for.
        already_done: of these, found in the cache before.
        outcomes: of the others, in the order they were finished.
        earlier_failures: already done, but failed then: video id to reason.
        seconds: wall time of decoding and encoding.
    """

    spec: CacheSpec
    wanted: int
    already_done: int
    outcomes: tuple[VideoOutcome, ...]
    earlier_failures: dict[str, str]
    seconds: float

    @property
    def failures(self) -> dict[str, str]:
        """Every failed video asked for, now or earlier: video id to reason."""
        now = {done.video_id: done.reason for done in self.outcomes if done.status == "failed"}
        return self.earlier_failures | now

    def as_dict(self) -> dict[str, Any]:
        """Return the summary ready for JSON."""
        statuses = Counter(outcome.status for outcome in self.outcomes)
        frames = sum(outcome.num_frames for outcome in self.outcomes)
        return {
            "wanted": self.wanted,
            "already_done": self.already_done,
            "ok": statuses["ok"],
            "partial": statuses["partial"],
            "failed": statuses["failed"],
            "failures": self.failures,
            "reasons": dict(sorted(Counter(self.failures.values()).items())),
            "frames": frames,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(frames / self.seconds, 2) if self.seconds else None,
            "spec": self.spec.model_dump(mode="json"),
        }


OnVideo = Callable[[VideoOutcome], None]


def extract(
    manifest: Manifest,
    config: ExtractConfig,
    *,
    on_start: Callable[[int], None] | None = None,
    on_video: OnVideo | None = None,
) -> ExtractionSummary:
    """Encode every frame of every video that the cache does not hold yet.

    A shard is put in place whole, so stopping this at any moment, by any means, costs at most the
    shards being worked on, and the next call goes on from there to the same bytes.

    Args:
        manifest: which videos, in order.
        config: encoder, cache folder, batch and shard sizes, devices.
        on_start: called once with the number of videos that need no work.
        on_video: called as each video is finished.

    Raises:
        UnknownNameError: no such encoder.
        EncoderError: its weights cannot be loaded.
        CacheError: the folder holds embeddings made differently.
    """
    devices = resolve_devices(config.device)
    encoder = _encoder(config, devices[0])
    spec = encoder.spec(batch_size=config.batch_size, max_frames=config.max_frames)
    records = manifest.records[: config.limit]
    done = _done(config, spec)
    pending = [record for record in records if record.video_id not in done]
    shards = [
        pending[start : start + config.videos_per_shard]
        for start in range(0, len(pending), config.videos_per_shard)
    ]
    if on_start:
        on_start(len(records) - len(pending))
    outcomes: list[VideoOutcome] = []
    started = time.perf_counter()

    def finished(outcome: VideoOutcome) -> None:
        outcomes.append(outcome)
        if on_video:
            on_video(outcome)

    if len(devices) == 1:
        _on_one_device(shards, encoder, config, finished)
    elif shards:
        del encoder
        _on_many_devices(shards, config, devices, finished)
    return ExtractionSummary(
        spec,
        wanted=len(records),
        already_done=len(records) - len(pending),
        outcomes=tuple(outcomes),
        earlier_failures={
            record.video_id: done[record.video_id]
            for record in records
            if done.get(record.video_id)
        },
        seconds=time.perf_counter() - started,
    )


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
        encoded = _encode([video], encoder, spec.batch_size, lambda _: None)[0]
    if video.status == "failed":
        raise VideoError(video.reason, video.message)
    return encoded


def resolve_devices(device: str) -> list[str]:
    """Turn `auto`, `cpu`, `cuda:1` or `cuda:0,cuda:1` into the devices to use, one worker each.

    `auto` is every GPU there is, or else the CPU.

    Raises:
        EncoderError: PyTorch cannot use a device named.
    """
    if device == "auto":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices = [name.strip() for name in device.split(",")]
    for name in devices:
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise EncoderError(
                f"device {name!r} cannot be used: {reason} Give auto, cpu or cuda:N; "
                "`memfeat doctor` lists the devices"
            ) from error
    return devices


def _encoder(config: ExtractConfig, device: str) -> FrameEncoder:
    return create_encoder(
        config.encoder,
        config.weights,
        activation=config.activation,
        precision=config.precision,
        device=device,
    )


def _done(config: ExtractConfig, spec: CacheSpec) -> dict[str, str]:
    """Map the videos that need no work to why they failed, empty for those that did not."""
    config.cache.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(config.cache)
    if not any(config.cache.glob("shard-*.h5")):
        return {}
    cache = Cache.open(config.cache, damaged_ok=True)
    cache.spec.require(
        spec, f"{config.cache} holds embeddings made differently; give another --cache"
    )
    return {
        video_id: entry.reason if entry.status == "failed" else ""
        for video_id, entry in cache.entries.items()
        if not (config.retry_failed and entry.status == "failed")
    }


def _on_one_device(
    shards: Sequence[Sequence[VideoRecord]],
    encoder: FrameEncoder,
    config: ExtractConfig,
    on_video: OnVideo,
) -> None:
    """Make the shards one after another, while the next one's videos are being decoded."""
    spec = encoder.spec(batch_size=config.batch_size, max_frames=config.max_frames)
    records = [record for shard in shards for record in shard]
    with decode_ahead(
        records, size=encoder.image_size, max_frames=config.max_frames, decoders=config.decoders
    ) as videos:
        for shard in shards:
            encoded = _encode(islice(videos, len(shard)), encoder, config.batch_size, on_video)
            write_shard(config.cache, spec, encoded)


def _encode(
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


def _on_many_devices(
    shards: Sequence[Sequence[VideoRecord]],
    config: ExtractConfig,
    devices: Sequence[str],
    on_video: OnVideo,
) -> None:
    """Share the shards out to one process a device; the first error ends the others."""
    context = multiprocessing.get_context("spawn")
    messages: SimpleQueue[VideoOutcome | MemfeatError] = context.SimpleQueue()
    workers = [
        context.Process(
            target=_worker,
            args=(shards[index :: len(devices)], config, device, messages),
            name=f"extract on {device}",
            daemon=True,
        )
        for index, device in enumerate(devices)
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers) or not messages.empty():
            if messages.empty():
                time.sleep(0.05)
                continue
            message = messages.get()
            if isinstance(message, MemfeatError):
                raise message
            on_video(message)
        for worker in workers:
            if worker.exitcode:
                raise EncoderError(
                    f"the worker to {worker.name} ended with exit code {worker.exitcode}; finished "
                    "shards are kept, so the same command goes on from there"
                )
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            if worker.pid is not None:
                worker.join()


def _worker(
    shards: Sequence[Sequence[VideoRecord]],
    config: ExtractConfig,
    device: str,
    messages: "SimpleQueue[VideoOutcome | MemfeatError]",
) -> None:
    """Make shards in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends this process
    try:
        _on_one_device(shards, _encoder(config, device), config, messages.put)
    except MemfeatError as error:
        messages.put(error)
