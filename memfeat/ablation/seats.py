"""Where the workers of a grid are: how many, on which engine, and what each has of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from memfeat.ablation.grid import Cell
from memfeat.ablation.planning import gpus_of_workers
from memfeat.ablation.tasks import Task
from memfeat.engines import Engine, RayCrew, Share, crew_for, ray_cluster
from memfeat.processes import Crew, Work


@dataclass(frozen=True)
class Seats:
    """Places for workers.

    Attributes:
        engine: theirs.
        gpus: for each the name of the GPU that it shall see, or None for all that it is given.
        share: what each has of a cluster.
    """

    engine: Engine
    gpus: Sequence[str | None]
    share: Share | None = None

    @property
    def here(self) -> bool:
        """Whether all of them are on this machine."""
        return self.engine == "local"

    def crew(self, work: Work[Task], *, alone: bool) -> Crew[Task] | RayCrew[Task]:
        """Return a crew, to be entered, that takes all the places, or one of them `alone`."""
        return crew_for(self.engine, work, self.gpus[:1] if alone else self.gpus, self.share)


@contextmanager
def seats_for(engine: Engine, cells: Sequence[Cell], workers: int) -> Iterator[Seats]:
    """Find places for workers, and keep the cluster that they may be on.

    Args:
        engine: theirs.
        cells: what is to be trained.
        workers: how many; 0 for as many as the machine, or the cluster, is good for.

    Raises:
        ConfigError: as `ray_cluster`.
    """
    if engine == "local":
        yield Seats(engine, gpus_of_workers(cells, workers))
        return
    with ray_cluster() as cluster:
        gpu = any(cell.config.device != "cpu" for cell in cells)
        count, share = cluster.shared(workers, gpu=gpu)
        yield Seats(engine, [None] * count, share)
