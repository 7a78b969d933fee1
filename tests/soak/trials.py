"""How often each kind of fault is tried by `make soak`, and what is counted of it."""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

TRIALS = {
    "extraction killed at random moments": 200,
    "extraction killed at steps of writing": 40,
    "2 writers on one cache": 5,
    "8 writers on one cache": 2,
    "training killed at random moments": 50,
    "video mutants, mp4": 2000,
    "video mutants, mkv": 2000,
    "video mutants, webm": 2000,
    "video mutants, avi": 2000,
    "video mutants, mpegts": 2000,
    "videos in one process": 2000,
    "mutants of shards": 500,
    "mutants of manifests": 500,
    "mutants of configs": 500,
    "mutants of checkpoints": 500,
    "mutants of run folders": 500,
    "mutants of reports": 100,
    "uploads, one after another": 200,
    "uploads, all at once": 2000,
}
SCALE = float(os.environ.get("MEMFEAT_SOAK", "1"))  # 0.02 tries the harness itself
RESULT = Path("runs/soak.json")
FORBIDDEN = ("lost", "doubled", "unreadable", "uncaught")


def trials(kind: str) -> int:
    """How many trials of a kind are wanted, one at least."""
    return max(1, math.ceil(TRIALS[kind] * SCALE))


@dataclass
class Row:
    """What came of a kind.

    Attributes:
        kind: as in `TRIALS`.
        tried: trials made.
        survived: those of which nothing below is counted.
        lost: finished work that was gone or differs, or data that was wrong and taken for right.
        doubled: work that stands there twice.
        unreadable: files left behind that cannot be read.
        uncaught: tracebacks, crashes of the parent, hangs, memory beyond its bound.
        note: how the trials ended, in words.
    """

    kind: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    doubled: int = 0
    unreadable: int = 0
    uncaught: int = 0
    note: str = ""

    def count(self, **found: int) -> None:
        """Count a trial: survived, unless some of the forbidden was found."""
        self.tried += 1
        self.survived += not any(found.values())
        for name, number in found.items():
            setattr(self, name, getattr(self, name) + number)

    @property
    def forbidden(self) -> dict[str, int]:
        """What must be 0, and is not."""
        return {name: n for name in FORBIDDEN if (n := getattr(self, name))}


def table(rows: list[Row]) -> list[str]:
    """The rows as lines for people."""
    columns = ("tried", "survived", *FORBIDDEN)
    lines = [f"{'kind':<40}" + "".join(f"{name:>11}" for name in columns)]
    for row in rows:
        figures = "".join(f"{getattr(row, name):>11}" for name in columns)
        lines.append(f"{row.kind:<40}{figures}  {row.note}".rstrip())
    return lines


def write(rows: list[Row]) -> None:
    """Write the rows for machines."""
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
