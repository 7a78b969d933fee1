"""Starting processes, looking at them through /proc, and sending them signals in time."""

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from memfeat.cli import main
from memfeat.workers import start_worker


def start(
    function: Callable[..., None], *arguments: object, log: Path | None = None
) -> BaseProcess:
    """Start a function in a process of its own, a fork that has torch loaded already.

    It heeds Ctrl-C as one that was started in a terminal does, and leads a process group.

    Args:
        function: of a module.
        arguments: of the function.
        log: file that its standard error goes to.
    """
    process, _ = start_worker(_call, function, arguments, log, name="started by a test")
    atexit.register(end, process)  # which a test that fails may leave running
    return process


def end(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()


def _call(
    pipe: Connection, function: Callable[..., None], arguments: tuple[object, ...], log: Path | None
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if log:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    function(*arguments)


def memfeat(*arguments: object) -> None:
    """Run the command: for a process of its own."""
    main(list(map(str, arguments)))


def descendants(pid: int | None = None) -> list[int]:
    """All processes below one, or this one; memfeat's workers are children of its fork server."""
    found: list[int] = []
    with suppress(OSError):  # it has just ended
        for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return [each for child in found for each in (child, *descendants(child))]


def workers_of(pid: int) -> list[int]:
    """The worker processes that one has started, in the order of their start."""
    servers = [server for server in descendants(pid) if parent_of(server) == pid]
    return sorted(worker for server in servers for worker in descendants(server))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def exists(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits to be reaped, does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(claim: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until a claim holds, but not for ever; return whether it does."""
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


def reading(path: Path) -> list[int]:
    """The processes below this one that have a file open."""
    found = []
    for pid in descendants():
        with suppress(OSError):
            if any(link.readlink() == path for link in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(pid)
    return found


@contextmanager
def struck(path: Path, times: int, blow: signal.Signals) -> Iterator[set[int]]:
    """Send a signal to each of the first so many processes that open a file."""
    hit: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set() and len(hit) < times:
            for pid in set(reading(path)) - hit:
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, blow)
                    hit.add(pid)
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield hit
    finally:
        stop.set()
        thread.join()


def resident(pid: int | None = None) -> int:
    """Bytes of memory that a process, or this one, now holds."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory that processes hold together; what they share is counted once.

    Of files, such as libraries, what the process has that has most of them.
    """
    own, files = 0, [0]
    for pid in pids:
        with suppress(OSError):  # it has just ended
            texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("smaps_rollup", "status")]
            fields = [line.split() for text in texts for line in text.splitlines()]
            kilobytes = {each[0]: int(each[1]) for each in fields if each[-1] == "kB"}
            own += kilobytes["Pss_Anon:"] + kilobytes["Pss_Shmem:"] << 10
            files.append(kilobytes["RssFile:"] << 10)
    return own + max(files)
