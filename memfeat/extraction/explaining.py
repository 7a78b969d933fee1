"""Why features differ: details of the encoder are changed in turn until a few videos agree."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from memfeat.cache import Cache, CacheSpec, FeatureDifference, FeatureFile
from memfeat.cache.comparing import ALIGNED, BETTER, SAME
from memfeat.config import CacheCompareConfig
from memfeat.encoders import Tower, build_tower
from memfeat.errors import CacheError, ConfigError
from memfeat.extraction.details import Recipe, Trial, changes, show_frames
from memfeat.manifest import Manifest, VideoRecord

ALONE = 1e-4  # one minus the cosine, below which vectors that were not comparable agree
EXPLAINED = 0.02  # share of the distance that may be left, as of another decoder's rounding
MOST_CAUSES = 3
MEANS = "one row a video, the mean of ours"


@dataclass(frozen=True)
class Attempt:
    """One detail, changed.

    Attributes:
        cause: `activation`, `projection`, `crop`, `interpolation`, `channels`, `colours`,
            `precision` or `frames`.
        detail: what the other's features would have been made with, in words.
        distance: one minus the mean cosine that is left.
    """

    cause: str
    detail: str
    distance: float


@dataclass(frozen=True)
class Explanation:
    """What makes features differ.

    Attributes:
        before: one minus the mean cosine of the videos tried, as they stand; None between vectors
            of different lengths.
        after: the same with all of `causes`.
        causes: those that help, the largest first; none where nothing does.
        tried: all attempts, in order.
        repeated: one minus the cosine of ours with itself, encoded again; None if that was not
            needed.
        videos: those that were encoded.
    """

    before: float | None
    after: float | None
    causes: tuple[Attempt, ...]
    tried: tuple[Attempt, ...]
    repeated: float | None
    videos: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the causes leave no difference but that of rounding."""
        return _explains(self.after, self.before)

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self) | {"explained": self.is_whole, "words": self.words()}

    def words(self) -> str:
        """Say it in a sentence."""
        if not self.causes and self.is_whole:
            which = f", in {', '.join(self.videos)} at least" if self.videos else ""
            return f"the features are the same, but for rounding{which}"
        if not self.causes:
            return (
                "none of these details explains the difference: other weights, another "
                "architecture, other videos, or several details at once"
            )
        causes = "; and ".join(f"{each.cause}, {each.detail}" for each in self.causes)
        left = f"1 - cosine falls to {self.after:.2g}"
        before = "" if self.before is None else f" from {self.before:.2g}"
        how_far = "explains the difference" if self.is_whole else "explains a part of it"
        return f"{causes}: {how_far} ({left}{before})"


def explain(
    ours: FeatureFile,
    other: FeatureFile,
    difference: FeatureDifference,
    manifest: Manifest,
    config: CacheCompareConfig,
    *,
    on_attempt: Callable[[str], None] = lambda _: None,
) -> Explanation:
    """Find out which details make features differ from those of a cache.

    First the alignment of rows, which costs nothing; then a few frames of a few videos are encoded
    with one detail changed at a time. The best change is kept if it halves the distance, and then
    the others are tried on top of it. A change after which the vectors are the same ends that.

    Args:
        ours: a cache that memfeat made.
        other: the features to explain.
        difference: what `compare_features` found.
        manifest: where the videos are.
        config: how many videos and frames, and the weights if they were a file.
        on_attempt: called with each cause as it is tried.

    Raises:
        ConfigError: `ours` was made elsewhere, of clips or texts, or with patch tokens.
        CacheError: no video is in the manifest, or the weights are not those that made `ours`.
        EncoderError: the weights cannot be had.
        DecoderError: processes that decode cannot be had.
    """
    by_rows = _by_rows(difference)
    before = difference.distance
    if by_rows and (by_rows[0].detail == MEANS or _explains(by_rows[0].distance, before)):
        return Explanation(before, by_rows[0].distance, by_rows, by_rows, None, ())
    if before is not None and before <= SAME:
        return Explanation(before, before, (), (), None, ())
    cache = _encodable(ours)
    tower = _tower(cache.spec, config)
    frames = show_frames(
        cache,
        other,
        difference.names,
        difference.alignment,
        records=_chosen(difference, manifest, config.videos),
        most=config.frames,
    )
    trial = Trial(cache.spec, tower, tuple(frames), config.device)
    recipe = Recipe.of(cache.spec)
    repeated = trial.distance(recipe, of_ours=True)
    comparable = difference.dim == difference.other_dim
    left = trial.distance(recipe) if comparable else None
    before = before if by_rows else left
    causes, tried = list(by_rows), list(by_rows)
    while len(causes) < MOST_CAUSES and not _explains(left, before):
        attempts: list[tuple[Attempt, Recipe]] = []
        for cause, detail, changed in changes(tower, recipe, {each.cause for each in causes}):
            exact = {each.cause for each, _ in attempts if each.distance <= SAME}
            if exact and cause not in exact:
                break
            if trial.width(changed) == difference.other_dim:
                on_attempt(f"{cause}, {detail}")
                attempts.append((Attempt(cause, detail, trial.distance(changed)), changed))
        tried += [attempt for attempt, _ in attempts]
        best = min(attempts, key=lambda each: each[0].distance, default=None)
        if best is None or (left is not None and best[0].distance > BETTER * left):
            break
        causes.append(best[0])
        left, recipe = best[0].distance, best[1]
    if causes and not comparable and difference.alignment != ALIGNED:
        causes.append(Attempt("frames", str(difference.alignment), causes[-1].distance))
    return Explanation(before, left, tuple(causes), tuple(tried), repeated, trial.videos)


def _explains(after: float | None, before: float | None) -> bool:
    if after is None:
        return False
    return after <= (ALONE if before is None else max(SAME, EXPLAINED * before))


def _chosen(difference: FeatureDifference, manifest: Manifest, most: int) -> list[VideoRecord]:
    """Return the videos of a manifest whose cosine is nearest to the median.

    Raises:
        CacheError: it has none.
    """
    known = [each for each in difference.videos if each.video_id in manifest.by_id]
    if not known:
        raise CacheError(
            f"{manifest.path} has none of the {len(difference.videos)} videos that both have, "
            f"{difference.videos[0].video_id!r} first"
        )
    middle = float(np.median([each.cosine or 0.0 for each in known]))
    known.sort(key=lambda each: (abs((each.cosine or 0.0) - middle), each.video_id))
    return [manifest.by_id[each.video_id] for each in known[:most]]


def _by_rows(found: FeatureDifference) -> tuple[Attempt, ...]:
    """Return the attempts that need no frame: which rows belong together, and means."""
    if found.distance is None or found.aligned_distance is None:
        return ()
    mean = found.mean_distance
    if mean is not None and mean <= BETTER * found.aligned_distance:
        return (Attempt("frames", MEANS, mean),)
    if found.alignment != ALIGNED:
        return (Attempt("frames", str(found.alignment), found.aligned_distance),)
    return ()


def _encodable(ours: FeatureFile) -> Cache:
    cache = ours.source
    if not isinstance(cache, Cache) or cache.spec.is_imported:
        raise ConfigError(
            f"{ours.name} was made elsewhere too, so neither can be encoded again; leave out "
            "--manifest to compare them as they stand"
        )
    if cache.spec.clip_frames > 1 or cache.spec.num_tokens > 1 or cache.spec.is_text:
        raise ConfigError(
            f"{ours.name} has vectors of clips, patches or texts, which are not encoded again; "
            "leave out --manifest to compare them as they stand"
        )
    return cache


def _tower(spec: CacheSpec, config: CacheCompareConfig) -> Tower:
    if spec.file and config.weights is None:
        raise ConfigError(
            f"the cache was made with the checkpoint file {spec.file!r}; give its path with "
            "--weights"
        )
    tower = build_tower(
        spec.encoder,
        config.weights or spec.weights,
        activation=spec.asked_activation,
        tokens=spec.tokens,
        layer=spec.layer,
    )
    if tower.weights_sha256 != spec.weights_sha256:
        raise CacheError(
            f"the cache was made with weights of the SHA-256 {spec.weights_sha256[:12]}..., and "
            f"these are {tower.weights_sha256[:12]}...; give the same with --weights"
        )
    return tower
