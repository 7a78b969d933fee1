"""The pipeline of one encoder: decoder processes before it, and a writer thread behind it."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import (
    CacheSpec,
    EncodedVideo,
    Rows,
    ShardTarget,
    Spool,
    SpooledRows,
    VideoEntry,
    shard_target,
    write_shard,
)
from memfeat.config import ExtractConfig, OnPartial
from memfeat.decoding import (
    DecodedFrames,
    DecodedVideo,
    DecodedVideos,
    DecodeSettings,
    Sampling,
    decode_ahead,
)
from memfeat.devices import cpu_cores
from memfeat.encoders import Encoding, FrameEncoder, create_encoder
from memfeat.errors import ConfigError
from memfeat.extraction.encoding import (
    Batches,
    DecodedRows,
    EncoderInputs,
    OnVideo,
    Sink,
    VideoOutcome,
    deliver,
)
from memfeat.extraction.rates import Rates
from memfeat.manifest import VideoRecord

MOST_BYTES = 16 << 20  # of rows that the encoder is ahead of the disk, and again of shards
CORES_PER_DECODER = 4  # on a CPU, which the encoder needs too
MOST_DECODERS = 16  # for one encoder, unless the settings say so
RATES_SECONDS = 0.25  # between two reports of them

ShardRecords = Sequence[VideoRecord]
OnRates = Callable[[Rates], None]
R = TypeVar("R", bound=Rows)


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
        layer=config.layer,
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
        resize=config.resize,
        fps=config.fps,
    )


def decoders_beside(device: torch.device, config: ExtractConfig, workers: int) -> int:
    """Return how many decoders each of `workers` encoders on such devices gets, at least one."""
    if config.decoders:
        return max(1, config.decoders // workers)
    return usual_decoders(device, workers)


def usual_decoders(device: torch.device, workers: int = 1) -> int:
    """Return how many decoders suit each of `workers` encoders on such devices, at least one."""
    fitting = cpu_cores() - workers if device.type == "cuda" else cpu_cores() // CORES_PER_DECODER
    return min(max(1, fitting // workers), MOST_DECODERS)


def make_shards(
    shards: Iterable[ShardRecords],
    encoder: FrameEncoder,
    config: ExtractConfig,
    *,
    earlier: Mapping[str, VideoEntry],
    workers: int = 1,
    on_video: OnVideo,
    on_shard: Callable[[int], None],
    on_rates: OnRates,
) -> None:
    """Make shards: each is written when its own videos are complete, whichever others are not.

    Args:
        shards: the videos of each.
        encoder: which one.
        config: settings of stage 1.
        earlier: what the cache says of those videos that are tried again, by id.
        workers: encoders that share this machine's CPU cores.
        on_video: called with each video as it is decoded.
        on_shard: called with the place in `shards` of each that is now in the cache, in another
            thread.
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
    place_of = [(at, place) for at, shard in enumerate(shards) for place in range(len(shard))]
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
                crop=config.resize == "crop",
                fps=config.fps,
            ),
            decoders=decoders_beside(encoder.device, config, workers),
            time_limit=config.time_limit,
        ) as videos,
        shard_target(config.cache) as target,
        _writer(target, spec, sampling, earlier, on_shard) as writer,
    ):
        batches = Batches(encoder, config.batch_size, writer.append)
        counter = _RateCounter(videos, batches, writer, on_rates)
        unfinished: dict[int, _OpenShard] = {}
        decoded: deque[_OpenShard] = deque()
        for event in videos:
            at, place = place_of[event.number]
            if at not in unfinished:
                unfinished[at] = writer.open(at, len(shards[at]), batches)
            shard = unfinished[at]
            if isinstance(event, DecodedFrames):
                shard.inputs[place].add(event)
                counter.count(len(event.pts_seconds))
            else:
                outcome = shard.end(place, event, config.on_partial)
                on_video(outcome)
                counter.count(outcome.num_frames - len(event.result.covers))
                if shard.is_decoded:
                    decoded.append(unfinished.pop(at))
            while decoded and decoded[0].last_row <= batches.encoded:
                writer.finish(decoded.popleft())
        batches.flush()
        for shard in decoded:
            writer.finish(shard)
        writer.drain()
        counter.report()


class _OpenShard:
    """A shard whose videos are being decoded and encoded.

    Attributes:
        at: its place in the list of shards.
        inputs: of each video.
        last_row: how many rows were given to the encoder when its last video ended.
    """

    def __init__(self, at: int, videos: int, spool: Spool, batches: Batches) -> None:
        self.at = at
        self.spool = spool
        self.last_row = 0
        self._batches = batches
        self._rows: list[list[NDArray[np.int64]]] = [[] for _ in range(videos)]
        self._decoded: dict[int, DecodedRows] = {}
        self.inputs = [EncoderInputs(batches, partial(self._append, rows)) for rows in self._rows]

    def _append(self, rows: list[NDArray[np.int64]], embeddings: NDArray[np.float16]) -> None:
        """Spool a video's next embeddings, and note in `rows` where they are."""
        first = self.spool.num_rows
        self.spool.append(embeddings)
        rows.append(np.arange(first, self.spool.num_rows))

    def end(self, place: int, video: DecodedVideo, on_partial: OnPartial) -> VideoOutcome:
        """End the video at a place of the shard."""
        decoded = self.inputs[place].end(video, on_partial)
        self._decoded[place] = decoded
        self.last_row = self._batches.added
        return decoded.outcome

    @property
    def num_rows(self) -> int:
        """How many rows its videos have."""
        return sum(len(video.pts_seconds) for video in self._decoded.values())

    @property
    def is_decoded(self) -> bool:
        """Whether all of its videos have ended."""
        return len(self._decoded) == len(self.inputs)

    def encoded(self, sampling: Sampling) -> list[EncodedVideo[Rows]]:
        """Return the videos with their embeddings, which are all in the spool."""
        videos: list[EncodedVideo[Rows]] = []
        for place, rows in enumerate(self._rows):
            every = SpooledRows(self.spool, np.concatenate([np.empty(0, np.int64), *rows]))
            kept, video = self._decoded[place].with_rows(every, sampling)
            videos.append(video.encoded(every.where(kept)))
        return videos


class _RateCounter:
    """Measures the stages of a pipeline."""

    def __init__(
        self, videos: DecodedVideos, batches: Batches, writer: "_Writer", on_rates: OnRates
    ) -> None:
        self._videos, self._batches, self._writer = videos, batches, writer
        self._on_rates = on_rates
        self._started = time.perf_counter()
        self._seconds = self._queued = self._reported = 0.0
        self._decoded = 0

    def count(self, decoded: int) -> None:
        """Count frames that were decoded, and report the rates now and then."""
        self._decoded += decoded
        seconds = time.perf_counter() - self._started - self._videos.starting
        self._queued += self._videos.fill * (seconds - self._seconds)
        self._seconds = seconds
        if seconds - self._reported > RATES_SECONDS:
            self.report()

    def report(self) -> None:
        """Report the rates so far."""
        self._reported = self._seconds
        self._on_rates(
            Rates(
                decoded=self._decoded,
                encoded=self._batches.encoded,
                written=self._writer.written,
                seconds=time.perf_counter() - self._started - self._videos.starting,
                waited_for_frames=self._videos.waited,
                waited_for_copies=self._videos.waited_for_copies,
                waited_for_disk=self._writer.waited,
                queued=self._queued,
                pipelines=1,
            )
        )


class _Queue:
    """A thread that does one job after another, and what waits for it, bounded in bytes."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._jobs: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    def submit(self, num_bytes: int, work: Callable[[], None]) -> Future[None]:
        """Queue a job, once there is room for its bytes.

        Raises:
            CacheError, EncoderError: what went wrong in an earlier job.
        """
        while self._jobs and (
            self._bytes + num_bytes > MOST_BYTES or self._jobs[0][0].done()  # perhaps an error
        ):
            self._wait()
        self._bytes += num_bytes
        future = self._thread.submit(work)
        self._jobs.append((future, num_bytes))
        return future

    def drain(self) -> None:
        """Wait until nothing is queued; a shard of videos that all failed has no bytes."""
        while self._jobs:
            self._wait()

    def _wait(self) -> None:
        future, freed = self._jobs.popleft()
        self._bytes -= freed
        future.result()


class _Writer:
    """Writes rows to spools in one thread, and shards from those in another.

    So neither a slow disk nor a slow bucket stops the encoder before much is queued.

    Attributes:
        written: rows in shards that are in place.
        waited: seconds that its caller had to wait for it.
    """

    def __init__(
        self,
        target: ShardTarget,
        spec: CacheSpec,
        sampling: Sampling,
        on_shard: Callable[[int], None],
        threads: tuple[ThreadPoolExecutor, ThreadPoolExecutor],
        *,
        earlier: Mapping[str, VideoEntry],
    ) -> None:
        self.written = 0
        self.waited = 0.0
        self.spools: set[Spool] = set()
        self._target, self._spec, self._sampling, self._earlier = target, spec, sampling, earlier
        self._on_shard = on_shard
        self._rows, self._shards = map(_Queue, threads)
        self._last_rows: Future[None] | None = None

    def open(self, at: int, videos: int, batches: Batches) -> _OpenShard:
        """Return a shard of so many videos, to be filled."""
        spool = Spool(self._target.folder, self._spec.width)
        self.spools.add(spool)
        return _OpenShard(at, videos, spool, batches)

    def append(self, encoding: Encoding, parts: Sequence[tuple[Sink, int]]) -> None:
        """Queue the writing of a batch's rows to the spools of their shards."""
        num_bytes = 4 * self._spec.width * sum(count for _, count in parts)
        started = time.perf_counter()
        self._last_rows = self._rows.submit(num_bytes, lambda: deliver(encoding, parts))
        self.waited += time.perf_counter() - started

    def finish(self, shard: _OpenShard) -> None:
        """Queue the writing of a shard, after the rows that were queued before."""
        rows = self._last_rows
        started = time.perf_counter()
        num_bytes = 2 * self._spec.width * shard.num_rows
        self._shards.submit(num_bytes, lambda: self._finish(shard, rows))
        self.waited += time.perf_counter() - started

    def drain(self) -> None:
        """Wait until all is written.

        Raises:
            CacheError, EncoderError: what went wrong in a thread.
        """
        started = time.perf_counter()
        self._rows.drain()
        self._shards.drain()
        self.waited += time.perf_counter() - started

    def _finish(self, shard: _OpenShard, rows: Future[None] | None) -> None:
        if rows is not None:
            rows.result()
        with closing(shard.spool):
            videos = shard.encoded(self._sampling)
            new = list(numbered(videos, self._earlier))
            if new:
                self._target.put(write_shard(self._target.folder, self._spec, new))
        self.spools.remove(shard.spool)
        self.written += sum(len(video.embeddings) for video in videos)
        self._on_shard(shard.at)


def numbered(
    videos: Iterable[EncodedVideo[R]], earlier: Mapping[str, VideoEntry]
) -> Iterator[EncodedVideo[R]]:
    """Count the attempts of videos that were tried again; leave out what came out as before."""
    for video in videos:
        known = earlier.get(video.video_id)
        if known is None:
            yield video
        elif not known.repeats(video):
            yield replace(video, attempt=known.attempt + 1)


@contextmanager
def _writer(
    target: ShardTarget,
    spec: CacheSpec,
    sampling: Sampling,
    earlier: Mapping[str, VideoEntry],
    on_shard: Callable[[int], None],
) -> Iterator[_Writer]:
    """Start the writer's threads; leaving the context stops them and drops queued jobs."""
    rows = ThreadPoolExecutor(1, thread_name_prefix="rows")
    shards = ThreadPoolExecutor(1, thread_name_prefix="shards")
    writer = _Writer(target, spec, sampling, on_shard, (rows, shards), earlier=earlier)
    try:
        yield writer
    finally:
        for thread in (rows, shards):
            thread.shutdown(cancel_futures=True)
        for spool in writer.spools:
            spool.close()
