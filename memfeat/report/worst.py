"""The videos with the largest errors, each with one of its frames (paper, Fig. 3)."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead
from memfeat.errors import ManifestError
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.runs import Predictions
from memfeat.storage import Location

WORST = 6
DECODERS = 2
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
    shown = [records[ids[index]] for index in ranked[:count] if ids[index] in records]
    pictures = _pictures(shown)
    worst = []
    for index in ranked[:count]:
        record = records.get(ids[index])
        picture, moment, missing = pictures.get(ids[index], (None, 0.0, "video not known"))
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


def _pictures(records: Sequence[VideoRecord]) -> dict[str, tuple[str | None, float, str]]:
    """Return a picture of each video, its time in seconds, and why there is none, by video id.

    It is one frame, drawn uniformly in one pass over the video; the same one each time.
    """
    draws = [
        np.random.default_rng(int.from_bytes(hashlib.sha256(each.video_id.encode()).digest()[:8]))
        for each in records
    ]
    counts: Counter[int] = Counter()
    chosen = dict[int, tuple[NDArray[np.uint8], float]]()
    found = dict[str, tuple[str | None, float, str]]()
    settings = DecodeSettings(_LONGEST_SIDE, keep_shape=True, hashed=False)
    with decode_ahead(records, settings, decoders=DECODERS) as videos:
        for event in videos:
            if isinstance(event, DecodedFrames):
                for pixels, seconds in zip(event.pixels, event.pts_seconds, strict=True):
                    counts[event.number] += 1
                    if draws[event.number].integers(counts[event.number]) == 0:
                        chosen[event.number] = pixels.copy(), seconds
                continue
            reason = event.result.reason
            if event.result.status == "failed":
                missing = "video not on this disk" if reason == "missing" else reason
                found[event.record.video_id] = None, 0.0, missing
            else:
                pixels, seconds = chosen.pop(event.number)
                found[event.record.video_id] = _data_uri(pixels), seconds, ""
    return found


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
