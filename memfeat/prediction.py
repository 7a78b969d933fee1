"""New videos to scores, and to which of their moments a score hangs on."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from memfeat.cache import CacheSpec, EncodedVideo, Status
from memfeat.devices import resolve_device
from memfeat.encoders import FrameEncoder, create_encoder
from memfeat.errors import CacheError, RunError, VideoError
from memfeat.extraction import encode_video
from memfeat.runs import Run
from memfeat.video import VideoReader

MAX_VARIANTS = 256  # clips scored for one timeline; longer ones lose several frames at a time
_BATCH = 64  # variants scored at once
_BATCH_FRAMES = _BATCH * MAX_VARIANTS  # and their frames, so memory does not grow with the clip
_FILE = "file:"
_CHOOSABLE = ("gelu", "quickgelu")  # what a checkpoint may leave open


@dataclass(frozen=True)
class VideoPrediction:
    """What a run says about one video.

    Attributes:
        path: the video.
        score: memorability in (0, 1), the mean over the run's seeds; None if the video failed.
        score_std: standard deviation over seeds (n - 1); None with one seed.
        num_frames: frames decoded and scored.
        duration_seconds: from the first frame's appearance to the last one's end.
        status: `ok`; `partial` for a damaged video scored on what there was; or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words.
        weights: each frame's weight, float64 (time,), mean over seeds; None if the aggregator
            gives none.
        pts_seconds: when each frame appears, float64 (time,).
        sources: lines naming what the score comes from; they belong under whatever shows it.
    """

    path: Path
    score: float | None
    score_std: float | None
    num_frames: int
    duration_seconds: float
    status: Status
    reason: str
    message: str
    weights: NDArray[np.float64] | None
    pts_seconds: NDArray[np.float64]
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields ready for JSON; arrays become lists."""
        fields = vars(self) | {"path": str(self.path), "sources": list(self.sources)}
        fields["pts_seconds"] = self.pts_seconds.tolist()
        fields["weights"] = None if self.weights is None else self.weights.tolist()
        return fields


@dataclass(frozen=True)
class Timeline:
    """Which moments of a video its score hangs on.

    Attributes:
        pts_seconds: when each frame appears, float64 (time,).
        weights: each frame's weight, float64 (time,), mean over seeds; None if the aggregator
            gives none.
        effect: the score of all frames minus the score without this one, float64 (time,), so
            positive where the frame raises the score; None where undefined.
        effect_undefined: why `effect` is None; None where it is defined.
        window: how many consecutive frames were left out at a time. Above 1, for clips of more
            than `MAX_VARIANTS` frames, frames of a window share one effect: that of all of them.
        score: memorability in (0, 1), the mean over seeds.
        score_std: standard deviation over seeds (n - 1); None with one seed.
        sources: lines naming what the score comes from.
    """

    pts_seconds: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    effect: NDArray[np.float64] | None
    effect_undefined: str | None
    window: int
    score: float
    score_std: float | None
    sources: tuple[str, ...]


class Predictor:
    """A run's models behind the encoder that they were trained on.

    Attributes:
        run: the run.
        encoder: its frame encoder.
        sources: lines naming encoder, weights and training scores.
    """

    def __init__(
        self, run_folder: Path, *, device: str = "auto", weights: str | Path | None = None
    ) -> None:
        """Load the run and its encoder.

        Args:
            run_folder: of one seed, or of several: their mean is the score.
            device: `auto`, `cpu` or `cuda:N`.
            weights: the encoder's checkpoint file, for a run whose encoder came from one.

        Raises:
            RunError: the run is incomplete or damaged, needs a checkpoint file that was not
                given, or was trained on an encoder other than the one that could be built.
            EncoderError: the encoder's weights cannot be loaded, or the device not used.
        """
        self.run = Run.load(run_folder)
        self.device = str(resolve_device(device))
        self.encoder = _build_encoder(self.run, self.device, weights)
        self.sources = tuple(self.run.sources())
        self._regressors = [model.to(self.device) for model in self.run.regressors()]
        self._latest: tuple[Path, EncodedVideo] | None = None

    def predict(self, path: Path) -> VideoPrediction:
        """Score one video. A video that cannot be used is an entry that says why, not an error."""
        try:
            encoded = encode_video(path, self.encoder, self.run.spec)
        except VideoError as error:
            return VideoPrediction(
                path=path,
                score=None,
                score_std=None,
                num_frames=0,
                duration_seconds=0.0,
                status="failed",
                reason=error.reason,
                message=str(error),
                weights=None,
                pts_seconds=np.empty(0),
                sources=self.sources,
            )
        self._latest = (path, encoded)
        frames = self._frames(encoded)
        scores, weights = self._score([frames])
        partial = encoded.status != "ok"
        return VideoPrediction(
            path=path,
            score=float(scores.mean()),
            score_std=_spread(scores[:, 0]),
            num_frames=len(frames),
            duration_seconds=_duration(encoded.pts_seconds),
            status=encoded.status,
            reason=encoded.reason,
            message=f"{path}: {encoded.reason}; scored on {len(frames)} frames" if partial else "",
            weights=None if weights is None else weights[:, 0].mean(0),
            pts_seconds=encoded.pts_seconds,
            sources=self.sources,
        )

    def timeline(self, path: Path) -> Timeline:
        """Find out what each frame of one video does to its score, by leaving it out.

        After `predict` on the same path, its embeddings are used again.

        Raises:
            VideoError: the video cannot be used.
        """
        if self._latest is not None and self._latest[0] == path:
            encoded = self._latest[1]
        else:
            encoded = encode_video(path, self.encoder, self.run.spec)
        frames = self._frames(encoded)
        scores, weights = self._score([frames])
        window = math.ceil(len(frames) / MAX_VARIANTS)
        only = "the clip has one frame: without it there is nothing to score"
        return Timeline(
            pts_seconds=encoded.pts_seconds,
            weights=None if weights is None else weights[:, 0].mean(0),
            effect=scores.mean() - self._scores_without(frames, window)
            if len(frames) > 1
            else None,
            effect_undefined=None if len(frames) > 1 else only,
            window=window,
            score=float(scores.mean()),
            score_std=_spread(scores[:, 0]),
            sources=self.sources,
        )

    def _frames(self, encoded: EncodedVideo) -> Tensor:
        return torch.from_numpy(encoded.embeddings.astype(np.float32)).to(self.device)

    def _scores_without(self, frames: Tensor, window: int) -> NDArray[np.float64]:
        """Score `frames` (time, dim) without each window, for each of its frames: (time,)."""
        starts = range(0, len(frames), window)
        size = max(1, min(_BATCH, _BATCH_FRAMES // len(frames)))
        scores = []
        for first in range(0, len(starts), size):
            batch = [
                torch.cat([frames[:start], frames[start + window :]])
                for start in starts[first : first + size]
            ]
            scores.append(self._score(batch)[0].mean(0))
        return np.repeat(np.concatenate(scores), window)[: len(frames)]

    @torch.inference_mode()
    def _score(
        self, clips: Sequence[Tensor]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return scores (seeds, clips) and weights (seeds, clips, time) of clips (time, dim)."""
        frames = pad_sequence(list(clips), batch_first=True)
        lengths = torch.tensor([len(clip) for clip in clips])
        predictions = [regressor(frames, lengths) for regressor in self._regressors]
        scores = np.stack([_numpy(prediction.scores) for prediction in predictions])
        if predictions[0].weights is None:
            return scores, None
        return scores, np.stack([_numpy(prediction.weights) for prediction in predictions])


def frames_at(
    path: Path, indices: Collection[int], *, max_frames: int | None = None
) -> dict[int, NDArray[np.uint8]]:
    """Decode the frames of these indices, uint8 (height, width, 3) RGB each, in one pass.

    Raises:
        VideoError: the video cannot be used.
    """
    with VideoReader(path, max_frames=max_frames) as reader:
        return {index: frame.pixels for index, frame in enumerate(reader) if index in indices}


def _build_encoder(run: Run, device: str, weights: str | Path | None) -> FrameEncoder:
    """Build the encoder that `run.spec` describes, or refuse."""
    spec = run.spec
    if spec.is_imported:
        raise RunError(
            f"{run.folder} was trained on features that were made elsewhere ({spec.trained_on}), "
            "and memfeat cannot make them for another video; import that video's features, and "
            "use `memfeat evaluate`"
        )
    from_file = spec.weights.startswith(_FILE)
    if from_file and weights is None:
        raise RunError(
            f"{run.folder} was trained on {spec.encoder} with the checkpoint file "
            f"{spec.weights.removeprefix(_FILE)!r}; give its path with --weights"
        )
    encoder = create_encoder(
        spec.encoder,
        spec.weights if weights is None else str(weights),
        activation=spec.activation if from_file and spec.activation in _CHOOSABLE else "auto",
        tokens=spec.tokens,
        precision=spec.precision or "auto",
        device=device,
    )
    built: CacheSpec = encoder.spec(
        batch_size=spec.batch_size or 1, max_frames=spec.max_frames, sampling=spec.sampling
    )
    try:
        spec.require(built, f"{run.folder} was trained on another encoder than this one")
    except CacheError as error:
        raise RunError(
            f"{error}. Use the weights and versions that extracted its features, or train on "
            "features of the encoder that is here"
        ) from error
    return encoder


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()


def _spread(scores: NDArray[np.float64]) -> float | None:
    return float(scores.std(ddof=1)) if len(scores) > 1 else None


def _duration(pts_seconds: NDArray[np.float64]) -> float:
    """Return how long the frames are shown; the last one as long as they usually are."""
    if len(pts_seconds) < 2:
        return 0.0
    return float(pts_seconds[-1] - pts_seconds[0] + np.median(np.diff(pts_seconds)))
