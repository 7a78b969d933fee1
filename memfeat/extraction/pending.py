"""Which videos an extraction has to encode, and what it would do, told without doing it."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from memfeat.cache import Cache, VideoEntry
from memfeat.config import EVERY_REASON, ExtractConfig
from memfeat.encoders import weights_at_hand
from memfeat.extraction.texts import Texts
from memfeat.manifest import Manifest, VideoRecord
from memfeat.storage import shards_at


def part_of(manifest: Manifest, config: ExtractConfig) -> list[VideoRecord]:
    """Return the videos of every N-th shard: the parts together make the same shards as one run."""
    share, _, count = (config.part or "1/1").partition("/")
    shards = in_shards(manifest.records[: config.limit], config.videos_per_shard)
    return list(chain.from_iterable(shards[int(share) - 1 :: int(count)]))


def in_shards(records: Sequence[VideoRecord], size: int) -> list[list[VideoRecord]]:
    """Cut videos into shards, in their order."""
    return [list(records[start : start + size]) for start in range(0, len(records), size)]


def settled(cache: Cache, config: ExtractConfig) -> dict[str, str]:
    """Map the videos that need no work to why they failed, empty for those that did not."""
    return {
        video_id: entry.reason if entry.status == "failed" else ""
        for video_id, entry in cache.entries.items()
        if not _is_tried_again(entry, config)
    }


def plan_extraction(manifest: Manifest, config: ExtractConfig) -> dict[str, Any]:
    """Tell what `extract` would do. Nothing is written, loaded or decoded.

    Whether a cache that is there was made in the same way is compared by its encoder alone; the
    rest shows when the encoder is built.

    Raises:
        UnknownNameError: no such encoder.
        ConfigError, ManifestError: texts that are not there.
        CacheError: the cache cannot be read.
        RemoteError: it is remote, and cannot be had.
    """
    records = part_of(manifest, config)
    if config.text:
        Texts.open(config.text, [record.video_id for record in manifest.records])
    cache = Cache.open(config.cache) if shards_at(config.cache) else None
    done = settled(cache, config) if cache else {}
    pending = [record for record in records if record.video_id not in done]
    paths = {r.video_id: r.path for r in pending if isinstance(r.path, Path) and not config.text}
    plan: dict[str, Any] = {
        "cache": str(config.cache),
        "videos": len(records),
        "already_done": len(records) - len(pending),
        "pending": [record.video_id for record in pending],
        "no_file": [name for name, path in paths.items() if not path.exists()],
        "shards": len(in_shards(pending, config.videos_per_shard)),
        "encoder": config.encoder,
        "weights": weights_at_hand(config.encoder, config.weights),
    }
    if cache and cache.spec.encoder != config.encoder:
        plan["refused"] = f"the cache was made with {cache.spec.flags}"
    return plan


def _is_tried_again(entry: VideoEntry, config: ExtractConfig) -> bool:
    every = EVERY_REASON in config.retry_failed and entry.status == "failed"
    return every or (entry.status != "ok" and entry.reason in config.retry_failed)
