"""The jobs of a grid: one model each, run in a worker process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch

from memfeat.cache import CacheSpec, SharedTable
from memfeat.config import TrainConfig
from memfeat.errors import MemfeatError
from memfeat.manifest import VideoRecord
from memfeat.training import Examples, finish, train_seed
from memfeat.training.baselines import run_baseline
from memfeat.workers import Send


@dataclass(frozen=True)
class JobData:
    """Features joined with a manifest's records, already checked and hashed.

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
class Job:
    """Work for one worker.

    Attributes:
        kind: `seed` trains one model, `baseline` fits one, `summary` averages the seeds of a run,
            all of which are finished.
        cell: name of the cell that it belongs to.
        config: settings of the run; of one seed, except for a summary.
        data: what is learned from.
    """

    kind: Literal["seed", "baseline", "summary"]
    cell: str
    config: TrainConfig
    data: JobData


class Result(NamedTuple):
    """The last message of a job: what went wrong, or None."""

    error: str | None


def run_job(job: Job, gpu: str | None, send: Send) -> None:
    """Run a job in a worker process.

    Args:
        job: what to do.
        gpu: the only GPU that this process may see; None for all there are.
        send: gets an `EpochReport` after each epoch, and at last a `Result`.
    """
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first needed
    torch.set_num_threads(1)
    error = None
    try:
        _run(job, send)
    except (MemfeatError, OSError) as raised:
        error = str(raised)
    except Exception as raised:
        # A bug in one model must not cost the others theirs.
        error = f"{type(raised).__name__}: {raised}"
    send(Result(error))


def _run(job: Job, send: Send) -> None:
    if job.kind == "summary":
        finish(job.config, job.data.specs, job.data.facts)
    elif job.kind == "baseline":
        run_baseline(job.config.head, _examples(job.data), job.config)
    else:
        train_seed(_examples(job.data), job.config, on_epoch=send)


@lru_cache(maxsize=1)
def _examples(data: JobData) -> Examples:
    """Map the tables once for consecutive jobs on the same data."""
    tables = [table.open() for table in data.tables]
    return Examples.trusted(tables, data.records, data.facts)
