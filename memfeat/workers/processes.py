"""Starting worker processes quickly, and leaving none behind."""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

Target = Callable[..., None]
LONGEST_TEMPORARY = 75  # bytes of the folder that sockets are made in; their whole path has 107


def worker_context() -> BaseContext:
    """Return the start method of all worker processes.

    On Linux that is a fork server: a process that imports torch and so on once, and of which each
    worker is a fork, so that starting one takes hundredths of a second in place of seconds and the
    libraries' memory is shared. Elsewhere it is `spawn`, as not all of macOS' libraries survive a
    fork, and where `TMPDIR` is too long for the path of the socket that a fork server listens at.
    """
    is_short = len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TEMPORARY
    is_served = sys.platform == "linux" and is_short
    return multiprocessing.get_context("forkserver" if is_served else "spawn")


def prepare_workers(preload: str) -> None:
    """Let the fork server start, and import the module `preload`, while the caller goes on.

    A worker that is needed seconds later then starts at once. Does nothing where there is none.
    """
    context: Any = worker_context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([preload])
        with _interrupts_ignored(), suppress(OSError):  # which the first worker would raise again
            forkserver._forkserver.ensure_running()


def start_worker(
    target: Target,
    *args: Any,
    name: str,
    preload: str | None = None,
    daemon: bool = False,
    import_main: bool = True,
) -> tuple[BaseProcess, Connection]:
    """Start a process that calls `target(pipe, *args)`; return it and our end of the pipe.

    It has this process's environment variables and current folder as they are now, does not get
    Ctrl-C, and ends when this process does. Our end of the pipe reads end-of-file once it has
    ended.

    Args:
        target: a function of a module.
        args: further arguments, which are pickled.
        name: of the process.
        preload: module that the fork server imports, if this is the first worker of all
            [the target's].
        daemon: whether it is terminated when this process exits normally.
        import_main: whether it imports the script that is running, which may have registered
            classes of its own. That runs a script without `if __name__ == "__main__"` again.
    """
    context: Any = worker_context()
    if context.get_start_method() == "forkserver":  # heeded when the server starts, once
        context.set_forkserver_preload([preload or target.__module__])
    pipe, far_end = context.Pipe()
    here = dict(os.environ), Path.cwd()
    process = context.Process(
        target=_run, args=(*here, target, far_end, args), name=name, daemon=daemon
    )
    with _interrupts_ignored(), nullcontext() if import_main else _no_main_script():
        process.start()
    far_end.close()  # so that it closes with the process
    return process, pipe


def _run(
    environment: Mapping[str, str], folder: Path, target: Target, pipe: Connection, args: Any
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Those of the fork server may be older than a change.
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    share_fork_server()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    target(pipe, *args)


def share_fork_server() -> None:
    """Let a process that was forked from a fork server start its own workers from it, too.

    multiprocessing would start another server, which imports all anew: it knows only of servers
    that this process started. For those forked from one, it does keep the server's address.
    """
    if sys.version_info >= (3, 14):
        return  # not tried; another server does the same, more slowly
    server: Any = forkserver._forkserver
    if server._forkserver_address and server._forkserver_pid is None:
        server.ensure_running = lambda: None


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let processes that are started now, the fork server included, inherit deafness to Ctrl-C.

    Does nothing in another thread than the main one, where signals cannot be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _no_main_script() -> Iterator[None]:
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
