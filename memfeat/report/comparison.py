"""A comparison of videos as one self-contained page of HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memfeat.report.html import render
from memfeat.report.videos import data_uri
from memfeat.storage import write_atomically

FRAME_SIDE = 240  # pixels


@dataclass(frozen=True)
class ComparedVideo:
    """What the page shows of a video.

    Attributes:
        name: its path, URL or id.
        score: predicted.
        interval: where the true score lies with a probability of 90 %, if that is known.
        percentile: which share of the scores that the run learned from is lower, in per cent.
        lines: what else there is to say, such as the frames that matter.
        timeline: what each frame does to the score, as an `<svg>` element.
        frames: pixels uint8 (height, width, 3) RGB, by the seconds at which each is shown.
    """

    name: str
    score: float
    interval: tuple[float, float] | None
    percentile: float | None
    lines: Sequence[str]
    timeline: str
    frames: Mapping[float, NDArray[np.uint8]]

    @property
    def pictures(self) -> list[tuple[float, str]]:
        """The frames as data URIs, each with its time in seconds."""
        return [(moment, data_uri(each, FRAME_SIDE)) for moment, each in self.frames.items()]


def write_comparison(
    output: Path,
    videos: Sequence[ComparedVideo],
    *,
    findings: Sequence[str],
    failed: Sequence[str],
    sources: Sequence[str],
) -> None:
    """Write the page; it has no script.

    Args:
        output: where.
        videos: those that have a score, the most memorable first.
        findings: which is more memorable, how sure that is, and which scores are in doubt.
        failed: why others have no score.
        sources: where features and scores come from.

    Raises:
        OSError: the page cannot be written.
    """
    page = render("comparison.html.j2", sources, videos=videos, findings=findings, failed=failed)
    write_atomically(output, page.encode())
