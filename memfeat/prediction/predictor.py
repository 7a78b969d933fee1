"""A run's encoders and models, applied to new videos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from memfeat.decoding import start_decoders
from memfeat.devices import resolve_device
from memfeat.errors import VideoError
from memfeat.extraction import encode_video
from memfeat.models import AGGREGATORS, Padded
from memfeat.prediction.clip import MAX_VARIANTS, Clip
from memfeat.prediction.encoders import build_encoders
from memfeat.prediction.results import FrameEffects, VideoPrediction
from memfeat.runs import Run
from memfeat.storage import Location

_BATCH = 64  # variants of a clip scored at once
_BATCH_FRAMES = _BATCH * MAX_VARIANTS  # and their frames, which bounds the memory


class Predictor:
    """A run's models, and the encoders that they were trained on.

    Attributes:
        run: the run.
        encoders: its frame encoders, one for each cache.
        sources: lines naming encoders, weights and training scores.
    """

    def __init__(
        self,
        run: Run | Path,
        *,
        device: str = "auto",
        weights: str | Path | Sequence[str | Path] = (),
    ) -> None:
        """Load the run and its encoders.

        Args:
            run: a run, or its folder; of several seeds, the score is the mean over them.
            device: `auto`, `cpu` or `cuda:N`.
            weights: the checkpoint files of those encoders that came from one, in the order of
                the run's caches.

        Raises:
            RunError: the run is incomplete or damaged, needs a checkpoint file that was not
                given, or was trained on an encoder other than the one that could be built.
            EncoderError: an encoder's weights cannot be loaded, or the device not used.
        """
        self.run = run if isinstance(run, Run) else Run.load(run)
        start_decoders(1)  # which takes as long as the encoders do
        self.device = str(resolve_device(device))
        files = [weights] if isinstance(weights, str | Path) else list(weights)
        self.encoders = build_encoders(self.run, self.device, files)
        self.sources = tuple(self.run.sources())
        self._regressors = [model.to(self.device) for model in self.run.regressors()]
        self._latest: tuple[Location, Clip] | None = None

    def predict(self, path: Location) -> VideoPrediction:
        """Score one video, given by path or URL.

        A video that cannot be read gives a prediction with the reason, not an error.

        Raises:
            RemoteError: nothing of its storage can be had.
        """
        try:
            clip = self._encode(path)
        except VideoError as error:
            return VideoPrediction(
                path=path,
                status="failed",
                reason=error.reason,
                message=str(error),
                pts_seconds=np.empty(0),
                sources=self.sources,
            )
        self._latest = (path, clip)
        scores, weights = self._score([clip.frames])
        worst, count = clip.worst, len(clip.frames[0])
        partial = worst.status != "ok"
        return VideoPrediction(
            path=path,
            score=float(scores.mean()),
            score_std=_spread(scores[:, 0]),
            num_frames=count,
            duration_seconds=clip.duration_seconds,
            status=worst.status,
            reason=worst.reason,
            message=f"{path}: {worst.reason}; scored on {count} frames" if partial else "",
            weights=None if weights is None else clip.by_row(weights[:, 0].mean(0)),
            pts_seconds=clip.pts_seconds,
            sources=self.sources,
        )

    def timeline(self, path: Location) -> FrameEffects:
        """Score one video without each of its frames in turn.

        After `predict` of the same path, its embeddings are used again.

        Raises:
            VideoError: the video cannot be had or used.
            RemoteError: nothing of its storage can be had.
        """
        if self._latest is not None and self._latest[0] == path:
            clip = self._latest[1]
        else:
            clip = self._encode(path)
        scores, weights = self._score([clip.frames])
        windows = clip.windows()
        undefined = self._undefined(windows)
        effect = None
        if undefined is None:
            effect = (scores.mean() - self._scores_without(clip, windows))[windows[0]]
        return FrameEffects(
            pts_seconds=clip.pts_seconds,
            weights=None if weights is None else clip.by_row(weights[:, 0].mean(0)),
            effect=effect,
            effect_undefined=undefined,
            window=int(np.bincount(windows[0]).max()),
            score=float(scores.mean()),
            score_std=_spread(scores[:, 0]),
            sources=self.sources,
        )

    def _encode(self, path: Location) -> Clip:
        encoded = [
            encode_video(path, encoder, spec)
            for encoder, spec in zip(self.encoders, self.run.specs, strict=True)
        ]
        columns = [
            spec.width if AGGREGATORS.get(name).of_tokens else spec.dim
            for name, spec in zip(self.run.config.aggregator, self.run.specs, strict=True)
        ]
        return Clip.of(encoded, columns, self.device)

    def _undefined(self, windows: Sequence[NDArray[np.int64]]) -> str | None:
        """Say why nothing can be left out, if a stream has all its rows in one window."""
        if len(windows) == 1 and len(windows[0]) == 1:
            return "the clip has one frame: without it there is nothing to score"
        for rows, spec in zip(windows, self.run.specs, strict=True):
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
                    for frames, window, n in zip(clip.frames, windows, clip.covers, strict=True)
                ]
                for left_out in range(first, min(first + size, count))
            ]
            scores.append(self._score(batch)[0].mean(0))
        return np.concatenate(scores)

    @torch.inference_mode()
    def _score(
        self, clips: Sequence[Sequence[Tensor]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return scores (seeds, clips) and the first stream's weights (seeds, clips, time).

        Args:
            clips: each has for every stream its frames (time, dim).
        """
        streams = [
            Padded(
                pad_sequence(list(stream), batch_first=True),
                torch.tensor([len(frames) for frames in stream]),
            )
            for stream in zip(*clips, strict=True)
        ]
        predictions = [regressor(*streams) for regressor in self._regressors]
        scores = np.stack([_numpy(prediction.scores) for prediction in predictions])
        if predictions[0].weights[0] is None:
            return scores, None
        return scores, np.stack([_numpy(prediction.weights[0]) for prediction in predictions])


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()


def _spread(scores: NDArray[np.float64]) -> float | None:
    return float(scores.std(ddof=1)) if len(scores) > 1 else None
