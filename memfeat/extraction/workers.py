"""Shards made on one device, or shared out to a process on each of several."""

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from memfeat.cache import CacheSpec, write_shard
from memfeat.config import ExtractConfig
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.errors import ConfigError, EncoderError, MemfeatError
from memfeat.extraction.decoding import decode_ahead
from memfeat.extraction.encoding import OnVideo, encode_videos
from memfeat.extraction.sampling import Sampling
from memfeat.manifest import VideoRecord
from memfeat.processes import end_with_parent, interrupts_ignored

Shards = Sequence[Sequence[VideoRecord]]


def build_encoder(config: ExtractConfig, device: torch.device) -> FrameEncoder:
    """Build the encoder that `config` names.

    Raises:
        UnknownNameError, EncoderError: see `memfeat.encoders.create_encoder`.
    """
    return create_encoder(
        config.encoder,
        config.weights,
        activation=config.activation,
        tokens=config.tokens,
        precision=config.precision,
        device=str(device),
    )


def build_spec(encoder: FrameEncoder, config: ExtractConfig) -> CacheSpec:
    """Return what a cache of the encoder's embeddings, made as `config` says, records.

    Raises:
        UnknownNameError, ConfigError: the sampler; or one for an encoder of clips.
    """
    sampling = Sampling.parse(config.sampler)
    if encoder.clip_frames > 1 and sampling.name != "every":
        raise ConfigError(
            f"{encoder.name} takes clips of {encoder.clip_frames} consecutive frames, so --sampler "
            f"{sampling} cannot be used with it; leave it out, or choose an encoder of frames"
        )
    return encoder.spec(
        batch_size=config.batch_size, max_frames=config.max_frames, sampling=str(sampling)
    )


def on_one_device(
    shards: Shards,
    encoder: FrameEncoder,
    config: ExtractConfig,
    on_video: OnVideo,
) -> None:
    """Make the shards one after another, while the next one's videos are being decoded."""
    spec, sampling = build_spec(encoder, config), Sampling.parse(config.sampler)
    records = [record for shard in shards for record in shard]
    with decode_ahead(
        records,
        size=encoder.image_size,
        max_frames=config.max_frames,
        sampling=sampling,
        decoders=config.decoders,
    ) as videos:
        for shard in shards:
            encoded = encode_videos(
                islice(videos, len(shard)), encoder, sampling, config.batch_size, on_video
            )
            write_shard(config.cache, spec, encoded)


def on_many_devices(
    shards: Shards, config: ExtractConfig, devices: Sequence[torch.device], on_video: OnVideo
) -> None:
    """Share the shards out to one process a device; the first one to fail ends the others.

    Raises:
        MemfeatError, OSError: what a worker met.
        EncoderError: a worker died; finished shards are kept.
    """
    with _workers(shards, config, devices) as workers:
        while workers:
            ready = wait(list(workers))
            for receiver in [each for each in workers if each in ready]:
                try:
                    message = receiver.recv()
                except EOFError:
                    _check_end(workers.pop(receiver))
                    continue
                if isinstance(message, Exception):
                    raise message
                on_video(message)


@contextmanager
def _workers(
    shards: Shards, config: ExtractConfig, devices: Sequence[torch.device]
) -> Iterator[dict[Connection, SpawnProcess]]:
    """Start a process for each device, each at the far end of a pipe; end them on leaving.

    A pipe closes with either of its two processes, however that one ends, so neither waits for
    the other in vain.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    try:
        with interrupts_ignored():
            for index, device in enumerate(devices):
                receiver, sender = context.Pipe(duplex=False)
                share = shards[index :: len(devices)]
                worker = context.Process(target=_work, args=(share, config, device, sender))
                worker.name = str(device)
                worker.start()
                sender.close()
                workers[receiver] = worker
        yield workers
    finally:
        for receiver, worker in workers.items():
            receiver.close()
            worker.terminate()
            worker.join()


def _check_end(worker: SpawnProcess) -> None:
    worker.join()
    if worker.exitcode:
        killed = worker.exitcode < 0
        how = f"was killed by signal {-worker.exitcode}" if killed else "died"
        raise EncoderError(
            f"the worker on {worker.name} {how}, perhaps for want of memory; finished shards are "
            "kept: run the same command again, with a smaller --batch-size if it dies again"
        )


def _work(shards: Shards, config: ExtractConfig, device: torch.device, sender: Connection) -> None:
    """Make shards in a process of its own, and tell the parent about each video."""
    end_with_parent()
    try:
        on_one_device(shards, build_encoder(config, device), config, sender.send)
    except (BrokenPipeError, ConnectionError):
        return  # the parent is gone: what is finished is in place, the rest is for another run
    except (MemfeatError, OSError) as error:
        sender.send(error)
    except Exception as error:
        sender.send(EncoderError(f"the worker on {device} failed: {type(error).__name__}: {error}"))
