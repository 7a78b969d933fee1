"""The rate of each stage of extraction, and which one is the bottleneck."""

from dataclasses import dataclass, fields
from typing import Any

SLACK = 0.1  # share of the time that waiting may take


@dataclass(frozen=True)
class Rates:
    """Frames that passed each stage of a pipeline, and where its time went.

    Add those of several pipelines that run side by side.

    Attributes:
        decoded, encoded, written: frames; a sampler decodes more than are encoded, and of clips
            each row counts as one.
        seconds: that the pipelines ran, added up.
        waited_for_frames: of these, seconds without a frame to encode.
        waited_for_copies: of these, seconds without a remote video that was fetched.
        waited_for_disk: of these, seconds in which rows could not be written fast enough.
        queued: filled share of the memory for decoded frames, times `seconds`.
        pipelines: how many.
    """

    decoded: int = 0
    encoded: int = 0
    written: int = 0
    seconds: float = 0.0
    waited_for_frames: float = 0.0
    waited_for_copies: float = 0.0
    waited_for_disk: float = 0.0
    queued: float = 0.0
    pipelines: int = 0

    def __add__(self, other: "Rates") -> "Rates":
        names = [field.name for field in fields(self)]
        return Rates(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def wall_seconds(self) -> float:
        """How long the pipelines ran, in parallel."""
        return self.seconds / self.pipelines if self.pipelines else 0.0

    @property
    def queue_fill(self) -> float:
        """Mean filled share of the memory for decoded frames, in [0, 1]."""
        return self.queued / self.seconds if self.seconds else 0.0

    @property
    def bottleneck(self) -> str:
        """The slowest stage: `fetch`, `decode`, `encode` or `write`; empty at first."""
        if not self.encoded:
            return ""
        waits = {
            "fetch": self.waited_for_copies,
            "decode": self.waited_for_frames,
            "write": self.waited_for_disk,
        }
        stage = max(waits, key=lambda name: waits[name])
        return stage if waits[stage] > SLACK * self.seconds else "encode"

    @property
    def advice(self) -> str:
        """The bottleneck, and what to do about it."""
        share = f"{self.waited_for_frames / self.seconds:.0%}" if self.seconds else ""
        return {
            "": "",
            "encode": "encode-bound: as it should be",
            "decode": f"decode-bound: the encoder waited {share} of the time; add --decoders, "
            "or cores",
            "fetch": "fetch-bound: remote videos come too slowly; extract nearer to them",
            "write": "write-bound: the cache's disk is too slow; put --cache on another",
        }[self.bottleneck]

    def as_dict(self) -> dict[str, Any]:
        """Return frames/s of each stage, shares in [0, 1] and the bottleneck, for JSON."""
        wall = self.wall_seconds
        return {
            "decoded_per_second": round(self.decoded / wall, 2) if wall else None,
            "encoded_per_second": round(self.encoded / wall, 2) if wall else None,
            "written_per_second": round(self.written / wall, 2) if wall else None,
            "queue_fill": round(self.queue_fill, 3) if wall else None,
            "waited_for_frames": round(self.waited_for_frames / self.seconds, 3) if wall else None,
            "bottleneck": self.bottleneck or None,
        }
