"""What the tests of a shared table run in processes of their own, which so need not load torch."""

import hashlib
import re
from pathlib import Path

from memfeat.cache import SharedTable


def read_all(connection, table: SharedTable) -> None:
    """Send a hash of the table, its ids, and the memory in kB that reading it took; then wait."""
    before = own_memory()
    mapped = table.open()
    digest = hashlib.sha256(mapped.values.data)
    digest.update(mapped.pts_seconds.data)
    connection.send((digest.hexdigest(), mapped.video_ids, own_memory() - before))
    connection.recv()


def own_memory() -> int:
    """Return this process's memory that no file backs, in kB; 0 where only Linux would tell."""
    if not Path("/proc/self/status").exists():
        return 0
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])
