"""The videos of each split that can be used: those that decode without a fault."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from memfeat.config import Split
from memfeat.errors import TrainingError
from memfeat.finetuning.clips import VideoCheck
from memfeat.manifest import VideoRecord
from memfeat.training.reading import require_splits


def select_videos(records: Sequence[VideoRecord]) -> tuple[VideoRecord, ...]:
    """Return the videos with a score, and the test split's.

    Raises:
        TrainingError: none with a score in train or dev.
    """
    require_splits(records)
    return tuple(each for each in records if each.score is not None or each.split == "test")


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
