"""The pipeline of one encoder: decoder processes before it, and a writer thread behind it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from memfeat.cache import CacheSpec, Spool, write_shard
from memfeat.config import ExtractConfig
from memfeat.decoding import DecodedVideos, DecodeSettings, Sampling, decode_ahead
from memfeat.devices import cpu_cores
from memfeat.encoders import Encoding, FrameEncoder, create_encoder
from memfeat.errors import ConfigError
from memfeat.extraction.encoding import (
    Batches,
    DecodedRows,
    OnVideo,
    batch_frames,
    from_spool,
    to_float16,
)
from memfeat.extraction.rates import Rates
from memfeat.manifest import VideoRecord
from memfeat.storage import Location, Mirror, scratch_folder

MOST_QUEUED = 4  # jobs of the writer thread
CORES_PER_DECODER = 4  # on a CPU, which the encoder needs too

ShardRecords = Sequence[VideoRecord]
OnRates = Callable[[Rates], None]


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
        compiled=config.compile,
        device=str(device),
    )


def build_spec(encoder: FrameEncoder, config: ExtractConfig) -> CacheSpec:
    """Return what a cache of the encoder's embeddings, made as `config` says, records.

    Raises:
        UnknownNameError, ConfigError: the sampler; or one for an encoder of clips; or what
            `encoder.spec` refuses.
    """
    sampling = Sampling.parse(config.sampler)
    if encoder.clip_frames > 1 and sampling.name != "every":
        raise ConfigError(
            f"{encoder.name} takes clips of {encoder.clip_frames} consecutive frames, so --sampler "
            f"{sampling} cannot be used with it; leave it out, or choose an encoder of frames"
        )
    return encoder.spec(
        batch_size=config.batch_size,
        max_frames=config.max_frames,
        max_seconds=config.max_seconds,
        sampling=str(sampling),
    )


def decoders_beside(device: torch.device, config: ExtractConfig, workers: int) -> int:
    """Return how many decoders each of `workers` encoders on such devices gets, at least one."""
    fitting = cpu_cores() - workers if device.type == "cuda" else cpu_cores() // CORES_PER_DECODER
    return max(1, (config.decoders or fitting) // workers)


def make_shards(
    shards: Iterable[ShardRecords],
    encoder: FrameEncoder,
    config: ExtractConfig,
    *,
    workers: int = 1,
    on_video: OnVideo,
    on_shard: Callable[[], None],
    on_rates: OnRates,
) -> None:
    """Make shards one after another, while the next one's videos are being decoded.

    Args:
        shards: the videos of each.
        encoder: which one.
        config: settings of stage 1.
        workers: encoders that share this machine's CPU cores.
        on_video: called with each video as it is decoded.
        on_shard: called with each shard as it is put in place, in another thread.
        on_rates: called now and then, and at the end.

    Raises:
        CacheError: a shard cannot be written.
        EncoderError, DecoderError: the encoder, or decoding as such, fails.
        VideoError: a video is partial, where the settings say to fail then.
        RemoteError: remote videos cannot be had at all, or a shard cannot be put in place.
    """
    shards = list(shards)
    sampling, spec = Sampling.parse(config.sampler), build_spec(encoder, config)
    records = [record for shard in shards for record in shard]
    with (
        decode_ahead(
            records,
            DecodeSettings(
                size=encoder.image_size,
                sampling=sampling,
                max_frames=config.max_frames,
                max_seconds=config.max_seconds,
                max_pixels=config.max_pixels,
                allow_images=config.allow_images,
            ),
            decoders=decoders_beside(encoder.device, config, workers),
            time_limit=config.time_limit,
        ) as videos,
        _target(config.cache) as target,
        _writer(target, spec, sampling, on_shard) as writer,
    ):
        batches = Batches(encoder, config.batch_size, writer.append)
        counter = _RateCounter(videos, batches, writer)
        for shard in shards:
            done = []
            for video in islice(videos, len(shard)):
                done.append(batch_frames(video, batches, config.on_partial))
                on_video(done[-1].outcome)
                on_rates(counter.read(done[-1].outcome.num_frames))
            batches.flush()
            writer.finish(done)
        writer.drain()
        on_rates(counter.read())


class _RateCounter:
    """Measures the stages of a pipeline."""

    def __init__(self, videos: DecodedVideos, batches: Batches, writer: "_Writer") -> None:
        self._videos, self._batches, self._writer = videos, batches, writer
        self._started = time.perf_counter()
        self._seconds = self._queued = 0.0
        self._decoded = 0

    def read(self, decoded: int = 0) -> Rates:
        """Return the rates so far, after `decoded` more frames."""
        seconds = time.perf_counter() - self._started - self._videos.starting
        self._queued += self._videos.fill * (seconds - self._seconds)
        self._seconds = seconds
        self._decoded += decoded
        return Rates(
            decoded=self._decoded,
            encoded=self._batches.encoded,
            written=self._writer.written,
            seconds=seconds,
            waited_for_frames=self._videos.waited,
            waited_for_copies=self._videos.waited_for_copies,
            waited_for_disk=self._writer.waited,
            queued=self._queued,
            pipelines=1,
        )


class _Writer:
    """Writes rows to shards in a thread, a few batches behind the encoder.

    Attributes:
        written: rows in shards that are in place.
        waited: seconds that its caller had to wait for it.
    """

    def __init__(
        self,
        target: "_Target",
        spec: CacheSpec,
        sampling: Sampling,
        on_shard: Callable[[], None],
        thread: ThreadPoolExecutor,
    ) -> None:
        self.written = 0
        self.waited = 0.0
        self._target, self._spec, self._sampling = target, spec, sampling
        self._on_shard = on_shard
        self._thread = thread
        self._queue: deque[Future[None]] = deque()
        self.spool = Spool(target.folder, spec.width)

    def append(self, encoding: Encoding, filled: int) -> None:
        """Queue the writing of a batch's first `filled` rows to the spool."""
        self._submit(lambda: self.spool.append(to_float16(encoding, filled)))

    def finish(self, videos: Sequence[DecodedRows]) -> None:
        """Queue the writing of a shard from the rows so far."""
        self._submit(lambda: self._finish(videos))

    def drain(self, most: int = 0) -> None:
        """Wait until at most `most` jobs are queued.

        Raises:
            CacheError, EncoderError: what went wrong in the thread.
        """
        started = time.perf_counter()
        while len(self._queue) > most:
            self._queue.popleft().result()
        self.waited += time.perf_counter() - started

    def _submit(self, work: Callable[[], None]) -> None:
        self.drain(MOST_QUEUED - 1)
        self._queue.append(self._thread.submit(work))

    def _finish(self, videos: Sequence[DecodedRows]) -> None:
        with self.spool as spool:
            encoded = from_spool(videos, spool, self._sampling)
            self._target.put(write_shard(self._target.folder, self._spec, encoded))
        self.written += sum(len(video.embeddings) for video in encoded)
        self.spool = Spool(self._target.folder, self._spec.width)
        self._on_shard()


class _Target(NamedTuple):
    """The folder that shards are written into, and what then puts each in place."""

    folder: Path
    put: Callable[[Path], None]


@contextmanager
def _target(cache: Location) -> Iterator[_Target]:
    """Write shards into the cache itself; or, if that is remote, into a folder to upload from."""
    if isinstance(cache, Path):
        yield _Target(cache, lambda _: None)
        return
    with scratch_folder() as folder:
        yield _Target(folder, Mirror(cache).push)


@contextmanager
def _writer(
    target: _Target, spec: CacheSpec, sampling: Sampling, on_shard: Callable[[], None]
) -> Iterator[_Writer]:
    """Start the writer thread; leaving the context stops it and drops queued jobs."""
    with ThreadPoolExecutor(1, thread_name_prefix="write") as thread:
        writer = _Writer(target, spec, sampling, on_shard, thread)
        try:
            yield writer
        finally:
            thread.shutdown(cancel_futures=True)
            with writer.spool:
                pass
