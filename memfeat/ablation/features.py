"""The features that a grid's workers share, each cache's in memory once."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from memfeat.ablation.jobs import JobData
from memfeat.cache import Cache, SharedTable, shared_table
from memfeat.config import TrainConfig
from memfeat.manifest import Manifest, read_manifest
from memfeat.storage import Location
from memfeat.training import Examples, select_records

Source = tuple[Location, Location]  # a manifest and a cache


class _Shared(NamedTuple):
    """A shared table, and what removes it."""

    table: SharedTable
    exits: ExitStack


class SharedFeatures:
    """Tables in memory-mapped files of `folder`; leaving the context removes them.

    Args:
        folder: for the files.
        on_disk: whether they are written to disk at once, for workers on other machines.
    """

    def __init__(self, folder: Path, *, on_disk: bool) -> None:
        self._folder, self._on_disk = folder, on_disk
        self._shared: dict[Source, _Shared] = {}

    def __enter__(self) -> "SharedFeatures":
        return self

    def __exit__(self, *_: object) -> None:
        for shared in self._shared.values():
            shared.exits.close()

    def load(self, config: TrainConfig) -> JobData:
        """Share the tables of a run's caches, and join them with its manifest's records.

        Raises:
            MemfeatError, OSError: manifest or cache cannot be read, or cannot be trained on.
        """
        manifest = read_manifest(config.manifest)
        caches = [Cache.open(folder) for folder in config.cache]
        records = select_records(manifest, *caches).records
        tables = tuple(self._table(manifest, cache) for cache in caches)
        examples = Examples.join([table.open() for table in tables], records)
        examples.require_splits()
        return JobData(tables, examples.records, examples.facts)

    def _table(self, manifest: Manifest, cache: Cache) -> SharedTable:
        source = manifest.path, cache.folder
        if source not in self._shared:
            usable = set(cache.usable())
            ids = [r.video_id for r in manifest.records if r.video_id in usable]
            cache.require_whole(ids)
            with ExitStack() as stack:
                table = stack.enter_context(shared_table(cache, ids, self._folder))
                if self._on_disk:
                    table.write_back()
                self._shared[source] = _Shared(table, stack.pop_all())
        return self._shared[source].table

    def remove_unused(self, data: Iterable[JobData], configs: Iterable[TrainConfig]) -> None:
        """Remove the tables that are part of no `data`, and that no run of `configs` will load."""
        needed = {table for each in data for table in each.tables}
        coming = {(config.manifest, cache) for config in configs for cache in config.cache}
        for source, (table, exits) in list(self._shared.items()):
            if table not in needed and source not in coming:
                exits.close()
                del self._shared[source]
