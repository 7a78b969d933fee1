"""Frames encoded by one recipe after another, to see with which their vectors agree."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from memfeat.cache import Cache, CacheSpec, FeatureFile
from memfeat.cache.comparing import Alignment, Vectors, unit
from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead
from memfeat.devices import resolve_device
from memfeat.encoders import GELUS, PRECISIONS, Tower, build_variant
from memfeat.errors import CacheError, ConfigError, NoDirectionError
from memfeat.manifest import VideoRecord
from memfeat.video import BICUBIC, INTERPOLATIONS, Pixels, crop_square, squash

LONGEST_SIDE = 4096  # pixels; larger frames are reduced first
BATCH = 8
CROPS = {"the middle": 1.0, "the middle of 8/7 its size": 8 / 7}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
COLOURS = {
    "of CLIP": CLIP,
    "of ImageNet": IMAGENET,
    "0.5 and 0.5": ((0.5,) * 3, (0.5,) * 3),
    "none, pixels in [0, 1]": ((0.0,) * 3, (1.0,) * 3),
    "none, pixels in [0, 255]": ((0.0,) * 3, (1 / 255,) * 3),
}
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Recipe:
    """How frames become vectors."""

    activation: str
    precision: str
    mean: Channels
    std: Channels
    projected: bool = False
    crop: float | None = None
    interpolation: str = BICUBIC
    bgr: bool = False

    @classmethod
    def of(cls, spec: CacheSpec) -> Self:
        """Return the one that made a cache.

        Raises:
            ConfigError: it is not all recorded.
        """
        if spec.mean is None or spec.std is None or spec.precision is None:
            raise ConfigError(f"{spec.encoder}: what made the cache is not all recorded")
        crop = 1.0 if spec.resize == "crop" else None
        return cls(spec.activation, spec.precision, spec.mean, spec.std, crop=crop)


def changes(tower: Tower, now: Recipe, known: Container[str]) -> Iterator[tuple[str, str, Recipe]]:
    """Yield each detail but of causes known, in words, with the recipe that it makes."""
    for cause, detail, fields in _fields(tower, now):
        if cause not in known:
            yield cause, detail, replace(now, **fields)


def _fields(tower: Tower, now: Recipe) -> Iterator[tuple[str, str, dict[str, Any]]]:
    built = "+".join(sorted(set(now.activation.split("+")) & GELUS.keys()))
    for name in sorted(GELUS.keys() - {built}) if built else ():
        yield "activation", f"{name} in place of {built}", {"activation": name}
    if tower.projection is not None:
        yield "projection", "what the library computes next is included", {"projected": True}
    for name, share in CROPS.items():
        if now.crop is None:
            yield "crop", f"cut out of {name} in place of squashed", {"crop": share}
    if now.crop is not None:
        yield "crop", "squashed in place of cut out", {"crop": None}
    for name in [name for name in INTERPOLATIONS if name != now.interpolation]:
        yield "interpolation", f"{name} in place of {now.interpolation}", {"interpolation": name}
    yield "channels", "BGR in place of RGB", {"bgr": True}
    for name, (mean, std) in COLOURS.items():
        if not np.allclose((mean, std), (now.mean, now.std), atol=1e-3):
            yield "colours", f"mean and std {name}", {"mean": mean, "std": std}
    for name in [name for name in PRECISIONS if name != now.precision]:
        yield "precision", f"{name} in place of {now.precision}", {"precision": name}


@dataclass(frozen=True)
class ShownFrames:
    """Some frames of a video, at their own size, and both vectors (frames, width) of each."""

    video_id: str
    pictures: Sequence[Pixels]
    ours: Vectors
    other: Vectors


class Trial:
    """Encodes the same frames by one recipe after another."""

    def __init__(
        self, spec: CacheSpec, tower: Tower, frames: Sequence[ShownFrames], device: str
    ) -> None:
        self._tower, self._frames = tower, frames
        self._size = tower.image_size
        self._device = resolve_device(device)
        self._widths: dict[bool, int] = {False: spec.width}
        if tower.projection is not None:
            with torch.inference_mode():
                self._widths[True] = tower.projection(torch.zeros(1, tower.dim)).shape[1]

    def width(self, recipe: Recipe) -> int:
        """Return how many numbers a vector has."""
        return self._widths[recipe.projected]

    @property
    def videos(self) -> tuple[str, ...]:
        """The ids of the videos that are encoded."""
        return tuple(each.video_id for each in self._frames)

    def distance(self, recipe: Recipe, *, of_ours: bool = False) -> float:
        """Return one minus the mean cosine with the other's vectors, or with ours.

        Where a feature has no direction, the largest that there can be.

        Raises:
            EncoderError: too little memory, or the device fails.
        """
        vectors = [each.ours if of_ours else each.other for each in self._frames]
        try:
            encoder = build_variant(
                self._tower,
                activation=recipe.activation,
                projected=recipe.projected,
                mean=recipe.mean,
                std=recipe.std,
                precision=recipe.precision,
                device=self._device,
            )
            pixels = [self._prepare(p, recipe) for each in self._frames for p in each.pictures]
            batches = range(0, len(pixels), BATCH)
            found = torch.cat(
                [encoder.encode(torch.from_numpy(np.stack(pixels[i : i + BATCH]))) for i in batches]
            )
        except NoDirectionError:  # as float16 may give
            return 2.0
        stored = unit(found.numpy().astype(np.float16))
        return float(np.mean(1 - (stored * np.concatenate(vectors)).sum(axis=1)))

    def _prepare(self, pixels: Pixels, recipe: Recipe) -> Pixels:
        if recipe.crop is None:
            made = squash(pixels, self._size, self._size, how=recipe.interpolation)
        else:
            short = round(self._size * recipe.crop)
            made = crop_square(pixels, self._size, of=short, how=recipe.interpolation)
        return np.ascontiguousarray(made[..., ::-1]) if recipe.bgr else made


def show_frames(
    cache: Cache,
    other: FeatureFile,
    names: Mapping[str, str],
    alignment: Alignment,
    *,
    records: Sequence[VideoRecord],
    most: int,
) -> Iterator[ShownFrames]:
    """Decode the first frames of videos whose rows belong together.

    Args:
        cache: ours.
        other: the other features.
        names: their ids, by ours.
        alignment: which rows belong together.
        records: the videos.
        most: frames of each.

    Raises:
        CacheError: no frame can be decoded.
        DecoderError: processes that decode cannot be had.
    """
    rows: dict[str, tuple[list[int], Vectors, Vectors]] = {}
    for video_id in [record.video_id for record in records]:
        table, theirs = cache.load([video_id]), other.of(names[video_id])
        first = np.cumsum(table.covers, dtype=np.int64) - table.covers  # each row's frame
        numbers, _ = alignment.pair(first, theirs)
        own, theirs = alignment.pair(unit(table.values), theirs)
        if len(own):
            rows[video_id] = numbers[:most].tolist(), own[:most], theirs[:most]
    decoded = [record for record in records if record.video_id in rows]
    shown = _decode(decoded, [numbers for numbers, *_ in rows.values()], cache.spec)
    for video_id, (numbers, own, theirs) in rows.items():
        pictures = shown.get(video_id, {})
        there = [place for place, number in enumerate(numbers) if number in pictures]
        if there:
            chosen_pictures = [pictures[numbers[place]] for place in there]
            yield ShownFrames(video_id, chosen_pictures, own[there], theirs[there])


def _decode(
    records: Sequence[VideoRecord], wanted: Sequence[Sequence[int]], spec: CacheSpec
) -> Mapping[str, Mapping[int, Pixels]]:
    """Return the frames wanted of each video, counted from 0, at their own size.

    Raises:
        CacheError: none can be decoded; says why not.
    """
    settings = [
        DecodeSettings(
            LONGEST_SIDE,
            max_frames=max(numbers) + 1,
            keep_shape=True,
            allow_images=True,
            hashed=False,
            untagged_hd=spec.untagged_hd,
            fps=spec.fps,
        )
        for numbers in wanted
    ]
    found: dict[str, dict[int, Pixels]] = {record.video_id: {} for record in records}
    seen, problems = [0] * len(records), []
    with decode_ahead(records, settings, decoders=1) as events:
        for event in events:
            if isinstance(event, DecodedFrames):
                of, video_id = event.number, records[event.number].video_id
                for pixels in event.pixels:
                    if seen[of] in wanted[of]:
                        found[video_id][seen[of]] = pixels.copy()
                    seen[of] += 1
            elif event.result.status == "failed":
                problems.append(event.result.message)
    if not any(found.values()):
        raise CacheError("; ".join(problems) or "the videos of the manifest have no such frames")
    return found
