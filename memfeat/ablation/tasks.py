"""What a worker process of a grid is given to do, and what it says about it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch

from memfeat.baselines import run_baseline
from memfeat.cache import CacheSpec, SharedTable
from memfeat.config import TrainConfig
from memfeat.errors import MemfeatError
from memfeat.manifest import VideoRecord
from memfeat.processes import Send
from memfeat.training import EpochReport, Examples, finish, train_stack


@dataclass(frozen=True)
class Data:
    """Features joined with a manifest's records, checked and hashed already.

    Attributes:
        tables: of each cache; two of these are equal if their tables are the same.
        records: the videos.
        facts: `Examples.facts`.
    """

    tables: tuple[SharedTable, ...]
    records: tuple[VideoRecord, ...] = field(compare=False)
    facts: Mapping[str, Any] = field(compare=False)

    @property
    def specs(self) -> tuple[CacheSpec, ...]:
        """What made each cache's features."""
        return tuple(table.spec for table in self.tables)


@dataclass(frozen=True, eq=False)
class Task:
    """Work for one process.

    Attributes:
        kind: `stack` trains runs of one seed together, `baseline` fits one, `summary` sums up the
            seeds of a run, all of them finished.
        configs: of the runs; one, but for a stack.
        data: what they learn from.
    """

    kind: Literal["stack", "baseline", "summary"]
    configs: tuple[TrainConfig, ...]
    data: Data


class Epoch(NamedTuple):
    """A run of a stack, by its number there, has one more epoch behind it."""

    number: int
    report: EpochReport


class Finished(NamedTuple):
    """A run of a stack is complete."""

    number: int


class Outcome(NamedTuple):
    """The task is over; for each of its runs what went wrong, or None."""

    errors: tuple[str | None, ...]


class Broken(NamedTuple):
    """The task as a whole went wrong; which of its runs is to blame is not known."""

    error: str


Message = Epoch | Finished | Outcome | Broken


def work(task: Task, gpu: str | None, send: Send) -> None:
    """Do a task in a process of its own, and send what became of it.

    Args:
        task: what to do.
        gpu: the one GPU that this process shall see; None for all there are.
        send: gets `Epoch` and `Finished`, and at last an `Outcome` or `Broken`.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # CUDA looks when it is first needed
    torch.set_num_threads(1)
    try:
        send(Outcome(_do(task, send)))
    except (MemfeatError, OSError) as error:
        send(Broken(str(error)))
    except Exception as error:
        # A bug in one cell must not cost the others theirs.
        send(Broken(f"{type(error).__name__}: {error}"))


def _do(task: Task, send: Send) -> tuple[str | None, ...]:
    config, data = task.configs[0], task.data
    if task.kind == "summary":
        finish(config, data.specs, data.facts)
    elif task.kind == "baseline":
        run_baseline(config.head, _examples(data), config)
    else:
        errors = train_stack(
            _examples(data),
            task.configs,
            on_epoch=lambda number, report: send(Epoch(number, report)),
            on_done=lambda number: send(Finished(number)),
        )
        return tuple(None if error is None else str(error) for error in errors)
    return (None,)


@lru_cache(maxsize=1)
def _examples(data: Data) -> Examples:
    """Map tables once for all tasks that come of them in a row."""
    tables = [table.open() for table in data.tables]
    return Examples.trusted(tables, data.records, data.facts)
