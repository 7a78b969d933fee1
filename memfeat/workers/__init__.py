"""Worker pools: processes of this machine, or actors of a Ray cluster."""

from collections.abc import Sequence
from typing import Any, Literal

from memfeat.workers.pool import Event, J, JobEnded, LocalPool, Message, Send, Work, WorkerPool
from memfeat.workers.processes import prepare_workers, start_worker
from memfeat.workers.ray_cluster import Cluster, Resources, ray_cluster
from memfeat.workers.ray_pool import RayPool

__all__ = [
    "Cluster",
    "Engine",
    "Event",
    "JobEnded",
    "LocalPool",
    "Message",
    "RayPool",
    "Resources",
    "Send",
    "Work",
    "WorkerPool",
    "prepare_workers",
    "ray_cluster",
    "start_worker",
    "worker_pool",
]

Engine = Literal["local", "ray"]


def worker_pool(
    engine: Engine, work: Work[J], slots: Sequence[Any], resources: Resources | None = None
) -> WorkerPool[J]:
    """Return a worker pool, to be entered.

    Args:
        engine: `local` for processes of this machine, `ray` for actors.
        work: as for `LocalPool`.
        slots: one a worker.
        resources: what Ray reserves for each actor [one CPU]; processes share the machine freely.
    """
    if engine == "ray":
        return RayPool(work, slots, resources or Resources())
    return LocalPool(work, slots)
