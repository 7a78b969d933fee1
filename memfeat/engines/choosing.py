"""The choice between the crews."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from memfeat.engines.ray_cluster import Share
from memfeat.engines.ray_crew import RayCrew
from memfeat.processes import Crew, Work

T = TypeVar("T")
Engine = Literal["local", "ray"]


def crew_for(
    engine: Engine, work: Work[T], arguments: Sequence[Any], share: Share | None = None
) -> Crew[T] | RayCrew[T]:
    """Return a crew, to be entered, that works tasks off on `engine`.

    Args:
        engine: `local` for processes of this machine, `ray` for actors.
        work: as `Crew` takes it.
        arguments: one a worker.
        share: what each actor has of the cluster [one CPU]; processes share the machine freely.

    Raises:
        ConfigError: no Ray, as `ray_cluster` tells.
    """
    if engine == "ray":
        return RayCrew(work, arguments, share or Share())
    return Crew(work, arguments)
