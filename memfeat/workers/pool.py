"""The interface of worker pools, and the pool of processes on this machine."""

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, Self, TypeVar

from memfeat.workers.processes import start_worker

J = TypeVar("J")
Send = Callable[[Any], None]
Work = Callable[[J, Any, Send], None]


class Message(NamedTuple):
    """A message that a worker sent while it ran its job."""

    content: Any


class JobEnded(NamedTuple):
    """The end of a job.

    Attributes:
        exit_code: None if the work function returned; otherwise that of the worker process, which
            died while it ran the job, negative for a signal.
    """

    exit_code: int | None


Event = Message | JobEnded


class WorkerPool(ABC, Generic[J]):
    """Workers that run jobs, one at a time each; a context manager.

    A worker is started when there is a job for it. One that dies ends its own job and no other,
    and is replaced when the next job comes. Leaving the context ends all workers, busy or not.

        with LocalPool(work, ["cuda:0", "cuda:1"]) as pool:
            for job, event in pool.run(lambda: queue.popleft() if queue else None):
                ...
    """

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @property
    @abstractmethod
    def idle(self) -> int:
        """How many workers have no job."""

    @property
    @abstractmethod
    def busy(self) -> int:
        """How many workers have a job."""

    @abstractmethod
    def submit(self, job: J) -> None:
        """Hand `job`, which is not None, to an idle worker.

        Raises:
            ValueError: all are busy.
        """

    @abstractmethod
    def events(self) -> list[tuple[J, Event]]:
        """Wait until something happens to a job; return what did, in order, each with its job.

        Empty if no worker is busy.
        """

    def run(self, next_job: Callable[[], J | None]) -> Iterator[tuple[J, Event]]:
        """Keep all workers busy, and yield what happens to the jobs.

        Args:
            next_job: asked whenever a worker is idle; None if there is no job for now. The run
                ends when there is none and no worker is busy, so a job may be queued again while
                an event is being handled.
        """
        while True:
            while self.idle and (job := next_job()) is not None:
                self.submit(job)
            if not self.busy:
                return
            yield from self.events()

    def _require_idle(self) -> None:
        if not self.idle:
            raise ValueError(f"all {self.busy} workers are busy; read `events` until a job ends")


@dataclass(eq=False)
class _Process(Generic[J]):
    """A worker process; `is_up` once it has asked for its first job."""

    process: BaseProcess
    pipe: Connection
    slot: Any
    job: J | None
    is_up: bool = False


class LocalPool(WorkerPool[J]):
    """Processes of this machine, each with a pipe of its own: no lock is shared.

    Not built on concurrent.futures, whose executors do not tell how a worker died, and before
    Python 3.14 cannot end one that is busy.

    Args:
        work: called in a worker with a job, the worker's slot, and a function that sends a
            message. A function of a module; an exception ends the process.
        slots: one a worker, such as the device that it is to use.
    """

    def __init__(self, work: Work[J], slots: Sequence[Any]) -> None:
        self._work = work
        self._free_slots = list(slots)
        self._workers: list[_Process[J]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in list(self._workers):
            self._remove(worker)

    @property
    def idle(self) -> int:
        """How many workers have no job."""
        return len(self._free_slots) + len(self._workers) - self.busy

    @property
    def busy(self) -> int:
        """How many workers have a job."""
        return sum(worker.job is not None for worker in self._workers)

    def submit(self, job: J) -> None:
        """Hand `job` to an idle worker; see `WorkerPool.submit`."""
        self._require_idle()
        for worker in [each for each in self._workers if each.job is None]:
            try:
                worker.pipe.send(job)
            except OSError:  # it died while it was idle
                self._remove(worker)
            else:
                worker.job = job
                return
        slot = self._free_slots.pop(0)
        process, pipe = start_worker(
            _serve, self._work, slot, name="worker", preload=self._work.__module__
        )
        self._workers.append(_Process(process, pipe, slot, job))

    def events(self) -> list[tuple[J, Event]]:
        """Wait for events; see `WorkerPool.events`."""
        found: list[tuple[J, Event]] = []
        while self.busy and not found:
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [each for each in self._workers if each.pipe in ready]:
                job, event = worker.job, self._receive(worker)
                if job is not None and event is not None:
                    found.append((job, event))
        return found

    def _receive(self, worker: _Process[J]) -> Event | None:
        """Read from a pipe: a message in a tuple, or None, by which a worker asks for a job."""
        try:
            received = worker.pipe.recv()
            if received is not None:
                return Message(*received)
            if worker.is_up:
                worker.job = None
                return JobEnded(None)
            worker.is_up = True
            # Not before: it could fill the pipe of a process that is still starting.
            worker.pipe.send(worker.job)
        except (EOFError, OSError):
            return self._remove(worker)
        return None

    def _remove(self, worker: _Process[J]) -> JobEnded:
        """Remove a worker whose process has ended, or is about to."""
        worker.process.join()
        exit_code = worker.process.exitcode
        worker.pipe.close()
        worker.process.close()
        self._workers.remove(worker)
        self._free_slots.append(worker.slot)
        return JobEnded(exit_code)


def _serve(pipe: Connection, work: Work[J], slot: Any) -> None:
    """Run jobs in a worker process."""
    lock = threading.Lock()  # jobs may send from several threads

    def send(content: Any) -> None:
        try:
            with lock:
                pipe.send(content)
        except OSError:
            os._exit(1)  # the parent is gone

    while True:
        send(None)
        try:
            job: J = pipe.recv()
        except (EOFError, OSError):
            return
        work(job, slot, lambda message: send((message,)))
