"""What the tests of a shared table run in processes of their own, which so need not load torch."""

import re
from pathlib import Path

import numpy as np

from memfeat.cache import SharedTable


def send_content(connection, table: SharedTable) -> None:
    """In a process of its own: send what the table holds; then wait for leave to end."""
    mapped = table.open()
    connection.send((mapped.values.tobytes(), mapped.pts_seconds.tobytes(), mapped.video_ids))
    connection.recv()


def touch(connection, table: SharedTable) -> None:
    """In a process of its own: look at all of the table, send how much memory of its own it took
    for that, in kB, and wait for leave to end."""
    before = own_memory()
    mapped = table.open()
    for start in range(0, len(mapped.values), 64):
        mapped.values[start : start + 64].view(np.uint16).max()
    mapped.pts_seconds.max()
    connection.send(own_memory() - before)
    connection.recv()


def own_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])
