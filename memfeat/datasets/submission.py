"""Run files, in which MediaEval's participants submitted their predictions for a test set.

No official description survives: the layouts are those of participants' repositories.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from memfeat.errors import RunError
from memfeat.storage import write_atomically

Layout = Literal["2018", "2021", "2026"]
Missing = Literal["refuse", "mean"]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SOURCES_SUFFIX = ".sources.txt"
SHOWN = 5  # ids in a message


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        path: the run file.
        videos: how many it lists.
        filled: videos without a prediction, which were given the mean of the others.
    """

    path: Path
    videos: int
    filled: tuple[str, ...]


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

    `NAME.sources.txt` beside it says what made the scores, for which the layouts have no column,
    and names the videos that were given the mean.

    Args:
        path: the run file.
        layout: `2018` for lines of `video,score,confidence`, the confidence always 1 since a
            regressor gives none (ours); `2021` for `id,score`; `2026` for a header and
            `video,mem_score`.
        video_ids: of the test set.
        predicted: scores by id; may lack some and have others.
        missing: `mean` gives videos without a prediction the mean of the others (ours).
        sources: lines for `NAME.sources.txt`.

    Raises:
        RunError: videos have no prediction, or one that is not in [0, 1].
        OSError: a file cannot be written.
    """
    found = np.array([predicted.get(video_id, np.nan) for video_id in video_ids])
    pairs = list(zip(video_ids, found.tolist(), strict=True))
    without = tuple(video_id for video_id, score in pairs if np.isnan(score))
    if without and (missing == "refuse" or len(without) == len(video_ids)):
        raise RunError(
            f"{len(without)} of the {len(video_ids)} videos have no prediction: "
            f"{', '.join(map(repr, without[:SHOWN]))}{' ...' if len(without) > SHOWN else ''}; "
            "a run file names every video: mend them (`memfeat status` says how), or give them the "
            "mean of the others by --missing mean"
        )
    outside = [pair for pair in pairs if pair[1] < 0 or pair[1] > 1]
    if outside:
        video_id, score = outside[0]
        raise RunError(f"{len(outside)} scores are not in [0, 1]: {video_id!r} has {score}")
    mean = float(np.nanmean(found)) if without else 0.0
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if layout == "2026":
        writer.writerow(["video", "mem_score"])
    confidence = ["1"] if layout == "2018" else []
    for video_id, score in pairs:
        writer.writerow([video_id, repr(mean if np.isnan(score) else score), *confidence])
    note = f"without a prediction, given the mean of the others: {', '.join(without)}"
    lines = "".join(f"{line}\n" for line in (*sources, *([note] if without else [])))
    write_atomically(path.with_name(path.name + SOURCES_SUFFIX), lines.encode())
    write_atomically(path, text.getvalue().encode())
    return Submission(path, len(video_ids), without)
