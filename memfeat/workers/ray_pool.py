"""The pool of Ray actors, on any machine of a cluster."""

import logging
import os
import queue
import signal
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self

from memfeat.workers.pool import Event, J, JobEnded, Message, Work, WorkerPool
from memfeat.workers.ray_cluster import Cluster, Resources, load_ray, ray_cluster

RAISED = 1  # exit code of a process that ends with an exception
LOST = -signal.SIGKILL  # Ray does not tell how a process died
WARN_SECONDS = 60.0  # without any actor; starting a process takes some, on a busy machine
MOST_UNREAD = 32  # messages queued in an actor before `send` blocks; as many more are in transit
THREADS = "OMP_NUM_THREADS"  # Ray sets it to the CPUs of an actor where it is not set
FORWARDED = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FORWARDED_PREFIX = "MEMFEAT_"

_log = logging.getLogger(__name__)


class Function(NamedTuple):
    """How another process imports the work function: by name, from the same folders."""

    module: str
    name: str
    folder: str
    path: tuple[str, ...]


class Batch(NamedTuple):
    """Messages of a job in the order they were sent; the first batch of a job is empty.

    Attributes:
        messages: their contents.
        ended: whether the job has ended.
        error: with `ended`, the traceback of what it raised, if it raised.
    """

    messages: tuple[Any, ...] = ()
    ended: bool = False
    error: str | None = None


class MemfeatWorker:
    """The actor: runs jobs one at a time, all in one thread."""

    def __init__(self, function: Function) -> None:
        with suppress(OSError):  # another machine may have no such folder, nor need it
            os.chdir(function.folder)
        sys.path += [folder for folder in function.path if folder not in sys.path]
        self._work = getattr(import_module(function.module), function.name)
        self._thread = ThreadPoolExecutor(1)

    def ready(self) -> None:
        """Return as soon as there is a process that can."""

    def run(self, job: Any, slot: Any) -> Iterator[Batch]:
        """Run a job and yield its messages.

        Ray resumes this once the other side has read what was yielded: so a job does not start
        before its first batch is read, and unread messages do not pile up.
        """
        yield Batch()
        sent: queue.Queue[tuple[Any] | None] = queue.Queue(MOST_UNREAD)

        def work() -> str | None:
            try:
                self._work(job, slot, lambda content: sent.put((content,)))
            except BaseException:  # in a thread, an exit too would go unnoticed
                return traceback.format_exc()
            finally:
                sent.put(None)
            return None

        result = self._thread.submit(work)
        while True:
            batch = [sent.get()]
            with suppress(queue.Empty):
                while batch[-1] is not None and len(batch) < MOST_UNREAD:
                    batch.append(sent.get_nowait())
            messages = tuple(each[0] for each in batch if each is not None)
            if batch[-1] is None:
                yield Batch(messages, ended=True, error=result.result())
                return
            yield Batch(messages)


@dataclass(eq=False)
class _Actor(Generic[J]):
    """An actor as its pool sees it.

    Attributes:
        handle: Ray's.
        slot: for its jobs.
        pending: Ray's reference to what is waited for: that it is ready, then batches of its job;
            None while it is idle.
        job: the one it has been given.
        is_up: whether it has started.
        has_begun: whether it has received its job.
    """

    handle: Any
    slot: Any
    pending: Any
    job: J | None = None
    is_up: bool = False
    has_begun: bool = False


class RayPool(WorkerPool[J]):
    """A worker pool of Ray actors; `ray_cluster` says where.

    A job goes to the first actor that is up, so that it does not wait for one for which the
    cluster has no room. Leaving the context kills the actors, and Ray if it was started for them.

    Unlike a local pool it does not learn how an actor died: `exit_code` is that of a killed
    process, or 1 if the work function raised, which is logged. Messages of the last moment before
    a sudden death may be lost. `send` blocks while some dozens of messages are unread.

    Args:
        work: as for `LocalPool`. It is imported on the other machine by name, in the same current
            folder if there is one; it runs in another thread than the main one.
        slots: one an actor.
        resources: what Ray reserves for each actor.

    Raises:
        ConfigError: on entering, no Ray or no room; see `ray_cluster` and `Cluster.require`.
    """

    def __init__(self, work: Work[J], slots: Sequence[Any], resources: Resources) -> None:
        folder = str(Path.cwd())
        self._function = Function(work.__module__, work.__qualname__, folder, tuple(sys.path))
        self._resources = resources
        self._free_slots = list(slots)
        self._queue: deque[J] = deque()
        self._actors: list[_Actor[J]] = []
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        self._ray = load_ray()
        with ExitStack() as stack:
            cluster: Cluster = stack.enter_context(ray_cluster())
            cluster.require(self._resources)
            self._waiter = stack.enter_context(ThreadPoolExecutor(1))
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._exits:
            for actor in list(self._actors):
                self._remove(actor)

    @property
    def idle(self) -> int:
        """How many actors have no job."""
        return len(self._free_slots) + len(self._actors) - self.busy

    @property
    def busy(self) -> int:
        """How many actors have a job."""
        return len(self._queue) + sum(actor.job is not None for actor in self._actors)

    def submit(self, job: J) -> None:
        """Hand `job` to an idle actor; see `WorkerPool.submit`."""
        self._require_idle()
        self._queue.append(job)
        self._assign()

    def events(self) -> list[tuple[J, Event]]:
        """Wait for events; see `WorkerPool.events`."""
        found: list[tuple[J, Event]] = []
        while self.busy and not found:
            self._assign()
            for actor in self._ready_actors():
                found += self._receive(actor)
        self._assign()
        return found

    def _assign(self) -> None:
        """Give queued jobs to actors that are up, and start actors for the others."""
        for actor in self._actors:
            if self._queue and actor.is_up and actor.job is None:
                actor.job, actor.has_begun = self._queue.popleft(), False
                actor.pending = actor.handle.run.options(
                    num_returns="streaming", _generator_backpressure_num_objects=1
                ).remote(actor.job, actor.slot)
        starting = sum(not actor.is_up for actor in self._actors)
        for _ in range(min(len(self._queue) - starting, len(self._free_slots))):
            self._start()

    def _start(self) -> None:
        resources = self._resources
        handle = (
            self._ray.remote(MemfeatWorker)
            .options(
                num_cpus=resources.cpus,
                num_gpus=resources.gpus,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": _variables(resources.threads)},
            )
            .remote(self._function)
        )
        self._actors.append(_Actor(handle, self._free_slots.pop(0), handle.ready.remote()))

    def _ready_actors(self) -> list[_Actor[J]]:
        """Wait until an actor has sent something, and return all that have."""
        pending = {actor.pending: actor for actor in self._actors if actor.pending is not None}
        # In another thread, for in this one Ray turns an exit that a signal asks for into status 1.
        waiting = self._waiter.submit(self._ray.wait, list(pending), timeout=WARN_SECONDS)
        first, _ = waiting.result()
        if not first and not any(actor.is_up for actor in self._actors):
            _log.warning("no Ray actor is up yet; `ray status` tells whether it waits for room")
        if not first:
            return []
        # All that are ready, or one that sends much would always come first.
        ready, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [pending[each] for each in ready]

    def _receive(self, actor: _Actor[J]) -> list[tuple[J, Event]]:
        """Read what an actor has sent: that it is up, or a batch of messages."""
        try:
            if not actor.is_up:
                self._ray.get(actor.pending)
                actor.is_up, actor.pending = True, None
                return []
            batch: Batch = self._ray.get(next(actor.pending))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            return self._lose(actor, error)
        job = actor.job
        if job is None:
            return []
        actor.has_begun = True
        found: list[tuple[J, Event]] = [(job, Message(content)) for content in batch.messages]
        if batch.ended:
            actor.job, actor.pending = None, None
            if batch.error is not None:
                _log.error("a job raised an exception\n%s", batch.error)
                self._remove(actor)
            found.append((job, JobEnded(None if batch.error is None else RAISED)))
        return found

    def _lose(self, actor: _Actor[J], error: Exception) -> list[tuple[J, Event]]:
        """Remove an actor that died, and return the end of its job, if it had one."""
        job = actor.job
        reason = " ".join(str(error).split())
        if not actor.is_up:
            _log.error("a Ray actor could not start: %s", reason)
            # The job fails, or this would go on for ever where no actor can start.
            job = self._queue.popleft() if self._queue else None
        elif job is not None and not actor.has_begun:
            self._queue.appendleft(job)  # the actor died while it was idle
            job = None
        else:
            _log.warning("a Ray actor died while it ran a job: %s", reason)
        self._remove(actor)
        return [] if job is None else [(job, JobEnded(LOST))]

    def _remove(self, actor: _Actor[J]) -> None:
        self._ray.kill(actor.handle, no_restart=True)
        self._actors.remove(actor)
        self._free_slots.append(actor.slot)


def _variables(threads: int | None) -> dict[str, str]:
    """Return the environment variables that results depend on, for an actor's process."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if name in FORWARDED or name.startswith(FORWARDED_PREFIX)
    }
    return {**ours, THREADS: str(threads or os.environ.get(THREADS) or _cores())}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
