"""Actors of a Ray cluster that take tasks one at a time, as the processes of a `Crew` do."""

import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from memfeat.engines.ray_cluster import Cluster, Share, load_ray, ray_cluster
from memfeat.engines.ray_seat import Failed, Home, RaySeat, Words
from memfeat.processes import Ended, Said, Work

T = TypeVar("T")
RAISED = 1  # what a process ends with at an exception
LOST = -signal.SIGKILL  # Ray does not tell how a process died
PATIENCE_SECONDS = 60.0  # starting a process takes some, on a busy machine
THREADS = "OMP_NUM_THREADS"  # Ray sets it to the CPUs of an actor where it is not set
FORWARDED = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FORWARDED_PREFIX = "MEMFEAT_"

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Actor(Generic[T]):
    """An actor.

    Attributes:
        handle: Ray's.
        argument: for its tasks.
        word: what is waited for: that it is up, then what it says about a task; None while it has
            nothing to do.
        task: the one it has been given.
        up: whether it lives, as far as is known.
        begun: whether it has its task.
    """

    handle: Any
    argument: Any
    word: Any
    task: T | None = None
    up: bool = False
    begun: bool = False


class RayCrew(Generic[T]):
    """A `Crew` of Ray actors, on any machine of the cluster; `ray_cluster` tells on which.

    A task goes to the first actor that is up, so that it does not wait for one for which the
    cluster has no room. An actor that dies, or whose machine is lost, ends its own task and no
    other, and a new one takes the next. Leaving the context kills them, and Ray ends with it if it
    was started for it.

    It differs from a `Crew` in that Ray does not tell how an actor died: `exit_code` is that of a
    killed process, or 1 if `work` raised something, which is logged. What is said in the last
    moment before a sudden death may be lost. A `send` waits while some dozens of messages are
    unheard.

    Args:
        work: as `Crew` takes it. It is found by name on the other machine, in the same current
            folder if there is one; it runs in another thread than the main one.
        arguments: one an actor.
        share: what each actor has of the cluster.

    Raises:
        ConfigError: on entering, no Ray or no room, as `ray_cluster` and `Cluster.require` tell.
    """

    def __init__(self, work: Work[T], arguments: Sequence[Any], share: Share | None = None) -> None:
        self._home = Home(work.__module__, work.__qualname__, str(Path.cwd()), tuple(sys.path))
        self._share = share or Share()
        self._unused = list(arguments)
        self._waiting: deque[T] = deque()
        self._actors: list[_Actor[T]] = []
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        self._ray = load_ray()
        with ExitStack() as stack:
            cluster: Cluster = stack.enter_context(ray_cluster())
            cluster.require(self._share)
            self._listener = stack.enter_context(ThreadPoolExecutor(1))
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._exits:
            for actor in list(self._actors):
                self._bury(actor)

    @property
    def idle(self) -> int:
        """How many actors have no task."""
        return len(self._unused) + len(self._actors) - self.busy

    @property
    def busy(self) -> int:
        """How many actors have one."""
        return len(self._waiting) + sum(actor.task is not None for actor in self._actors)

    def give(self, task: T) -> None:
        """Hand `task`, which is not None, to an idle actor.

        Raises:
            ValueError: none is idle.
        """
        if not self.idle:
            raise ValueError(f"all {self.busy} workers have a task; `hear` until one has ended")
        self._waiting.append(task)
        self._seat()

    def hear(self) -> list[tuple[T, Said | Ended]]:
        """Wait until there is word of a task, and return what there is, in the order it was sent.

        Empty if no actor has a task.
        """
        heard: list[tuple[T, Said | Ended]] = []
        while self.busy and not heard:
            self._seat()
            for actor in self._with_word():
                heard += self._receive(actor)
        self._seat()
        return heard

    def _seat(self) -> None:
        """Give tasks that wait to actors that are up, and start actors for the others."""
        for actor in self._actors:
            if self._waiting and actor.up and actor.task is None:
                actor.task, actor.begun = self._waiting.popleft(), False
                actor.word = actor.handle.do.options(
                    num_returns="streaming", _generator_backpressure_num_objects=1
                ).remote(actor.task, actor.argument)
        starting = sum(not actor.up for actor in self._actors)
        for _ in range(min(len(self._waiting) - starting, len(self._unused))):
            self._start()

    def _start(self) -> None:
        share = self._share
        handle = (
            self._ray.remote(RaySeat)
            .options(
                num_cpus=share.cpus,
                num_gpus=share.gpus,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": _variables(share.threads)},
            )
            .remote(self._home)
        )
        self._actors.append(_Actor(handle, self._unused.pop(0), handle.up.remote()))

    def _with_word(self) -> list[_Actor[T]]:
        """Wait until there is word, and return the actors that have sent some."""
        words = {actor.word: actor for actor in self._actors if actor.word is not None}
        # In another thread, for Ray makes 1 of the status of an exit that a signal asks for.
        waiting = self._listener.submit(self._ray.wait, list(words), timeout=PATIENCE_SECONDS)
        first, _ = waiting.result()
        if not first and not any(actor.up for actor in self._actors):
            _log.warning("no Ray actor is up yet; `ray status` tells whether it waits for room")
        if not first:
            return []
        # One that says much comes first each time, and is not to keep us from the others.
        ready, _ = self._ray.wait(list(words), num_returns=len(words), timeout=0)
        return [words[word] for word in ready]

    def _receive(self, actor: _Actor[T]) -> list[tuple[T, Said | Ended]]:
        """Take in what an actor has sent: that it is up, that it has begun, or words."""
        try:
            if not actor.up:
                self._ray.get(actor.word)
                actor.up, actor.word = True, None
                return []
            words: Words = self._ray.get(next(actor.word))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            return self._lose(actor, error)
        task = actor.task
        if task is None:
            return []
        actor.begun = True
        heard: list[tuple[T, Said | Ended]] = [(task, Said(message)) for message in words.messages]
        if words.end is not None:
            actor.task, actor.word = None, None
            heard.append((task, self._end_of(actor, words.end)))
        return heard

    def _end_of(self, actor: _Actor[T], end: Failed | bool) -> Ended:
        if isinstance(end, bool):
            return Ended(None)
        _log.error("a task raised an exception\n%s", end.trace)
        self._bury(actor)
        return Ended(RAISED)

    def _lose(self, actor: _Actor[T], error: Exception) -> list[tuple[T, Said | Ended]]:
        """Tell what the death of an actor ended."""
        task = actor.task
        reason = " ".join(str(error).split())
        if not actor.up:
            _log.error("a Ray actor could not start: %s", reason)
            # Or else it would go on for ever where none can.
            task = self._waiting.popleft() if self._waiting else None
        elif task is not None and not actor.begun:
            self._waiting.appendleft(task)  # it died while it had nothing to do
            task = None
        else:
            _log.warning("a Ray actor died at its task: %s", reason)
        self._bury(actor)
        return [] if task is None else [(task, Ended(LOST))]

    def _bury(self, actor: _Actor[T]) -> None:
        self._ray.kill(actor.handle, no_restart=True)
        self._actors.remove(actor)
        self._unused.append(actor.argument)


def _variables(threads: int | None) -> dict[str, str]:
    """Return the variables for an actor's process: those of ours that decide about results."""
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
