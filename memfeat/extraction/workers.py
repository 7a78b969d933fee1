"""Extraction by several workers: which devices they get, and a queue of shards with retries."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from memfeat.cache import VideoEntry
from memfeat.config import ExtractConfig
from memfeat.devices import CPU, device_names, resolve_devices
from memfeat.encoders import FrameEncoder
from memfeat.errors import EncoderError, MemfeatError
from memfeat.extraction.encoding import OnVideo
from memfeat.extraction.pipeline import OnRates, ShardRecords, build_encoder, make_shards
from memfeat.extraction.rates import Rates
from memfeat.storage import remove_stale_parts
from memfeat.workers import Cluster, Message, Resources, Send, ray_cluster, worker_pool

MOST_TRIES = 2  # of a shard
MOST_SHARDS = 8  # of a job, so that a worker's decoders run ahead from one shard to the next

Job = tuple[tuple[int, ShardRecords], ...]  # numbered shards


class Slot(NamedTuple):
    """A worker's device, and how many workers share the CPU cores of its machine."""

    device: str
    workers: int


@dataclass(frozen=True)
class Placement:
    """Where the encoders run.

    Attributes:
        config: the settings, with the precision that the workers' devices take.
        device: of the encoder that this process builds, at least for the cache's spec.
        slots: one a worker.
        resources: of each worker on a Ray cluster; None on this machine.
    """

    config: ExtractConfig
    device: torch.device
    slots: tuple[Slot, ...]
    resources: Resources | None = None

    @property
    def devices(self) -> list[str]:
        """The workers' devices in words."""
        if self.resources is not None:
            return [f"{len(self.slots)} Ray workers, each on {self.slots[0].device}"]
        return device_names(torch.device(slot.device) for slot in self.slots)

    @property
    def in_process(self) -> bool:
        """Whether this process does the work itself."""
        return self.resources is None and len(self.slots) == 1


@contextmanager
def placement(config: ExtractConfig) -> Iterator[Placement]:
    """Find out where the encoders run; with the engine `ray`, stay connected to the cluster.

    Raises:
        ConfigError: no such device, or no Ray; see `memfeat.workers.ray_cluster`.
    """
    if config.engine == "local":
        devices = resolve_devices(config.device)
        slots = tuple(Slot(str(device), len(devices)) for device in devices)
        on_gpus = devices[0].type == "cuda"
        if len(slots) > 1 and on_gpus and config.precision == "auto":
            config = config.model_copy(update={"precision": "half"})
        # With several workers, this process needs an encoder for the cache's spec alone.
        yield Placement(config, devices[0] if len(slots) == 1 else CPU, slots)
        return
    with ray_cluster() as cluster:
        yield _on_cluster(config, cluster)


def _on_cluster(config: ExtractConfig, cluster: Cluster) -> Placement:
    """Plan a worker for each GPU, for each machine if there is none, or as many as are listed."""
    listed = config.device.split(",")
    gpu = config.device == "auto" or listed[0].startswith("cuda")
    machines = len(cluster.machines)
    wanted = len(listed) if len(listed) > 1 else 0
    if not (gpu and cluster.gpus):
        wanted = wanted or machines  # on a CPU one encoder uses all cores
    count, resources = cluster.divide(wanted, gpu=gpu)
    # Its decoders need cores too, which Ray would otherwise give to others.
    cpus = cluster.cpus_each(count, gpu=bool(resources.gpus))
    resources = resources._replace(cpus=max(resources.cpus, cpus))
    device = "cuda:0" if resources.gpus else "cpu"  # the only GPU that Ray lets a worker see
    if config.precision == "auto" and resources.gpus:
        config = config.model_copy(update={"precision": "half"})
    slots = (Slot(device, math.ceil(count / machines)),) * count
    return Placement(config, CPU, slots, resources)


def extract_in_pool(
    shards: Sequence[ShardRecords],
    where: Placement,
    *,
    earlier: Mapping[str, VideoEntry],
    on_video: OnVideo,
    on_rates: OnRates,
) -> None:
    """Make shards in a worker pool; a worker that dies costs the shard that it was making.

    Raises:
        MemfeatError, OSError: an error of a worker.
        EncoderError: workers died twice at the same shard; finished shards are kept.
    """
    queue = _Queue(shards, len(where.slots), on_video, on_rates)
    slots = [(where.config, slot, earlier) for slot in where.slots]
    try:
        with worker_pool(where.config.engine, run_job, slots, where.resources) as pool:
            for job, event in pool.run(queue.next_job):
                if isinstance(event, Message):
                    queue.receive(job, event.content)
                elif event.exit_code is not None:
                    queue.retry(job, event.exit_code)
    finally:
        if isinstance(where.config.cache, Path):  # of workers that were ended as they wrote
            remove_stale_parts(where.config.cache)


class _Queue:
    """The shards that are still to be made, and the progress of those being made."""

    def __init__(
        self, shards: Sequence[ShardRecords], workers: int, on_video: OnVideo, on_rates: OnRates
    ) -> None:
        self._workers = workers
        self._pending = deque(enumerate(shards))
        self._unfinished = {number for number, _ in self._pending}
        self._on_video, self._on_rates = on_video, on_rates
        self._deaths: Counter[int] = Counter()
        self._reported: set[str] = set()
        self._rates: dict[int, Rates] = {}

    def next_job(self) -> Job | None:
        """Take several shards while there are many, and single ones towards the end."""
        count = min(MOST_SHARDS, max(1, len(self._pending) // (2 * self._workers)))
        count = min(count, len(self._pending))
        return tuple(self._pending.popleft() for _ in range(count)) or None

    def receive(self, job: Job, content: Any) -> None:
        """Handle a worker's message; an error that it met is raised."""
        if isinstance(content, Exception):
            raise content
        if isinstance(content, int):  # the number of a shard that is in place
            self._unfinished.discard(content)
        elif isinstance(content, Rates):
            self._rates[job[0][0]] = content
            total = sum(self._rates.values(), Rates())
            # A worker's jobs follow each other; only workers run side by side.
            self._on_rates(replace(total, pipelines=min(total.pipelines, self._workers)))
        elif content.video_id not in self._reported:  # a shard may be made twice
            self._reported.add(content.video_id)
            self._on_video(content)

    def retry(self, job: Job, exit_code: int) -> None:
        """Queue again what a dead worker left unfinished.

        Raises:
            EncoderError: it was not the first to die at a shard.
        """
        again = [shard for shard in job if shard[0] in self._unfinished]
        self._pending.extendleft(reversed(again))
        if not again:
            return
        number = again[0][0]  # the one that it was at for longest
        self._deaths[number] += 1
        if self._deaths[number] == MOST_TRIES:
            killed = exit_code < 0
            how = f"killed by signal {-exit_code}" if killed else f"ended by exit code {exit_code}"
            raise EncoderError(
                f"the workers that made one shard were {how}, {MOST_TRIES} times over, perhaps for "
                "want of memory; finished shards are kept: run the same command again, with a "
                "smaller --batch-size if they die again"
            )


@lru_cache(maxsize=1)
def _encoder(config: ExtractConfig, device: str) -> FrameEncoder:
    return build_encoder(config, torch.device(device))


def run_job(
    job: Job, slot: tuple[ExtractConfig, Slot, Mapping[str, VideoEntry]], send: Send
) -> None:
    """Make shards in a worker; send each video, the number of each finished shard, and rates."""
    config, (device, workers), earlier = slot
    try:
        make_shards(
            [records for _, records in job],
            _encoder(config, device),
            config,
            earlier=earlier,
            workers=workers,
            on_video=send,
            on_shard=lambda at: send(job[at][0]),
            on_rates=send,
        )
    except (MemfeatError, OSError) as error:
        send(error)
    except Exception as error:
        send(EncoderError(f"the worker on {device} failed: {type(error).__name__}: {error}"))
