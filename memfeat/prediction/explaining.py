"""Timelines of videos whose features the run's own caches hold, for a page that shows many."""

from collections.abc import Sequence
from pathlib import Path

from memfeat.errors import CacheError, RunError, VideoError
from memfeat.prediction.inputs import Input
from memfeat.prediction.scorer import Scorer
from memfeat.prediction.timeline import timeline_svg
from memfeat.runs import Run


def timelines_of(run: Run, video_ids: Sequence[str], key: str) -> tuple[dict[str, str], str]:
    """Draw the timelines of videos from the caches that a run was trained on, without decoding.

    Args:
        run: whose models score.
        video_ids: which videos; those that the caches lack are left out.
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
        for prediction in scorer.predict_cached(videos, [Input(None, name) for name in video_ids]):
            if prediction.score is not None:
                name = prediction.video_id
                found[name] = timeline_svg(prediction.timeline, f"{key} {name}")
    except (CacheError, RunError, VideoError) as error:
        return found, str(error)
    return found, ""
