"""Where the encoders of stage 1 run: on devices of this machine, or on those of a Ray cluster."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from memfeat.config import ExtractConfig
from memfeat.devices import CPU, resolve_devices
from memfeat.engines import Cluster, Share, ray_cluster


class Station(NamedTuple):
    """Where a worker is: its device, and how many workers share that machine's decoders."""

    device: str
    workers: int


@dataclass(frozen=True)
class Places:
    """Where the work is done.

    Attributes:
        config: how; its precision is the one that the workers' devices take.
        device: on which an encoder is built here, at least to tell what the cache records.
        stations: one a worker.
        share: what each worker has of a cluster; None on this machine.
    """

    config: ExtractConfig
    device: torch.device
    stations: tuple[Station, ...]
    share: Share | None = None

    @property
    def alone(self) -> bool:
        """Whether this process does the work itself."""
        return self.share is None and len(self.stations) == 1


@contextmanager
def places_for(config: ExtractConfig) -> Iterator[Places]:
    """Find places, and keep the cluster that they may be on.

    Raises:
        ConfigError: no such device, or no Ray; see `memfeat.engines.ray_cluster`.
    """
    if config.engine == "local":
        devices = resolve_devices(config.device)
        stations = tuple(Station(str(device), len(devices)) for device in devices)
        yield Places(config, devices[0], stations)
        return
    with ray_cluster() as cluster:
        yield _of_cluster(config, cluster)


def _of_cluster(config: ExtractConfig, cluster: Cluster) -> Places:
    """Take a worker for each GPU, for each machine if there is none, or as many as are listed."""
    listed = config.device.split(",")
    gpu = config.device == "auto" or listed[0].startswith("cuda")
    machines = len(cluster.machines)
    wanted = len(listed) if len(listed) > 1 else 0
    if not (gpu and cluster.gpus):
        wanted = wanted or machines  # on a CPU one encoder takes all cores
    count, share = cluster.shared(wanted, gpu=gpu)
    # Its decoders need cores too, which Ray would otherwise give to others.
    share = share._replace(cpus=max(share.cpus, cluster.cpus // count))
    device = "cuda:0" if share.gpus else "cpu"  # of the only GPU that Ray lets a worker see
    if config.precision == "auto" and share.gpus:
        config = config.model_copy(update={"precision": "bfloat16"})
    stations = (Station(device, math.ceil(count / machines)),) * count
    return Places(config, CPU, stations, share)
