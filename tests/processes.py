"""Looking at processes through /proc."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return all processes below one; memfeat's workers are children of its fork server."""
    return [each for child in _children(pid) for each in (child, *descendants(child))]


def workers_of(pid: int) -> list[int]:
    """Return the worker processes that one has started, in the order of their start."""
    return sorted(worker for server in _children(pid) for worker in descendants(server))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # it has just ended
            found += map(int, (task / "children").read_text().split())
    return found


def exists(pid: int) -> bool:
    """Return whether a process runs; a zombie, which only waits to be reaped, does not."""
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
