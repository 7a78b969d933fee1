"""Looking at the processes that a test starts, and sending them signals at the right moment."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def descendants(pid: int | None = None) -> set[int]:
    """All processes below one, or below this one: workers may be children of a fork server."""
    found: set[int] = set()
    with suppress(OSError):  # they come and go
        for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
            with suppress(OSError):
                found |= set(map(int, (task / "children").read_text().split()))
    return found.union(*map(descendants, found))


def exists(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody could have reaped."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def eventually(claim: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait for a claim to become true."""
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
