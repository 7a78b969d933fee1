"""The embedding cache: stage 1 fills it, stage 2 trains from it.

A cache is a folder of HDF5 shards. What is done is what the shards say; there is no other record.
"""

from memfeat.cache.shard import EncodedVideo, Status, VideoEntry, write_shard
from memfeat.cache.spec import CacheSpec
from memfeat.cache.table import Cache, FeatureTable, verify

__all__ = [
    "Cache",
    "CacheSpec",
    "EncodedVideo",
    "FeatureTable",
    "Status",
    "VideoEntry",
    "verify",
    "write_shard",
]
