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

from memfeat.datasets.formats import csv_rows
from memfeat.errors import ManifestError, RunError, counted, listed
from memfeat.storage import write_atomically

Layout = Literal["2018", "2021", "2026", "videm"]
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
            `video,mem_score`. Of `videm` see `write_adverts`.
        video_ids: of the test set.
        predicted: scores by id; may lack some and have others.
        missing: `mean` gives videos without a prediction the mean of the others (ours).
        sources: lines for `NAME.sources.txt`.

    Raises:
        RunError: videos have no prediction, or one that is not in [0, 1].
        OSError: a file cannot be written.
    """
    scores, without = _completed(video_ids, predicted, missing)
    header = [["video", "mem_score"]] if layout == "2026" else []
    confidence = ["1"] if layout == "2018" else []
    rows = [[name, score, *confidence] for name, score in zip(video_ids, scores, strict=True)]
    return _write(path, [*header, *rows], len(rows), without, sources)


def write_adverts(
    path: Path,
    numbers: Mapping[str, str],
    memorability: Mapping[str, float],
    brand: Mapping[str, float],
    *,
    missing: Missing = "refuse",
    sources: Sequence[str] = (),
) -> Submission:
    """Write a run file of adverts, with a header and `video_id,id,memorability_score,...`.

    Args:
        path: the run file.
        numbers: by advert, in the file's order, the organisers' `video_id`.
        memorability: scores of the adverts; may lack some and have others.
        brand: of their brands, likewise.
        missing: as for `write_submission`.
        sources: likewise.

    Raises:
        RunError, OSError: as for `write_submission`.
    """
    columns = [_completed(list(numbers), each, missing) for each in (memorability, brand)]
    header = ["video_id", "id", "memorability_score", "brand_memorability"]
    cells = zip(numbers.values(), numbers, *(scores for scores, _ in columns), strict=True)
    without = tuple(dict.fromkeys(name for _, names in columns for name in names))
    return _write(path, [header, *cells], len(numbers), without, sources)


def _completed(
    video_ids: Sequence[str], predicted: Mapping[str, float], missing: Missing
) -> tuple[list[str], tuple[str, ...]]:
    """Return each video's score as it is written, and which were given the mean."""
    found = np.array([predicted.get(video_id, np.nan) for video_id in video_ids])
    pairs = list(zip(video_ids, found.tolist(), strict=True))
    without = tuple(video_id for video_id, score in pairs if np.isnan(score))
    if without and (missing == "refuse" or len(without) == len(video_ids)):
        raise RunError(
            f"{len(without)} of the {len(video_ids)} videos have no prediction: "
            f"{listed(list(map(repr, without)), SHOWN)}; "
            "a run file names every video: mend them (`memfeat status` says how), or give them the "
            "mean of the others by --missing mean"
        )
    outside = [pair for pair in pairs if pair[1] < 0 or pair[1] > 1]
    if outside:
        video_id, score = outside[0]
        raise RunError(f"{counted(len(outside), 'score')} not in [0, 1]: {video_id!r} has {score}")
    mean = float(np.nanmean(found)) if without else 0.0
    return [repr(mean if np.isnan(score) else score) for _, score in pairs], without


def _write(
    path: Path,
    rows: Sequence[Sequence[str]],
    videos: int,
    without: tuple[str, ...],
    sources: Sequence[str],
) -> Submission:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    note = f"without a prediction, given the mean of the others: {', '.join(without)}"
    lines = "".join(f"{line}\n" for line in (*sources, *([note] if without else [])))
    write_atomically(path.with_name(path.name + SOURCES_SUFFIX), lines.encode())
    write_atomically(path, text.getvalue().encode())
    return Submission(path, videos, without)


def read_numbers(path: Path) -> dict[str, str]:
    """Read the organisers' list of adverts: each one's `video_id` by its `id`, in order.

    Raises:
        ManifestError: it cannot be read, lacks a column, or lists one twice.
    """
    numbers: dict[str, str] = {}
    for location, row in csv_rows(path, ("id", "video_id")):
        if row["id"] in numbers:
            raise ManifestError(f"{location}: {row['id']!r} is listed twice")
        numbers[row["id"]] = row["video_id"]
    return numbers
