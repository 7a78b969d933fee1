"""The embedding cache: stage 1 fills it, stage 2 trains from it.

A cache is a folder of HDF5 shards. What is done is what the shards say; there is no other record.
"""

from memfeat.cache.comparing import FeatureDifference, FeatureFile, compare_features, open_both
from memfeat.cache.exporting import ExportSummary, export_features
from memfeat.cache.folder import Cache
from memfeat.cache.importing import ImportSummary, import_features
from memfeat.cache.shard import MOST_COVERED
from memfeat.cache.shared_table import SharedTable, shared_table
from memfeat.cache.spec import INTERPOLATION, CacheSpec
from memfeat.cache.status import CacheStatus, Repair, repair, same_sources, status_of, verify
from memfeat.cache.table import FeatureTable, VideoFeatures
from memfeat.cache.video import EncodedVideo, Rows, Status, VideoEntry, blocks_of
from memfeat.cache.writing import ShardTarget, Spool, SpooledRows, shard_target, write_shard

__all__ = [
    "INTERPOLATION",
    "MOST_COVERED",
    "Cache",
    "CacheSpec",
    "CacheStatus",
    "EncodedVideo",
    "ExportSummary",
    "FeatureDifference",
    "FeatureFile",
    "FeatureTable",
    "ImportSummary",
    "Repair",
    "Rows",
    "ShardTarget",
    "SharedTable",
    "Spool",
    "SpooledRows",
    "Status",
    "VideoEntry",
    "VideoFeatures",
    "blocks_of",
    "compare_features",
    "export_features",
    "import_features",
    "open_both",
    "repair",
    "same_sources",
    "shard_target",
    "shared_table",
    "status_of",
    "verify",
    "write_shard",
]
