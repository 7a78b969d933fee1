"""Features of many videos as one flat table."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.cache.shard import find_odd_vector
from memfeat.cache.spec import CacheSpec
from memfeat.errors import CacheError, counted


class VideoFeatures(NamedTuple):
    """One video's features, to be unpacked.

    Attributes:
        vectors: float16 (time, width), one row a frame.
        pts_seconds: float64 (time,), when each frame appears.
    """

    vectors: NDArray[np.float16]
    pts_seconds: NDArray[np.float64]


@dataclass(frozen=True)
class FeatureTable:
    """Embeddings of many videos as one flat table.

    Attributes:
        values: float16 (total_frames, width), contiguous.
        pts_seconds: float64 (total_frames,).
        covers: int32 (total_frames,), how many decoded frames, or clips, each one stands for.
        offsets: int64 (videos + 1,); video i has the rows offsets[i]:offsets[i + 1].
        video_ids: (videos,).
        spec: what made them.
        frame_sizes: int32 (videos, 2), width and height of each one's frames; zeros if not known.
    """

    values: NDArray[np.float16]
    pts_seconds: NDArray[np.float64]
    covers: NDArray[np.int32]
    offsets: NDArray[np.int64]
    video_ids: tuple[str, ...]
    spec: CacheSpec
    frame_sizes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.video_ids)

    def __repr__(self) -> str:
        size = f"{counted(len(self), 'video')}, {counted(len(self.values), 'frame')}"
        return f"<FeatureTable of {size}; {self.spec.describe()}>"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each video, int64 (videos,)."""
        return np.diff(self.offsets)

    def frames(self, index: int) -> NDArray[np.float16]:
        """Return a view of video `index`'s embeddings, (time, width)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def require_sound(self) -> None:
        """Refuse vectors that are not what the spec promises, such as NaN.

        Raises:
            CacheError: names the first such video.
        """
        found = find_odd_vector(self.values, self.spec, zeros=self.spec.is_text)
        if found:
            index = int(np.searchsorted(self.offsets, found[0], side="right")) - 1
            raise CacheError(
                f"the features of video {self.video_ids[index]!r} are damaged: {found[1]}. "
                "`memfeat cache repair` sets the shard aside, and `memfeat extract` makes it again"
            )
