"""What runs in the process of a Ray actor: a task in a thread, and its messages on their way."""

import os
import queue
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

UNHEARD = 32  # messages that wait here before `send` does; as many more are on their way


class Home(NamedTuple):
    """Where the process that started an actor is, so that it finds there what that one finds.

    Attributes:
        module: that the work is a function of.
        name: of the function.
        folder: the current one.
        path: on which modules are looked for.
    """

    module: str
    name: str
    folder: str
    path: tuple[str, ...]


class Failed(NamedTuple):
    """The work raised an exception; `trace` tells which, and where."""

    trace: str


class Words(NamedTuple):
    """Messages about a task, in the order they were sent.

    Attributes:
        messages: none in the first of a task, which tells that it begins.
        end: with the last of a task, True or what went wrong.
    """

    messages: tuple[Any, ...] = ()
    end: Failed | bool | None = None


class RaySeat:
    """An actor: does tasks one at a time, all in one thread."""

    def __init__(self, home: Home) -> None:
        with suppress(OSError):  # another machine may have no such folder, nor need it
            os.chdir(home.folder)
        sys.path += [place for place in home.path if place not in sys.path]
        self._work = getattr(import_module(home.module), home.name)
        self._thread = ThreadPoolExecutor(1)

    def up(self) -> None:
        """Answer, as soon as there is a process that can."""

    def do(self, task: Any, argument: Any) -> Iterator[Words]:
        """Do a task, and yield what it says while it is at work.

        Ray resumes this when the other side has taken what it yielded. So the work does not begin
        before it is known that it does, and what is not heard does not pile up.
        """
        yield Words()
        said: queue.Queue[tuple[Any] | None] = queue.Queue(UNHEARD)

        def work() -> Failed | bool:
            try:
                self._work(task, argument, lambda message: said.put((message,)))
            except BaseException:  # of a thread, an exit too would go unnoticed
                return Failed(traceback.format_exc())
            else:
                return True
            finally:
                said.put(None)

        end = self._thread.submit(work)
        while True:
            words = [said.get()]
            with suppress(queue.Empty):
                while words[-1] is not None and len(words) < UNHEARD:
                    words.append(said.get_nowait())
            messages = tuple(word[0] for word in words if word is not None)
            if words[-1] is None:
                yield Words(messages, end.result())
                return
            yield Words(messages)
