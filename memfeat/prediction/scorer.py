"""A run's models, or those of several runs, applied to encoded videos."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.cache import CacheSpec, EncodedVideo
from memfeat.cache.spec import NO_TEXT
from memfeat.config import Missing
from memfeat.devices import resolve_device
from memfeat.errors import RunError, VideoError, counted
from memfeat.prediction.cached import CachedVideos
from memfeat.prediction.clip import MAX_VARIANTS, Clip
from memfeat.prediction.effects import FrameEffects
from memfeat.prediction.inputs import Input
from memfeat.prediction.results import VideoPrediction
from memfeat.prediction.run_models import RunModels, Scores
from memfeat.prediction.trust import Unusual
from memfeat.runs import Calibration, Run
from memfeat.storage import AnyLocation, Location, Url, location_of

_BATCH = 64  # variants of a clip scored at once
_BATCH_FRAMES = _BATCH * MAX_VARIANTS  # and their frames, which bounds the memory

AnyRun = Run | AnyLocation


class Scorer:
    """The models of a run, or of several whose scores are averaged; `Predictor` adds encoders.

    Attributes:
        runs: the runs.
        specs: what made the features that they take, each once, those of frames first.
        sources: lines naming encoders, weights and training scores.
        calibration: what the runs' own predictions teach about new ones.
        device: where the models compute.
    """

    def __init__(self, runs: AnyRun | Sequence[AnyRun], *, device: str = "auto") -> None:
        """Load the runs.

        Args:
            runs: a run, or its folder, or several; of several seeds, a run's score is the mean
                over them.
            device: `auto`, `cpu` or `cuda:N`.

        Raises:
            RunError: a run is incomplete or damaged.
            ConfigError: the device is not here.
        """
        several = [runs] if isinstance(runs, Run | str | PathLike | Url) else list(runs)
        if not several:
            raise RunError("there is no run to predict with; name one or more")
        self.runs = tuple(run if isinstance(run, Run) else Run.load(run) for run in several)
        self.device = str(resolve_device(device))
        specs = dict.fromkeys(spec for run in self.runs for spec in run.specs)
        self.specs = tuple(sorted(specs, key=lambda spec: spec.is_text))
        self.sources = tuple(dict.fromkeys(line for run in self.runs for line in run.sources()))
        self.calibration = Calibration.of_runs(self.runs)
        self._models = [RunModels(run, self.specs, self.device) for run in self.runs]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(str(run.folder) for run in self.runs)}>"

    @property
    def precision(self) -> str | None:
        """What the first encoder computes in."""
        return self.specs[0].precision

    def notes(self) -> list[str]:
        """Return a line for each way in which the runs cannot say how far to trust a score."""
        notes = [
            f"{run.name} was trained by an early version: how familiar a video is is not known; "
            "the same `memfeat train` command adds that, and keeps the model"
            for run, models in zip(self.runs, self._models, strict=True)
            if models.familiar is None
        ]
        if self.calibration.margin is None:
            count = len(self.calibration.errors)
            notes.append(
                f"no intervals: {counted(count, 'scored dev video')}, too few to learn them from"
            )
        return notes

    @cached_property
    def model_id(self) -> str:
        """Twelve digits that differ between models, so that their scores are not mixed up."""
        digest = hashlib.sha256()
        for spec in self.specs:
            digest.update(spec.model_dump_json().encode())
        for models in self._models:
            digest.update(models.digest())
        return digest.hexdigest()[:12]

    def score(
        self, encoded: Sequence[EncodedVideo], path: Location | None, video_id: str
    ) -> VideoPrediction:
        """Score one video.

        Args:
            encoded: its features, made as each of `specs` says.
            path: where it lies, if anywhere.
            video_id: what it is called.
        """
        clip = self._clip(encoded)
        scores = self._score([clip.frames])
        score, worst, count = float(scores.mean[0]), clip.worst, len(clip.frames[0])
        percentile = self.calibration.percentile(score)
        unusual = self._unusual(clip, percentile)
        of_several = zip(self.runs, scores.run_means[:, 0].tolist(), strict=True)
        partly = f"{worst.reason}; scored on {counted(count, 'frame')}"
        return VideoPrediction(
            path=path,
            video_id=video_id,
            score=score,
            score_std=scores.spread,
            interval=self.calibration.interval(score),
            percentile=percentile,
            familiarity=unusual.familiarity,
            cautions={**unusual.cautions, **_silence(encoded)},
            run_scores={r.name: s for r, s in of_several} if len(self.runs) > 1 else {},
            num_frames=count,
            duration_seconds=clip.duration_seconds,
            status=worst.status,
            reason=worst.reason,
            message="" if worst.status == "ok" else f"{path or video_id}: {partly}",
            weights=None if scores.weights is None else clip.by_row(scores.weights),
            pts_seconds=clip.pts_seconds,
            sources=self.sources,
            find_effects=partial(self._effects, tuple(encoded), scores),
        )

    def predict_cached(
        self, videos: CachedVideos, wanted: Iterable[Input] | None = None
    ) -> Iterator[VideoPrediction]:
        """Yield the predictions of cached videos, those `wanted` or all, as they are read.

        They are what `predict` gives for the same videos, to the last digit.

        Raises:
            CacheError: a shard that is damaged, or cannot be read.
        """
        chosen = videos.videos if wanted is None else wanted
        for name, found in videos.read({own.video_id for own in chosen}):
            if isinstance(found, VideoError):
                yield self.failure(None, name, found.reason, str(found))
            else:
                yield self.score(found, None, name)

    def predict_cache(self, *caches: AnyLocation) -> Iterator[VideoPrediction]:
        """Yield the prediction of each video of a cache, shard by shard, without decoding.

        Args:
            caches: a folder or URL; for runs of several streams one for each, in any order.

        Raises:
            RunError: the features were made differently from those that a run takes.
            CacheError: a cache that is damaged, or cannot be read.
            RemoteError: a remote one that cannot be fetched.
        """
        yield from self.predict_cached(self.cached_videos(*caches))

    def cached_videos(self, *caches: AnyLocation) -> CachedVideos:
        """Open caches whose videos are to be scored; see `predict_cache`."""
        return CachedVideos(self.runs, self.specs, [location_of(cache) for cache in caches])

    def failure(
        self, path: Location | None, video_id: str, reason: str, message: str
    ) -> VideoPrediction:
        """Return the prediction of a video that cannot be scored, with the reason."""
        return VideoPrediction(
            path=path,
            video_id=video_id,
            status="failed",
            reason=reason,
            message=message,
            sources=self.sources,
        )

    def _effects(self, encoded: Sequence[EncodedVideo], scores: Scores) -> FrameEffects:
        """Score a video without each of its frames in turn; `scores` are those with all."""
        clip = self._clip(encoded)
        windows = clip.windows()
        undefined = self._undefined(windows)
        effect = None
        if undefined is None:
            effect = (scores.mean[0] - self._scores_without(clip, windows))[windows[0]]
        return FrameEffects(
            pts_seconds=clip.pts_seconds,
            weights=None if scores.weights is None else clip.by_row(scores.weights),
            effect=effect,
            effect_undefined=undefined,
            window=int(np.bincount(windows[0]).max()),
            score=float(scores.mean[0]),
            score_std=scores.spread,
            sources=self.sources,
        )

    def _unusual(self, clip: Clip, percentile: float | None) -> Unusual:
        """Compare a clip with what each run was trained on; the least familiar counts."""
        found = []
        for run, models in zip(self.runs, self._models, strict=True):
            streams = zip(models.streams, run.specs, strict=True)
            features = np.hstack([clip.mean(stream, spec.dim) for stream, spec in streams])
            seconds = clip.duration_seconds
            frames = len(clip.frames[0]) * self.specs[0].clip_frames
            rate = frames / seconds if seconds else 0.0
            known = models.familiar
            size = clip.encoded[0].frame_size
            found.append(Unusual.of(known, features, seconds, rate, percentile, frame_size=size))
        shares = [each.familiarity for each in found if each.familiarity is not None]
        cautions = {code: line for each in found for code, line in each.cautions.items()}
        return Unusual(min(shares) if shares else None, cautions)

    def _clip(self, encoded: Sequence[EncodedVideo]) -> Clip:
        return Clip.of(encoded, self.device, sum(not spec.is_text for spec in self.specs))

    @property
    def takes_text(self) -> str:
        """The encoders of the texts that the runs take, in words; empty if they take none."""
        return " and ".join(spec.encoder for spec in self.specs if spec.is_text)

    @property
    def needs_text(self) -> bool:
        """Whether a video without a text cannot be scored."""
        return any(spec.is_text and self.missing(spec) == "drop" for spec in self.specs)

    def missing(self, spec: CacheSpec) -> Missing:
        """Return what becomes of a video without a text where all runs of a spec agree to it."""
        runs = [run for run in self.runs if spec in run.specs]
        return "zero" if all(run.config.missing == "zero" for run in runs) else "drop"

    def without_text(self, name: str, spec: CacheSpec) -> EncodedVideo | VideoError:
        """Return what stands for a text that is missing: zeros, or the reason why nothing does."""
        if self.missing(spec) == "zero":
            zeros = np.zeros((1, spec.width), np.float16)
            return EncodedVideo(name, zeros, np.zeros(1), reason=NO_TEXT)
        return VideoError(
            NO_TEXT,
            f"{name} has no text, and the run was trained on texts, too ({spec.encoder}); give it "
            "with --text, or train with --missing zero",
        )

    def _undefined(self, windows: Sequence[NDArray[np.int64]]) -> str | None:
        """Say why nothing can be left out, if a stream has all its rows in one window."""
        if len(windows) == 1 and len(windows[0]) == 1:
            return "the clip has one frame: without it there is nothing to score"
        for rows, spec in zip(windows, self.specs, strict=False):  # texts have no windows
            if rows[0] == rows[-1]:
                return f"{spec.encoder} sees the clip as one: without it there is nothing to score"
        return None

    def _scores_without(
        self, clip: Clip, windows: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.float64]:
        """Score a clip without each window: (windows,)."""
        count = 1 + max(int(rows[-1]) for rows in windows)
        rows = sum(len(frames) for frames in clip.frames)
        size = max(1, min(_BATCH, _BATCH_FRAMES // rows))
        scores = []
        for first in range(0, count, size):
            batch = [
                [
                    frames[torch.from_numpy(np.repeat(window != left_out, n)).to(frames.device)]
                    for frames, window, n in zip(clip.frames, windows, clip.covers, strict=False)
                ]
                + list(clip.frames[len(windows) :])  # texts stay
                for left_out in range(first, min(first + size, count))
            ]
            scores.append(self._score(batch).mean)
        return np.concatenate(scores)

    def _score(self, clips: Sequence[Sequence[Tensor]]) -> Scores:
        """Score clips, each of which has for every spec its frames (time, width)."""
        by_run = [models.score(clips) for models in self._models]
        return Scores([scores for scores, _ in by_run], by_run[0][1] if len(by_run) == 1 else None)


def _silence(encoded: Sequence[EncodedVideo]) -> dict[str, str]:
    """Caution against a score for which a text is missing."""
    silent = any(each.reason == NO_TEXT for each in encoded)
    text = "it has no text, which the run takes beside the frames; zeros stand for it"
    return {NO_TEXT: text} if silent else {}
