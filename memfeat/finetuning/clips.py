"""The videos that can be used, and their clips of 16 frames.

Training takes a random clip of each video, scoring all of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import Status
from memfeat.config import Split
from memfeat.decoding import DecodedFrames, DecodeResult, DecodeSettings, decode_ahead
from memfeat.encoders.i3d import CLIP_FRAMES, SMALLEST_IMAGE
from memfeat.errors import TrainingError, VideoError
from memfeat.extraction import Clips
from memfeat.manifest import VideoRecord
from memfeat.training.reading import require_splits
from memfeat.video import Pixels

CLIPS_AHEAD = 16  # of training, decoded before their turn
START = 0x57A27  # keeps clips' starts apart from other uses of the same seed


@dataclass(frozen=True)
class VideoCheck:
    """What decoding a video once found; `message` says in words why it is not `ok`."""

    frames: int
    status: Status
    reason: str = ""
    message: str = ""


def check_videos(
    records: Sequence[VideoRecord],
    max_frames: int | None,
    decoders: int,
    on_video: Callable[[VideoRecord, VideoCheck], None],
) -> dict[str, VideoCheck]:
    """Decode every video once, to learn how many frames it has and whether it can be used."""
    found = {}
    settings = DecodeSettings(SMALLEST_IMAGE, max_frames=max_frames)
    frames: Counter[int] = Counter()
    with decode_ahead(records, settings, decoders=decoders) as videos:
        for event in videos:
            if isinstance(event, DecodedFrames):
                frames[event.number] += len(event.pixels)
                continue
            status, reason, message, *_ = event.result
            check = VideoCheck(frames[event.number], status, reason, message)
            found[event.record.video_id] = check
            on_video(event.record, check)
    return found


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


def start_of_clip(seed: int, epoch: int, video: int, frames: int) -> int:
    """Draw at which of a video's frames its training clip starts; 0 if it has no full clip."""
    generator = np.random.default_rng([seed, epoch, video, START])
    return int(generator.integers(max(1, frames - CLIP_FRAMES + 1)))


def clips_at(
    records: Sequence[VideoRecord], starts: Sequence[int], size: int, decoders: int
) -> Iterator[tuple[VideoRecord, NDArray[np.uint8] | VideoError]]:
    """Decode one clip of each video, uint8 (16, size, size, 3), in order; or say why it has none.

    A short clip repeats the video's last frame. A bounded number is decoded ahead.

    Args:
        records: which videos.
        starts: the frame at which each one's clip starts.
        size: side of the frames, in pixels.
        decoders: processes.
    """
    settings = [
        DecodeSettings(size, first_frame=start, max_frames=start + CLIP_FRAMES, hashed=False)
        for start in starts
    ]
    clips = defaultdict[int, list[Pixels]](list)
    ended = dict[int, DecodeResult]()
    number = 0
    most = CLIPS_AHEAD + decoders
    with decode_ahead(records, settings, decoders=decoders, most_open=most) as videos:
        for event in videos:
            if isinstance(event, DecodedFrames):
                clips[event.number] += [frame.copy() for frame in event.pixels]
                continue
            ended[event.number] = event.result
            while number in ended:
                clip, result = clips.pop(number, []), ended.pop(number)
                yield records[number], _clip(clip, result, records[number], starts[number])
                number += 1


def _clip(
    clip: list[Pixels], result: DecodeResult, record: VideoRecord, start: int
) -> NDArray[np.uint8] | VideoError:
    if result.status == "failed":
        return VideoError(result.reason, result.message)
    if not clip:
        text = f"has no frame {start} any more; it changed since training began"
        return VideoError("changed", f"{str(record.path)!r} {text}")
    return np.stack(clip + [clip[-1]] * (CLIP_FRAMES - len(clip)))


def clips_in_order(
    records: Sequence[VideoRecord], size: int, max_frames: int | None, decoders: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode all clips of all videos as extraction does, each with its video's number.

    Those of one video come in order, between those of others.
    """
    settings = DecodeSettings(size, max_frames=max_frames)
    clips = defaultdict[int, Clips](lambda: Clips(CLIP_FRAMES))
    with decode_ahead(records, settings, decoders=decoders) as videos:
        for event in videos:
            if isinstance(event, DecodedFrames):
                found = clips[event.number].add(event.pixels, event.pts_seconds)
            else:
                found = clips.pop(event.number, Clips(CLIP_FRAMES)).end()
            for pixels, _ in found:
                yield event.number, pixels
