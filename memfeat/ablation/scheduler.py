"""Training a grid's models in parallel: a queue of jobs, longest first, over a worker pool."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from memfeat.ablation.grid import Cell
from memfeat.ablation.jobs import Job, JobData, Result, SharedFeatures, run_job
from memfeat.ablation.progress import OnProgress, ProgressCounter, cost, model_folders
from memfeat.devices import cpu_cores, resolve_devices
from memfeat.errors import MemfeatError
from memfeat.storage import Location
from memfeat.training import finish, resolve_options, training_device, unfinished
from memfeat.training.baselines import baseline_is_there
from memfeat.workers import Engine, Event, Message, Resources, WorkerPool, ray_cluster, worker_pool

DIED = (
    "its process died, perhaps for want of memory; run the same command again, with fewer "
    "--workers if it dies again"
)


def train_cells(
    cells: Sequence[Cell],
    folder: Path,
    workers: int,
    *,
    engine: Engine = "local",
    on_progress: OnProgress | None = None,
) -> dict[str, str]:
    """Train every cell that is not finished yet, in parallel; return the errors by cell.

    The caches exist; tables that workers share are kept in `folder` meanwhile. 0 `workers` are
    one process a CPU core, or one a GPU where GPUs train.

    Raises:
        ConfigError: no Ray, where that is the engine.
    """
    progress = ProgressCounter(cells, on_progress or (lambda _: None))
    with (
        _slots(engine, cells, workers) as slots,
        SharedFeatures(folder, on_disk=engine != "local") as features,
    ):
        return _Scheduler(cells, features, slots, progress).run()


@dataclass(frozen=True)
class _Slots:
    """The workers of a grid.

    Attributes:
        engine: where they are.
        gpus: for each the only GPU that it may see, or None for all that it is given.
        resources: of each on a Ray cluster.
    """

    engine: Engine
    gpus: Sequence[str | None]
    resources: Resources | None = None

    def pool(self, *, single: bool) -> WorkerPool[Job]:
        """Return a pool of all workers, or of a `single` one."""
        return worker_pool(
            self.engine, run_job, self.gpus[:1] if single else self.gpus, self.resources
        )


@contextmanager
def _slots(engine: Engine, cells: Sequence[Cell], workers: int) -> Iterator[_Slots]:
    if engine == "local":
        yield _Slots(engine, local_slots(cells, workers))
        return
    with ray_cluster() as cluster:
        gpu = any(cell.config.device != "cpu" for cell in cells)
        count, resources = cluster.divide(workers, gpu=gpu)
        yield _Slots(engine, [None] * count, resources)


def local_slots(cells: Iterable[Cell], workers: int) -> list[str | None]:
    """Return for each worker the only GPU that it may see, or None for all there are.

    `workers` is as for `train_cells`.
    """
    named = {cell.config.device for cell in cells}
    on_cpu = [_is_on_cpu(cell) for cell in cells]
    if all(on_cpu):
        return [None] * (workers or cpu_cores())
    lists = {name for name in named if "," in name}
    found = [device for name in lists or ("auto",) for device in resolve_devices(name)]
    gpus = sorted({device.index or 0 for device in found if device.type == "cuda"})
    if len(gpus) == 1 or not named <= {"auto", "cpu", *lists}:  # a cell must see what it names
        return [None] * (workers or (cpu_cores() if any(on_cpu) else 1))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if visible != [""] else list(map(str, range(max(gpus) + 1)))
    slots = range(workers or (cpu_cores() if any(on_cpu) else len(gpus)))
    return [names[gpus[i % len(gpus)]] for i in slots]


def _is_on_cpu(cell: Cell) -> bool:
    """Whether a cell is trained on the CPU; one that cannot be trained at all takes no GPU."""
    if not torch.cuda.is_available():
        return True
    try:
        return cell.kind == "baseline" or training_device(cell.config).type == "cpu"
    except MemfeatError:
        return True


def group_by_data(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Group the cells that learn from the same data, the group with the costliest cell first."""
    groups: dict[tuple[Location, tuple[Location, ...]], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.config.manifest, cell.config.cache), []).append(cell)
    return sorted(groups.values(), key=lambda group: -max(cost(cell.config) for cell in group))


@dataclass(eq=False)
class _Models:
    """The models of a cell: how many have not ended, and errors by seed."""

    cell: Cell
    data: JobData
    left: int
    errors: dict[int, str] = field(default_factory=dict)


class _Scheduler:
    """The queue of a grid's jobs.

    Cells are queued group by group, as workers become idle, so that one group's tables at a time
    need to be in memory. A job whose worker died is run again at the end, by a single worker, so
    that only a job that itself kills its worker fails.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        features: SharedFeatures,
        slots: _Slots,
        progress: ProgressCounter,
    ) -> None:
        self._features, self._slots = features, slots
        self._progress = progress
        self._errors: dict[str, str] = {}  # by cell
        self._groups = deque(group_by_data(cells))
        self._queue: deque[Job] = deque()
        self._running: set[Job] = set()
        self._lost: deque[Job] = deque()
        self._models: dict[str, _Models] = {}

    def run(self) -> dict[str, str]:
        """Run all jobs, and return the errors by cell."""
        with self._slots.pool(single=False) as pool:
            for job, event in pool.run(self._next_job):
                self._handle(job, event, again=True)
        while self._lost:
            self._queue.append(self._lost.popleft())
            with self._slots.pool(single=True) as pool:
                for job, event in pool.run(self._next_job):
                    self._handle(job, event, again=False)
        return self._errors

    def _next_job(self) -> Job | None:
        while not self._queue and self._groups:
            self._queue_group(self._groups.popleft())
        if not self._queue:
            return None
        job = self._queue.popleft()
        self._running.add(job)
        return job

    def _queue_group(self, cells: Sequence[Cell]) -> None:
        """Share the tables of `cells`, and queue their unfinished models, the longest first."""
        caches = ", ".join(map(str, cells[0].config.cache))
        self._progress.report(f"reading {caches}")
        try:
            data = self._features.load(cells[0].config)
        except (MemfeatError, OSError) as error:
            self._progress.report(f"cannot use {caches}")
            for cell in cells:
                self._fail(cell, str(error))
        else:
            self._progress.report("")
            jobs = [job for cell in cells for job in self._jobs(cell, data)]
            self._queue.extend(sorted(jobs, key=lambda job: -cost(job.config)))
        self._remove_unused()

    def _jobs(self, cell: Cell, data: JobData) -> list[Job]:
        """Return a job for each unfinished model of a cell."""
        try:
            if cell.kind == "baseline":
                there = baseline_is_there(cell.config, data.facts)
                configs = [] if there else [cell.config]
            else:
                config = resolve_options(cell.config)
                if self._slots.engine == "local":
                    training_device(config)
                configs = unfinished(config, data.specs, data.facts)
                if not configs:
                    finish(config, data.specs, data.facts)
        except (MemfeatError, OSError) as error:
            self._fail(cell, str(error))
            return []
        for folder in set(model_folders(cell)) - {config.run for config in configs}:
            self._progress.exclude(folder)
        self._models[cell.name] = _Models(cell, data, len(configs))
        kind: Any = "baseline" if cell.kind == "baseline" else "seed"
        return [Job(kind, cell.name, config, data) for config in configs]

    def _handle(self, job: Job, event: Event, *, again: bool) -> None:
        if isinstance(event, Message):
            if isinstance(event.content, Result):
                self._end(job, event.content.error)
            else:
                self._progress.epoch(job.config.run, event.content)
        elif event.exit_code is not None and job in self._running:  # it had not sent its result
            if again:
                self._running.discard(job)
                self._lost.append(job)
            else:
                self._end(job, DIED)

    def _end(self, job: Job, error: str | None) -> None:
        self._running.discard(job)
        models = self._models[job.cell]
        if job.kind == "summary":
            self._end_cell(job.cell, error)
        else:
            self._progress.end(job.config.run)
            models.left -= 1
            if error is not None:
                models.errors[job.config.seeds[0]] = error
            if not models.left:
                self._end_models(models)
        self._remove_unused()

    def _end_models(self, models: _Models) -> None:
        """Queue the summary of a cell whose models have all been trained, or end the cell."""
        cell = models.cell
        if cell.kind != "baseline" and len(cell.config.seeds) > 1 and not models.errors:
            config = resolve_options(cell.config)
            self._queue.appendleft(Job("summary", cell.name, config, models.data))
        else:
            self._end_cell(cell.name, _describe(cell, models.errors))

    def _fail(self, cell: Cell, error: str) -> None:
        """End a cell that cannot be started."""
        for folder in model_folders(cell):
            self._progress.end(folder)
        self._end_cell(cell.name, error)

    def _end_cell(self, name: str, error: str | None) -> None:
        if error is not None:
            self._errors[name] = error

    def _remove_unused(self) -> None:
        jobs = (*self._queue, *self._running, *self._lost)
        pending = [cells[0].config for cells in self._groups]
        self._features.remove_unused([job.data for job in jobs], pending)


def _describe(cell: Cell, errors: Mapping[int, str]) -> str | None:
    """Describe what went wrong with a cell; per seed, unless all failed alike."""
    if not errors:
        return None
    if len(errors) == len(model_folders(cell)) and len(set(errors.values())) == 1:
        return next(iter(errors.values()))
    return "; ".join(
        error if error.startswith(f"seed {seed} ") else f"seed {seed}: {error}"
        for seed, error in sorted(errors.items())
    )
