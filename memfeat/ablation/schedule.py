"""Working off a grid in several processes: data by data, in stacks, the longest first."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from memfeat.ablation.grid import Cell
from memfeat.ablation.ledger import Ledger
from memfeat.ablation.planning import balanced_stacks, by_caches, weight
from memfeat.ablation.progress import Tally
from memfeat.ablation.seats import Seats
from memfeat.ablation.tasks import Broken, Data, Epoch, Finished, Message, Outcome, Task, work
from memfeat.cache import Cache, SharedTable, shared_table
from memfeat.config import TrainConfig
from memfeat.devices import resolve_device
from memfeat.errors import MemfeatError
from memfeat.manifest import Manifest, read_manifest
from memfeat.processes import Ended
from memfeat.storage import Location
from memfeat.training import Examples, finish, resolve_options, select_records, unfinished

DIED = (
    "its process died, perhaps for want of memory; run the same command again, with fewer "
    "--workers if it dies again"
)


Source = tuple[Location, Location]  # a manifest and a cache


class _Table(NamedTuple):
    """A table that is shared, and what ends that."""

    table: SharedTable
    made: ExitStack


class Schedule:
    """What is left of a grid: caches to open, tasks to give, tasks given, tasks to try again.

    A table, of one cache, is made when the first task needs it, and given up with the last, even
    if tasks of other data have it among their caches. The runs of a task
    whose process died are tried again at the end, each with a process and the machine to itself,
    so that only the one whose own process dies is blamed.

    Args:
        cells: those to be run; their caches are there.
        folder: where tables lie while processes share them.
        seats: where workers are to be.
        ledger: told what becomes of each run.
        tally: told how far each is.
    """

    def __init__(
        self, cells: Sequence[Cell], folder: Path, seats: Seats, ledger: Ledger, tally: Tally
    ) -> None:
        self._folder, self._ledger, self._tally = folder, ledger, tally
        self._seats = seats
        self._groups = deque(by_caches(cells))
        self._queue: deque[Task] = deque()
        self._given: set[Task] = set()
        self._orphans: deque[Task] = deque()
        self._tables: dict[Source, _Table] = {}

    def run(self) -> None:
        """Work everything off."""
        try:
            self._work_off()
            while self._orphans:
                self._queue.append(self._orphans.popleft())
                self._work_off(alone=True)
        finally:
            for table in self._tables.values():
                table.made.close()

    def _work_off(self, *, alone: bool = False) -> None:
        with self._seats.crew(work, alone=alone) as crew:
            while True:
                while crew.idle and (task := self._next()):
                    self._given.add(task)
                    crew.give(task)
                if not crew.busy:
                    return
                for task, event in crew.hear():
                    if not isinstance(event, Ended):
                        self._take(task, event.message)
                    elif event.exit_code is not None:
                        self._bury(task, alone=alone)

    def _next(self) -> Task | None:
        while not self._queue and self._groups:
            self._open(self._groups.popleft())
        return self._queue.popleft() if self._queue else None

    def _open(self, cells: Sequence[Cell]) -> None:
        """Share the tables of `cells`, and queue what is left to do of them, the longest first."""
        named = ", ".join(map(str, cells[0].config.cache))
        self._tally.news(f"reading {named}")
        try:
            data = self._share(cells[0].config)
        except (MemfeatError, OSError) as error:
            self._tally.news(f"cannot use {named}")
            for cell in cells:
                self._ledger.fail(cell, str(error))
            self._give_up_tables()
            return
        self._tally.news("")
        models: list[TrainConfig] = []
        tasks: list[Task] = []
        for cell in cells:
            if cell.kind == "baseline":
                self._ledger.open(cell, [cell.config], None)
                tasks.append(Task("baseline", (cell.config,), data))
            else:
                models += self._left_of(cell, data)
        stacks = balanced_stacks(models, len(self._seats.gpus))
        tasks += [Task("stack", configs, data) for configs in stacks]
        self._queue.extend(sorted(tasks, key=lambda task: -sum(map(weight, task.configs))))
        self._give_up_tables()

    def _share(self, config: TrainConfig) -> Data:
        manifest = read_manifest(config.manifest)
        caches = [Cache.open(folder) for folder in config.cache]
        records = select_records(manifest, *caches).records
        tables = tuple(self._table(manifest, cache) for cache in caches)
        examples = Examples.join([table.open() for table in tables], records)
        examples.require_splits()
        return Data(tables, examples.records, examples.facts)

    def _table(self, manifest: Manifest, cache: Cache) -> SharedTable:
        """Share what a cache has of a manifest's videos, unless that is done already."""
        source = manifest.path, cache.folder
        if source not in self._tables:
            usable = set(cache.usable())
            ids = [r.video_id for r in manifest.records if r.video_id in usable]
            cache.require_whole(ids)
            with ExitStack() as stack:
                table = stack.enter_context(shared_table(cache, ids, self._folder))
                if not self._seats.here:
                    table.write_back()
                self._tables[source] = _Table(table, stack.pop_all())
        return self._tables[source].table

    def _left_of(self, cell: Cell, data: Data) -> list[TrainConfig]:
        """Enter a model's cell into the ledger, and return its seeds that are not finished."""
        facts = data.specs, data.facts
        try:
            config = resolve_options(cell.config)
            if self._seats.here:
                resolve_device(config.device)
            left = unfinished(config, *facts)
            if not left:
                finish(config, *facts)
        except (MemfeatError, OSError) as error:
            self._ledger.fail(cell, str(error))
            return []
        several = len(config.seeds) > 1
        self._ledger.open(cell, left, Task("summary", (config,), data) if several else None)
        return left

    def _take(self, task: Task, message: Message) -> None:
        """Take note of what a worker says about its task."""
        match message:
            case Epoch(number, report):
                self._tally.epoch(task.configs[number].run, report)
            case Finished(number):
                self._settle(task.configs[number], None)
            case Outcome(errors):
                self._given.discard(task)
                for config, error in zip(task.configs, errors, strict=True):
                    self._settle(config, error)
            case Broken(error):
                self._given.discard(task)
                if len(task.configs) > 1:
                    self._queue.extendleft(self._apart(task))
                else:
                    self._settle(task.configs[0], error)
        self._give_up_tables()

    def _bury(self, task: Task, *, alone: bool) -> None:
        """Have the runs of a task whose process died tried again, or blame one that was alone."""
        if task not in self._given:
            return  # it had done its work
        self._given.discard(task)
        if alone:
            self._settle(task.configs[0], DIED)
        else:
            self._orphans.extend(self._apart(task))
        self._give_up_tables()

    def _apart(self, task: Task) -> list[Task]:
        """Return a task for each run of `task` of which it is not known what became of it."""
        return [replace(task, configs=(run,)) for run in task.configs if self._ledger.awaits(run)]

    def _settle(self, config: TrainConfig, error: str | None) -> None:
        due = self._ledger.settle(config.run, error)
        if due is not None:
            self._queue.appendleft(due)

    def _give_up_tables(self) -> None:
        tasks = (*self._queue, *self._given, *self._orphans)
        needed = {table for task in tasks for table in task.data.tables}
        waiting = {source for cells in self._groups for source in _sources(cells[0].config)}
        for source, (table, made) in list(self._tables.items()):
            if table not in needed and source not in waiting:
                made.close()
                del self._tables[source]


def _sources(config: TrainConfig) -> list[Source]:
    return [(config.manifest, cache) for cache in config.cache]
