"""How large a cache of some footage gets, to a hundredth, by the layout of its shards."""

import math
from dataclasses import dataclass
from typing import Any

from memfeat.encoders import VectorShape
from memfeat.planning.footage import Footage

# As `memfeat.cache.shard` lays them out; a test compares with shards that it wrote.
FLOAT16_BYTES = 2
TIME_BYTES = 8 + 4  # pts_seconds, covers
VIDEO_BYTES = 8 + 8 + 8 + 64 + 2 + 1  # offset, size, expected frames, hash, `ok`, no reason
SHARD_BYTES = 6_600  # HDF5's headers, the spec and the checksum


@dataclass(frozen=True)
class Size:
    """A cache's size.

    Attributes:
        rows: what the encoder makes, and the cache keeps.
        shape: of a row.
        row_bytes, video_bytes: of each row, and of each video beside its rows.
        shards: HDF5 files.
        shard_bytes: of each, on average.
        total_bytes: of all.
    """

    rows: float
    shape: VectorShape
    row_bytes: int
    video_bytes: int
    shards: int
    shard_bytes: int
    total_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "rows": round(self.rows),
            "numbers_a_row": self.shape.width,
            "row_bytes": self.row_bytes,
            "cache_bytes": self.total_bytes,
            "shards": self.shards,
            "shard_bytes": self.shard_bytes,
        }


def size_of(footage: Footage, shape: VectorShape, keep: float, videos_per_shard: int) -> Size:
    """Predict the size of a cache.

    Args:
        footage: videos and their lengths.
        shape: of the encoder's rows.
        keep: share of the frames that a sampler keeps, in (0, 1].
        videos_per_shard: at most.
    """
    rows_a_video = sum(_rows(frames, shape, keep) for frames in footage.lengths)
    rows = footage.videos * rows_a_video / len(footage.lengths)
    row_bytes = FLOAT16_BYTES * shape.width + TIME_BYTES
    video_bytes = VIDEO_BYTES + footage.id_bytes
    shards = math.ceil(footage.videos / videos_per_shard)
    total = round(rows * row_bytes) + footage.videos * video_bytes + shards * SHARD_BYTES
    return Size(rows, shape, row_bytes, video_bytes, shards, round(total / shards), total)


def _rows(frames: float, shape: VectorShape, keep: float) -> float:
    """Return the rows of one video: of clips the whole ones, and at least one of whatever it is."""
    if not frames:
        return 0.0
    return max(1.0, frames * keep if shape.clip_frames == 1 else frames // shape.clip_frames)
