"""Files and where they are: atomic writes, paths and URLs, remote stores, tables of text.

Nothing here imports another part of memfeat but `errors`.
"""

from memfeat.storage.copies import (
    Mirror,
    copies_folder,
    local_copy,
    scratch_folder,
    shards_at,
)
from memfeat.storage.files import (
    atomic_replace,
    remove_stale_parts,
    sha256_of_file,
    stand_in,
    user_cache,
    write_atomically,
    write_json,
)
from memfeat.storage.locations import (
    AnyLocation,
    Location,
    Url,
    is_one,
    is_url,
    location_of,
    parse_location,
)
from memfeat.storage.remote import describe, fetch, list_files, read, remove, upload, write
from memfeat.storage.tables import format_rows, parse_number, read_rows

__all__ = [
    "AnyLocation",
    "Location",
    "Mirror",
    "Url",
    "atomic_replace",
    "copies_folder",
    "describe",
    "fetch",
    "format_rows",
    "is_one",
    "is_url",
    "list_files",
    "local_copy",
    "location_of",
    "parse_location",
    "parse_number",
    "read",
    "read_rows",
    "remove",
    "remove_stale_parts",
    "scratch_folder",
    "sha256_of_file",
    "shards_at",
    "stand_in",
    "upload",
    "user_cache",
    "write",
    "write_atomically",
    "write_json",
]
