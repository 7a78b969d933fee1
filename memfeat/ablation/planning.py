"""How a grid's work is cut up and shared out: by caches, into stacks, over workers."""

import math
import os
from collections.abc import Iterable, Sequence

import torch

from memfeat.ablation.grid import Cell
from memfeat.config import TrainConfig
from memfeat.devices import cpu_cores, resolve_devices
from memfeat.models import AGGREGATORS
from memfeat.storage import Location
from memfeat.training import MOST_STACKED, stacks


def weight(config: TrainConfig) -> int:
    """Return how long one seed may take, an epoch of the average taking 1.

    A baseline counts as an average.
    """
    return sum(AGGREGATORS.get(name).cost for name in config.aggregator) * config.max_epochs


def by_caches(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Group the cells that learn from the same data, the group with the costliest cell first.

    Groups are taken one after another, so small ones are left to fill the gaps at the end.
    """
    groups: dict[tuple[Location, tuple[Location, ...]], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.config.manifest, cell.config.cache), []).append(cell)
    return sorted(groups.values(), key=lambda group: -max(weight(c.config) for c in group))


def balanced_stacks(configs: Sequence[TrainConfig], workers: int) -> list[tuple[TrainConfig, ...]]:
    """Group runs of one seed into stacks that keep all workers at work for equally long.

    Of the runs that can be trained together each worker gets one stack, or two, or however many
    it takes to stay within `MOST_STACKED`; of few runs, some get none.
    """
    balanced = []
    for together in stacks(configs, most=max(1, len(configs))):
        rounds = math.ceil(len(together) / (workers * MOST_STACKED))
        most = math.ceil(len(together) / (workers * rounds))
        balanced += stacks(together, most)
    return balanced


def gpus_of_workers(cells: Iterable[Cell], workers: int) -> list[str | None]:
    """Return for each worker the name of the GPU that it shall see, or None for all there are.

    Args:
        cells: what is to be trained.
        workers: how many; 0 for one a CPU core, or one a GPU where a GPU trains.
    """
    wanted = {cell.config.device for cell in cells}
    if wanted <= {"cpu"} or not torch.cuda.is_available():
        return [None] * (workers or cpu_cores())
    count = len(resolve_devices("auto"))
    if count == 1 or not wanted <= {"auto", "cpu"}:  # a cell that names its GPU must see it
        return [None] * (workers or 1)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    names = visible.split(",")
    return [names[i % count] for i in range(workers or count)]
