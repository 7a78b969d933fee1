"""The videos that a page shows: which they are, and a frame of each (paper, Fig. 3)."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead
from memfeat.errors import ManifestError
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.runs import Predictions
from memfeat.storage import Location

SHOWN = 6  # videos of a gallery
MOST_PICTURES = 150  # of one set of videos
MOST_IN_PAGE = 450  # pictures, of all sets together
SECONDS = 2.0  # of a video outside of the galleries, out of which its frame is drawn
DECODERS = 2
_LONGEST_SIDE, _THUMBNAIL = 400, 160  # pixels of a picture in a gallery, and elsewhere
_QUALITY = 82  # JPEG


@dataclass(frozen=True)
class Frame:
    """A frame of a video, as data URIs; None where there is none.

    Attributes:
        picture: for a gallery.
        thumbnail: the same, smaller.
        moment: when it appears, in seconds.
        missing: why there is none, or empty.
    """

    picture: str | None
    thumbnail: str | None
    moment: float
    missing: str


UNKNOWN = Frame(None, None, 0.0, "video not known")


@dataclass(frozen=True)
class GalleryVideo:
    """A prediction, and a frame of its video.

    Attributes:
        video_id: as in the manifest.
        caption: from the manifest.
        prediction: score in (0, 1).
        truth: score in [0, 1].
        frame: drawn at random.
    """

    video_id: str
    caption: str
    prediction: float
    truth: float
    frame: Frame


def known_records(manifest: Location) -> tuple[Mapping[str, VideoRecord], str]:
    """Return a manifest's records by id, or nothing and why: videos are optional in a report."""
    try:
        return read_manifest(manifest).by_id, ""
    except ManifestError as error:
        return {}, f"The videos cannot be shown: {error}."


def extremes(predictions: Predictions, count: int = SHOWN) -> tuple[list[int], list[int]]:
    """Return the `count` videos of the largest error, and those of the smallest, by index.

    The largest comes first, or the smallest; no video is in both.
    """
    errors = np.abs(predictions.prediction - predictions.score).tolist()
    ranked = sorted(range(len(errors)), key=lambda i: (-errors[i], predictions.video_id[i]))
    return ranked[:count], ranked[: -1 - min(count, max(0, len(ranked) - count)) : -1]


def first_shown(
    predictions: Predictions, first: Iterable[str], count: int = MOST_PICTURES
) -> list[str]:
    """Return the ids of up to `count` videos: `first`, then others spread over the true scores."""
    chosen = list(dict.fromkeys(first))[:count]
    others = [
        predictions.video_id[index]
        for index in np.argsort(predictions.score, kind="stable")
        if predictions.video_id[index] not in chosen
    ]
    room = min(count - len(chosen), len(others))
    return chosen + [others[place * len(others) // room] for place in range(room)]


def gallery(
    predictions: Predictions,
    indices: Sequence[int],
    records: Mapping[str, VideoRecord],
    frames: Mapping[str, Frame],
) -> tuple[GalleryVideo, ...]:
    """Return videos with what there is to show of them."""
    ids = [predictions.video_id[index] for index in indices]
    return tuple(
        GalleryVideo(
            video_id=video_id,
            caption=records[video_id].caption if video_id in records else "",
            prediction=float(predictions.prediction[index]),
            truth=float(predictions.score[index]),
            frame=frames.get(video_id, UNKNOWN),
        )
        for index, video_id in zip(indices, ids, strict=True)
    )


def frames_of(
    records: Mapping[str, VideoRecord], wanted: Sequence[str], whole: Iterable[str]
) -> dict[str, Frame]:
    """Return a frame of each video that is wanted, the same one each time.

    It is drawn uniformly in one pass over the video: from all of it for those in `whole`, and for
    others from its first seconds, if it lies on this machine.
    """
    through = set(whole)
    shown = [
        record
        for record in (records[name] for name in wanted if name in records)
        if record.video_id in through or isinstance(record.path, Path)
    ]
    draws = [
        np.random.default_rng(int.from_bytes(hashlib.sha256(each.video_id.encode()).digest()[:8]))
        for each in shown
    ]
    counts: Counter[int] = Counter()
    chosen = dict[int, tuple[NDArray[np.uint8], float]]()
    found = dict[str, Frame]()
    settings = [
        DecodeSettings(
            _LONGEST_SIDE,
            keep_shape=True,
            hashed=False,
            max_seconds=None if each.video_id in through else SECONDS,
        )
        for each in shown
    ]
    if not shown:
        return found
    with decode_ahead(shown, settings, decoders=DECODERS) as videos:
        for event in videos:
            if isinstance(event, DecodedFrames):
                for pixels, seconds in zip(event.pixels, event.pts_seconds, strict=True):
                    counts[event.number] += 1
                    if draws[event.number].integers(counts[event.number]) == 0:
                        chosen[event.number] = pixels.copy(), seconds
                continue
            reason, name = event.result.reason, event.record.video_id
            if event.result.status == "failed":
                missing = "video not on this disk" if reason == "missing" else reason
                found[name] = Frame(None, None, 0.0, missing)
            else:
                pixels, seconds = chosen.pop(event.number)
                picture = data_uri(pixels, _LONGEST_SIDE) if name in through else None
                found[name] = Frame(picture, data_uri(pixels, _THUMBNAIL), seconds, "")
    return found


def data_uri(pixels: NDArray[np.uint8], longest_side: int) -> str:
    """Return uint8 (height, width, 3) RGB as a JPEG's data URI, reduced to a longest side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest_side, longest_side))
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
