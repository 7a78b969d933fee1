"""Timelines of videos whose features the run's own caches hold, for a page that shows many."""

from collections.abc import Sequence
from pathlib import Path

from memfeat.errors import CacheError, RunError, VideoError
from memfeat.prediction.cached import CachedVideos
from memfeat.prediction.clip import MAX_VARIANTS
from memfeat.prediction.inputs import Input
from memfeat.prediction.scorer import Scorer
from memfeat.prediction.timeline import timeline_svg
from memfeat.runs import Run

MOST_FRAMES = 1_500_000  # that a run's models are given for all timelines: under a minute


def timelines_of(run: Run, video_ids: Sequence[str], key: str) -> tuple[dict[str, str], str]:
    """Draw the timelines of videos from the caches that a run was trained on, without decoding.

    Args:
        run: whose models score.
        video_ids: which videos, the most wanted first; those that the caches lack are left out,
            and those that would take too long, because they are long or the models many.
        key: makes the drawings' ids differ from those of others in a page.

    Returns:
        `<svg>` elements by id; and why there is none, or nothing.
    """
    found: dict[str, str] = {}
    caches = run.config.cache
    if not all(isinstance(cache, Path) for cache in caches):
        return found, "its features are not on this machine"
    try:
        scorer = Scorer(run, device="cpu")
        videos = scorer.cached_videos(*caches)
        chosen = _affordable(videos, video_ids, len(run.parts))
        for prediction in scorer.predict_cached(videos, [Input(None, name) for name in chosen]):
            if prediction.score is not None:
                name = prediction.video_id
                found[name] = timeline_svg(prediction.timeline, f"{key} {name}")
    except (CacheError, RunError, VideoError) as error:
        return found, str(error)
    return found, ""


def _affordable(videos: CachedVideos, ids: Sequence[str], models: int) -> list[str]:
    """Return the first videos whose variants, each without a frame, can be scored in time."""
    chosen, left = [], MOST_FRAMES
    for name in ids:
        frames = videos.frames(name)
        needed = models * frames * min(frames, MAX_VARIANTS)
        if 0 < needed <= left:
            chosen.append(name)
            left -= needed
    return chosen
