"""The jobs of a grid: one model each, run in a worker process on features that all share."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from memfeat.cache import Cache, CacheSpec, SharedTable, shared_table
from memfeat.config import Missing, TrainConfig
from memfeat.errors import MemfeatError
from memfeat.manifest import Manifest, VideoRecord, read_manifest
from memfeat.storage import Location
from memfeat.training import Examples, finish, require_trainable, select_records, train_seed
from memfeat.training.baselines import run_baseline
from memfeat.workers import Send


@dataclass(frozen=True)
class JobData:
    """Features joined with a manifest's records, already checked and hashed.

    Attributes:
        tables: of each cache; two of these are equal if their tables are the same.
        records: the videos, those without features included.
        facts: `Examples.facts`.
    """

    tables: tuple[SharedTable, ...]
    records: tuple[VideoRecord, ...] = field(compare=False)
    facts: Mapping[str, Any] = field(compare=False)

    @property
    def specs(self) -> tuple[CacheSpec, ...]:
        """What made each cache's features."""
        return tuple(table.spec for table in self.tables)


Source = tuple[Location, Location, Missing]  # a manifest, a cache, and what has no text there


class _Shared(NamedTuple):
    """A shared table, and what removes it."""

    table: SharedTable
    exits: ExitStack


class SharedFeatures:
    """Tables in memory-mapped files of `folder`; leaving the context removes them.

    With `on_disk` they are written to disk at once, for workers on other machines.
    """

    def __init__(self, folder: Path, *, on_disk: bool) -> None:
        self._folder, self._on_disk = folder, on_disk
        self._shared: dict[Source, _Shared] = {}

    def __enter__(self) -> "SharedFeatures":
        return self

    def __exit__(self, *_: object) -> None:
        for shared in self._shared.values():
            shared.exits.close()

    def load(self, config: TrainConfig) -> JobData:
        """Share the tables of a run's caches, and join them with its manifest's records.

        Raises:
            MemfeatError, OSError: manifest or cache cannot be read, or cannot be trained on.
        """
        manifest = read_manifest(config.manifest)
        caches = [Cache.open(folder, missing=config.missing) for folder in config.cache]
        select_records(manifest, *caches)  # refuses videos that were never extracted
        tables = tuple(self._table(manifest, cache, config.missing) for cache in caches)
        examples = Examples.join([table.open() for table in tables], manifest.records)
        require_trainable(examples, config)
        return JobData(tables, manifest.records, examples.facts)

    def _table(self, manifest: Manifest, cache: Cache, missing: Missing) -> SharedTable:
        source = manifest.path, cache.folder, missing
        if source not in self._shared:
            usable = set(cache.usable())
            ids = [r.video_id for r in manifest.records if r.video_id in usable]
            cache.require_whole(ids)
            with ExitStack() as stack:
                table = stack.enter_context(shared_table(cache, ids, self._folder))
                if self._on_disk:
                    table.write_back()
                self._shared[source] = _Shared(table, stack.pop_all())
        return self._shared[source].table

    def remove_unused(self, data: Iterable[JobData], configs: Iterable[TrainConfig]) -> None:
        """Remove the tables that are part of no `data`, and that no run of `configs` will load."""
        needed = {table for each in data for table in each.tables}
        coming = {(own.manifest, cache, own.missing) for own in configs for cache in own.cache}
        for source, (table, exits) in list(self._shared.items()):
            if table not in needed and source not in coming:
                exits.close()
                del self._shared[source]


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
    if "," in job.config.device:  # of which the process sees one
        job = replace(job, config=job.config.model_copy(update={"device": "cuda"}))
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
        run_baseline(_examples(job.data), job.config)
    else:
        train_seed(_examples(job.data), job.config, on_epoch=send)


@lru_cache(maxsize=1)
def _examples(data: JobData) -> Examples:
    """Map the tables once for consecutive jobs on the same data."""
    tables = [table.open() for table in data.tables]
    return Examples.join(tables, data.records, data.facts)
