"""How many videos there are and how long they are, as far as can be told without decoding."""

import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memfeat.errors import ConfigError, VideoError
from memfeat.manifest import Manifest
from memfeat.video import frames_by_header

NORMAL_95 = 1.96  # standard errors on either side of a mean
ASSUMED_ID_BYTES = 16


@dataclass(frozen=True)
class Footage:
    """Videos, and the lengths of some of them, which stand for all.

    Attributes:
        videos: that are there.
        lengths: frames of each video that was looked at, 0 for one that cannot be read; or the
            one length that was given.
        is_given: whether videos and length were given, not looked up.
        id_bytes: of the longest id, in UTF-8.
        source_bytes: of the videos' files; None where not all could be looked at.
        missing: ids of the videos whose files are not there; they are not among `videos`.
        remote: how many of `videos` are not on this machine; they are not looked at.
        silent: how many were looked at whose header tells no length.
        unreadable: of those looked at, the ones that cannot be read: id to reason.
    """

    videos: int
    lengths: tuple[float, ...]
    is_given: bool = False
    id_bytes: int = ASSUMED_ID_BYTES
    source_bytes: int | None = None
    missing: tuple[str, ...] = ()
    remote: int = 0
    silent: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def frames_a_video(self) -> float:
        """Their mean length."""
        return statistics.fmean(self.lengths)

    @property
    def frames(self) -> float:
        """Of all videos; an estimate unless every header was read."""
        return self.videos * self.frames_a_video

    @property
    def error(self) -> float | None:
        """Half the 95 % interval of `frames`, as a share of it; None if two lengths are not known.

        It is that of the mean of a random sample without replacement, by the normal law. What the
        headers get wrong is not in it.
        """
        count = len(self.lengths)
        if self.is_given or count == self.videos:
            return 0.0
        if count < 2 or not self.frames_a_video:
            return None
        unseen = 1 - count / self.videos
        deviation = statistics.stdev(self.lengths) * math.sqrt(unseen / count)
        return NORMAL_95 * deviation / self.frames_a_video

    def as_dict(self) -> dict[str, Any]:
        """Return counts, sizes and the spread of lengths, ready for JSON."""
        found: dict[str, Any] = {
            "videos": self.videos,
            "frames": round(self.frames),
            "frames_a_video": round(self.frames_a_video, 3),
        }
        if self.is_given:
            return found
        return found | {
            "frames_error_95": None if self.error is None else round(self.error, 5),
            "source_bytes": self.source_bytes,
            "missing": list(self.missing),
            "remote": self.remote,
            "headers": {
                "looked_at": len(self.lengths) + self.silent,
                "silent": self.silent,
                "unreadable": self.unreadable,
                "shortest": min(self.lengths),
                "median": statistics.median(self.lengths),
                "longest": max(self.lengths),
            },
        }


def look_at(manifest: Manifest, headers: int) -> Footage:
    """Look for every video's file, and at the headers of some, drawn at random but always alike.

    Raises:
        ConfigError: no length can be had.
    """
    found = {record.video_id: record.path for record in manifest.records}
    local = {video_id: path for video_id, path in found.items() if isinstance(path, Path)}
    sizes = {video_id: _size(path) for video_id, path in local.items()}
    present = [video_id for video_id in local if sizes[video_id] is not None]
    remote = len(manifest.records) - len(local)
    drawn = random.Random(0).sample(present, min(headers, len(present)))  # noqa: S311
    lengths, silent, unreadable = _read_headers({video_id: local[video_id] for video_id in drawn})
    if not lengths:
        raise ConfigError(
            f"{manifest.path}: of {len(manifest.records)} videos, {len(present)} are there and "
            f"{remote} are remote, and none of the {len(drawn)} looked at tells its length; give "
            "--videos and --seconds instead, or another --root"
        )
    return Footage(
        videos=len(present) + remote,
        lengths=lengths,
        id_bytes=max(len(record.video_id.encode()) for record in manifest.records),
        source_bytes=None if remote else sum(size or 0 for size in sizes.values()),
        missing=tuple(video_id for video_id, size in sizes.items() if size is None),
        remote=remote,
        silent=silent,
        unreadable=unreadable,
    )


def _size(path: Path) -> int | None:
    """Return a file's bytes, None where there is none that may be looked at."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def _read_headers(
    paths: Mapping[str, Path],
) -> tuple[tuple[float, ...], int, dict[str, str]]:
    """Return lengths in frames, how many headers are silent, and which cannot be read, and why."""
    lengths, silent, unreadable = [], 0, {}
    for video_id, path in paths.items():
        try:
            frames = frames_by_header(path)
        except VideoError as error:
            unreadable[video_id] = error.reason
            frames = 0.0  # it will fail, and cost nothing
        if frames is None:
            silent += 1
        else:
            lengths.append(frames)
    return tuple(lengths), silent, unreadable
