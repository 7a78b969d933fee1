"""What worker processes need so that neither they nor their parent is left behind."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType, TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")
Send = Callable[[Any], None]
Work = Callable[[T, Any, Send], None]


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach; the parent hears it and ends them.

    Does nothing in another thread than the main one, where signals cannot be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heeded)


def start_apart(process: SpawnProcess) -> None:
    """Start a process that Ctrl-C does not reach, and that leaves the caller's script alone.

    multiprocessing would import the script that is running into the process, for what the script
    defines, and so run it again where it has no `if __name__ == "__main__"`. This is for processes
    that need nothing of it.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with interrupts_ignored():
            process.start()
    finally:
        sys.modules["__main__"] = script


def end_with_parent() -> None:
    """Let this worker process end when its parent does, however that ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


class Said(NamedTuple):
    """A message that a worker sent about its task."""

    message: Any


class Ended(NamedTuple):
    """The end of a task.

    Attributes:
        exit_code: None if the work was done; otherwise that of the process, which died at it,
            negative for a signal.
    """

    exit_code: int | None


@dataclass(eq=False)
class _Worker(Generic[T]):
    """A living process; `up` once it has asked for its first task."""

    process: SpawnProcess
    pipe: Connection
    argument: Any
    task: T | None
    up: bool = False


class Crew(Generic[T]):
    """Processes that take tasks one at a time, each at the far end of a pipe of its own.

    A process is started when there is a task for it. One that dies ends its own task and no other,
    and the next task gets a new one; they share no lock that it could have kept. Ctrl-C reaches
    only the parent. Leaving the context ends them, at work or not, and they end with the parent.

        with Crew(work, ["cuda:0", "cuda:1"]) as crew:
            while tasks or crew.busy:
                while tasks and crew.idle:
                    crew.give(tasks.pop())
                for task, event in crew.hear():
                    ...

    Args:
        work: called in a process with a task, that worker's argument, and what sends a message. A
            function of a module, for it is found there by name; what it raises ends its process.
        arguments: one a worker.
    """

    def __init__(self, work: Work[T], arguments: Sequence[Any]) -> None:
        self._work = work
        self._unused = list(arguments)
        self._workers: list[_Worker[T]] = []
        self._context = multiprocessing.get_context("spawn")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in list(self._workers):
            self._bury(worker)

    @property
    def idle(self) -> int:
        """How many workers have no task."""
        return len(self._unused) + len(self._workers) - self.busy

    @property
    def busy(self) -> int:
        """How many workers have one."""
        return sum(worker.task is not None for worker in self._workers)

    def give(self, task: T) -> None:
        """Hand `task`, which is not None, to an idle worker.

        Raises:
            ValueError: none is idle.
        """
        for worker in [each for each in self._workers if each.task is None]:
            try:
                worker.pipe.send(task)
            except OSError:  # it died while it had nothing to do
                self._bury(worker)
            else:
                worker.task = task
                return
        if not self._unused:
            raise ValueError(f"all {self.busy} workers have a task; `hear` until one has ended")
        self._start(task)

    def hear(self) -> list[tuple[T, Said | Ended]]:
        """Wait until there is word of a task, and return what there is, in the order it was sent.

        Empty if no worker has a task.
        """
        heard: list[tuple[T, Said | Ended]] = []
        while self.busy and not heard:
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [each for each in self._workers if each.pipe in ready]:
                task, event = worker.task, self._receive(worker)
                if task is not None and event is not None:
                    heard.append((task, event))
        return heard

    def _start(self, task: T) -> None:
        argument = self._unused.pop(0)
        pipe, far_end = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(far_end, self._work, argument))
        with interrupts_ignored():
            process.start()
        self._workers.append(_Worker(process, pipe, argument, task))
        far_end.close()  # so that it closes with the process

    def _receive(self, worker: _Worker[T]) -> Said | Ended | None:
        """Take in one word: a message in a tuple, or None, which asks for a task."""
        try:
            word = worker.pipe.recv()
            if word is not None:
                return Said(*word)
            if worker.up:
                worker.task = None
                return Ended(None)
            worker.up = True
            # Not before: it would fill the pipe, and a process takes seconds to start.
            worker.pipe.send(worker.task)
        except (EOFError, OSError):
            return self._bury(worker)
        return None

    def _bury(self, worker: _Worker[T]) -> Ended:
        """Take leave of a process that has ended, or is about to."""
        worker.process.join()
        exit_code = worker.process.exitcode
        worker.pipe.close()
        worker.process.close()
        self._workers.remove(worker)
        self._unused.append(worker.argument)
        return Ended(exit_code)


def _serve(pipe: Connection, work: Work[T], argument: Any) -> None:
    """Work off tasks, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()

    def send(word: Any) -> None:
        try:
            pipe.send(word)
        except OSError:
            os._exit(1)  # the parent is gone, so that there is nobody left to work for

    while True:
        send(None)
        try:
            task: T = pipe.recv()
        except (EOFError, OSError):
            return
        work(task, argument, lambda message: send((message,)))
