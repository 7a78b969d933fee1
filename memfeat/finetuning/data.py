"""The videos of each split that can be used: those that decode without a fault."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.config import Split
from memfeat.errors import TrainingError
from memfeat.finetuning.clips import VideoCheck
from memfeat.manifest import VideoRecord


def select_videos(records: Sequence[VideoRecord]) -> tuple[VideoRecord, ...]:
    """Return the videos with a score, and the test split's.

    Raises:
        TrainingError: none with a score in train or dev.
    """
    kept = tuple(each for each in records if each.score is not None or each.split == "test")
    for split in ("train", "dev"):
        if not any(each.split == split for each in kept):
            found = sum(each.split == split for each in records)
            held = f"{found} videos, none with a score" if found else "no video"
            raise TrainingError(
                f"of the {len(records)} videos, the {split} split has {held}; give scored videos "
                "in train to learn from, and in dev to choose the best epoch by"
            )
    return kept


def labels_sha256(records: Sequence[VideoRecord]) -> str:
    """Return a hash of ids, splits and scores."""
    labels = [[each.video_id, each.split, each.score] for each in records]
    return hashlib.sha256(json.dumps(labels).encode()).hexdigest()


@dataclass(frozen=True)
class UsableVideos:
    """The videos that can be used, and why the others cannot.

    Attributes:
        records: in the manifest's order.
        checks: of those and the others, by video id.
    """

    records: tuple[VideoRecord, ...]
    checks: Mapping[str, VideoCheck]

    @classmethod
    def of(cls, records: Sequence[VideoRecord], checks: Mapping[str, VideoCheck]) -> Self:
        """Keep the videos that are `ok`.

        Raises:
            TrainingError: none is left in train or dev; the message counts the reasons.
        """
        kept = tuple(each for each in records if checks[each.video_id].status == "ok")
        for split in ("train", "dev"):
            if not any(each.split == split for each in kept):
                reasons = Counter(
                    checks[each.video_id].reason for each in records if each.split == split
                )
                listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
                raise TrainingError(
                    f"no scored video of the {split} split can be decoded whole ({listed}); mend "
                    "them, or check --manifest and --root"
                )
        return cls(kept, checks)

    def split(self, split: Split) -> list[VideoRecord]:
        """Return a split's videos."""
        return [each for each in self.records if each.split == split]

    def frames(self, record: VideoRecord) -> int:
        """Return how many frames a video has."""
        return self.checks[record.video_id].frames

    @property
    def unused(self) -> dict[str, dict[str, str]]:
        """By `failed` and `partial`: video id to reason."""
        return {
            status: {
                name: each.reason for name, each in self.checks.items() if each.status == status
            }
            for status in ("failed", "partial")
        }

    def as_json(self) -> dict[str, Any]:
        """Return `checks` ready for JSON."""
        return {video_id: asdict(each) for video_id, each in self.checks.items()}


def scores_of(records: Sequence[VideoRecord]) -> NDArray[np.float64]:
    """Return the videos' scores, (videos,), NaN where withheld."""
    return np.array([np.nan if each.score is None else each.score for each in records])
