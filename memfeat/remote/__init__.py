"""Files that are elsewhere, through fsspec: fetched whole and put in place whole, never opened.

Object stores, web servers, other machines: whatever fsspec has a protocol for. Everything between
fetching and putting works on this machine's disk.
"""

from memfeat.remote.mirror import Mirror, files_at, local_folder, shards_at
from memfeat.remote.scratch import local_copy, scratch_folder
from memfeat.remote.store import fetch, list_files, read, remove, upload, write

__all__ = [
    "Mirror",
    "fetch",
    "files_at",
    "list_files",
    "local_copy",
    "local_folder",
    "read",
    "remove",
    "scratch_folder",
    "shards_at",
    "upload",
    "write",
]
