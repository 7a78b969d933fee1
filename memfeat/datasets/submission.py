"""Run files, in which MediaEval's participants submitted their predictions for a test set.

No official description survives: the layouts are those of participants' repositories.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import RunError
from memfeat.storage import write_atomically

Layout = Literal["2018", "2021", "2026"]
Missing = Literal["refuse", "mean"]

SOURCES_SUFFIX = ".sources.txt"
SHOWN = 5  # ids in a message
CONFIDENCE = 1.0  # for each video alike (ours): a regressor gives none


class _Columns(NamedTuple):
    """A layout: its header, if it has one, and whether a confidence follows the score."""

    header: tuple[str, ...]
    confidence: bool


LAYOUTS: Mapping[Layout, _Columns] = {
    "2018": _Columns((), confidence=True),
    "2021": _Columns((), confidence=False),
    "2026": _Columns(("video", "mem_score"), confidence=False),
}


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        path: the run file.
        videos: how many lines it has, its header aside.
        filled: videos without a prediction, which were given the mean of the others.
    """

    path: Path
    videos: int
    filled: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields ready for JSON."""
        return asdict(self)


def write_submission(
    path: Path,
    layout: Layout,
    video_ids: Sequence[str],
    predicted: Mapping[str, float],
    *,
    missing: Missing = "refuse",
    sources: Sequence[str] = (),
) -> Submission:
    """Write a run file: each video once, in this order, with a score in [0, 1].

    `NAME.sources.txt` beside it says what made the scores, for which the layouts have no column.

    Args:
        path: the run file.
        layout: `2018` for lines of `video,score,confidence`, `2021` for `id,score`, `2026` for
            a header and `video,mem_score`.
        video_ids: of the test set.
        predicted: scores by id; may lack some and have others.
        missing: `mean` gives videos without a prediction the mean of the others (ours).
        sources: lines for `NAME.sources.txt`.

    Raises:
        RunError: videos have no prediction, or one that is not in [0, 1].
        OSError: the file cannot be written.
    """
    found = np.array([predicted.get(video_id, np.nan) for video_id in video_ids])
    without = _some(video_ids, np.isnan(found))
    if without and (missing == "refuse" or len(without) == len(video_ids)):
        raise RunError(
            f"{len(without)} of the {len(video_ids)} videos have no prediction: "
            f"{', '.join(map(repr, without[:SHOWN]))}{' ...' if len(without) > SHOWN else ''}; "
            "a run file names every video: mend them (`memfeat status` says how), or give them the "
            "mean of the others by --missing mean"
        )
    scores = np.where(np.isnan(found), np.nanmean(found), found) if without else found
    if outside := _some(video_ids, (scores < 0) | (scores > 1)):
        first = predicted[outside[0]]
        raise RunError(f"{len(outside)} scores are not in [0, 1]: {outside[0]!r} has {first}")
    columns = LAYOUTS[layout]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if columns.header:
        writer.writerow(columns.header)
    confidence = [f"{CONFIDENCE:g}"] if columns.confidence else []
    for video_id, score in zip(video_ids, scores.tolist(), strict=True):
        writer.writerow([video_id, repr(score), *confidence])
    write_atomically(path.with_name(path.name + SOURCES_SUFFIX), _lines(sources))
    write_atomically(path, text.getvalue().encode())
    return Submission(path, len(video_ids), without)


def _some(video_ids: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(video_id for video_id, wanted in zip(video_ids, chosen, strict=True) if wanted)


def _lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()
