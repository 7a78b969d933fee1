"""The videos with the largest errors, each with one of its frames (paper, Fig. 3)."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfeat.errors import ManifestError, ReasonedError
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.runs import Predictions
from memfeat.storage import Location, local_copy
from memfeat.video import VideoReader

WORST = 6
_LONGEST_SIDE = 400  # pixels of a picture in the page
_QUALITY = 82  # JPEG


@dataclass(frozen=True)
class WorstVideo:
    """A prediction far from the truth.

    Attributes:
        video_id: as in the manifest.
        caption: from the manifest.
        prediction: score in (0, 1).
        truth: score in [0, 1].
        picture: data URI of a random frame; None if there is none.
        moment: when the frame appears, in seconds.
        missing: why there is no picture.
    """

    video_id: str
    caption: str
    prediction: float
    truth: float
    picture: str | None
    moment: float
    missing: str


def known_records(manifest: Location) -> tuple[Mapping[str, VideoRecord], str]:
    """Return a manifest's records by id, or nothing and why: videos are optional in a report."""
    try:
        return read_manifest(manifest).by_id, ""
    except ManifestError as error:
        return {}, f"The videos cannot be shown: {error}."


def worst_videos(
    predictions: Predictions,
    split: str,
    records: Mapping[str, VideoRecord],
    count: int = WORST,
) -> list[WorstVideo]:
    """Choose the `count` videos of `split` with the largest error, the largest first."""
    ids, errors = predictions.video_id, np.abs(predictions.prediction - predictions.score)
    chosen = np.flatnonzero(predictions.scored(split))
    ranked = sorted(chosen, key=lambda index: (-errors[index], ids[index]))
    worst = []
    for index in ranked[:count]:
        record = records.get(ids[index])
        picture, moment, missing = _picture(record)
        worst.append(
            WorstVideo(
                video_id=ids[index],
                caption=record.caption if record else "",
                prediction=float(predictions.prediction[index]),
                truth=float(predictions.score[index]),
                picture=picture,
                moment=moment,
                missing=missing,
            )
        )
    return worst


def _picture(record: VideoRecord | None) -> tuple[str | None, float, str]:
    """Return a picture of a video, its time in seconds, and why there is none."""
    if record is None:
        return None, 0.0, "video not known"
    try:
        pixels, moment = _random_frame(record)
    except ReasonedError as error:
        return None, 0.0, "video not on this disk" if error.reason == "missing" else error.reason
    return _data_uri(pixels), moment, ""


def _random_frame(record: VideoRecord) -> tuple[NDArray[np.uint8], float]:
    """Draw one frame uniformly in one pass over the video; the same one each time."""
    seed = int.from_bytes(hashlib.sha256(record.video_id.encode()).digest()[:8])
    generator = np.random.default_rng(seed)
    with local_copy(record.path) as path, VideoReader(path) as reader:
        frames = enumerate(reader, 1)
        _, chosen = next(frames)
        for count, frame in frames:
            if generator.integers(count) == 0:
                chosen = frame
    return chosen.pixels, chosen.pts_seconds


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
