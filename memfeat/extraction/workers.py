"""Shards made on one device, or shared out to a process on each of several."""

import multiprocessing
import signal
import time
from collections.abc import Sequence
from itertools import islice
from multiprocessing.queues import SimpleQueue

import torch

from memfeat.cache import write_shard
from memfeat.config import ExtractConfig
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.errors import EncoderError, MemfeatError
from memfeat.extraction.decoding import decode_ahead
from memfeat.extraction.encoding import OnVideo, VideoOutcome, encode_videos
from memfeat.manifest import VideoRecord

Shards = Sequence[Sequence[VideoRecord]]


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


def build_encoder(config: ExtractConfig, device: str) -> FrameEncoder:
    """Build the encoder that `config` names.

    Raises:
        UnknownNameError, EncoderError: see `memfeat.encoders.create_encoder`.
    """
    return create_encoder(
        config.encoder,
        config.weights,
        activation=config.activation,
        precision=config.precision,
        device=device,
    )


def on_one_device(
    shards: Shards,
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
            encoded = encode_videos(
                islice(videos, len(shard)), encoder, config.batch_size, on_video
            )
            write_shard(config.cache, spec, encoded)


def on_many_devices(
    shards: Shards,
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
    shards: Shards,
    config: ExtractConfig,
    device: str,
    messages: "SimpleQueue[VideoOutcome | MemfeatError]",
) -> None:
    """Make shards in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends this process
    try:
        on_one_device(shards, build_encoder(config, device), config, messages.put)
    except MemfeatError as error:
        messages.put(error)
