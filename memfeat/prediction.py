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
from memfeat.models import AGGREGATORS, Padded
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
        num_frames: frames decoded and scored, those included that a kept one stands for; of
            several streams, those of the first.
        duration_seconds: from the first frame's appearance to the last one's end.
        status: `ok`; `partial` for a damaged video scored on what there was; or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words.
        weights: each kept frame's weight, float64 (time,), mean over seeds and over the frames
            that it stands for; None if the aggregator gives none. Of several streams, likewise.
        pts_seconds: when each kept frame appears, float64 (time,), likewise.
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

    Of several streams, frames are those of the first, and what is left out at a time is a stretch
    of time, in all streams: as long as the stream with the fewest rows tells moments apart, such
    as a segment's, which all frames in it then share.

    Attributes:
        pts_seconds: when each frame appears, float64 (time,).
        weights: each frame's weight, float64 (time,), mean over seeds; None if the aggregator
            gives none.
        effect: the score of all frames minus the score without this one, float64 (time,), so
            positive where the frame raises the score; None where undefined.
        effect_undefined: why `effect` is None; None where it is defined.
        window: how many consecutive frames at most were left out at a time. Above 1, as for clips
            of more than `MAX_VARIANTS` frames, frames of a window share one effect: that of all
            of them.
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
    """A run's models behind the encoders that they were trained on.

    Attributes:
        run: the run.
        encoders: its frame encoders, one for each cache.
        sources: lines naming encoders, weights and training scores.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        device: str = "auto",
        weights: str | Path | Sequence[str | Path] = (),
    ) -> None:
        """Load the run and its encoders.

        Args:
            run_folder: of one seed, or of several: their mean is the score.
            device: `auto`, `cpu` or `cuda:N`.
            weights: the checkpoint files of those encoders that came from one, in the order of
                the run's caches.

        Raises:
            RunError: the run is incomplete or damaged, needs a checkpoint file that was not
                given, or was trained on an encoder other than the one that could be built.
            EncoderError: an encoder's weights cannot be loaded, or the device not used.
        """
        self.run = Run.load(run_folder)
        self.device = str(resolve_device(device))
        files = [weights] if isinstance(weights, str | Path) else list(weights)
        self.encoders = _build_encoders(self.run, self.device, files)
        self.sources = tuple(self.run.sources())
        self._regressors = [model.to(self.device) for model in self.run.regressors()]
        self._latest: tuple[Path, _Clip] | None = None

    def predict(self, path: Path) -> VideoPrediction:
        """Score one video. A video that cannot be used is an entry that says why, not an error."""
        try:
            clip = self._encode(path)
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
        self._latest = (path, clip)
        scores, weights = self._score([clip.frames])
        worst, count = clip.worst, len(clip.frames[0])
        partial = worst.status != "ok"
        return VideoPrediction(
            path=path,
            score=float(scores.mean()),
            score_std=_spread(scores[:, 0]),
            num_frames=count,
            duration_seconds=_duration(clip.pts_seconds, clip.covers[0]),
            status=worst.status,
            reason=worst.reason,
            message=f"{path}: {worst.reason}; scored on {count} frames" if partial else "",
            weights=None if weights is None else clip.by_row(weights[:, 0].mean(0)),
            pts_seconds=clip.pts_seconds,
            sources=self.sources,
        )

    def timeline(self, path: Path) -> Timeline:
        """Find out what each frame of one video does to its score, by leaving it out.

        After `predict` on the same path, its embeddings are used again.

        Raises:
            VideoError: the video cannot be used.
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
        return Timeline(
            pts_seconds=clip.pts_seconds,
            weights=None if weights is None else clip.by_row(weights[:, 0].mean(0)),
            effect=effect,
            effect_undefined=undefined,
            window=int(np.bincount(windows[0]).max()),
            score=float(scores.mean()),
            score_std=_spread(scores[:, 0]),
            sources=self.sources,
        )

    def _encode(self, path: Path) -> "_Clip":
        encoded = [
            encode_video(path, encoder, spec)
            for encoder, spec in zip(self.encoders, self.run.specs, strict=True)
        ]
        columns = [
            spec.width if AGGREGATORS.get(name).of_tokens else spec.dim
            for name, spec in zip(self.run.config.aggregator, self.run.specs, strict=True)
        ]
        return _Clip.of(encoded, columns, self.device)

    def _undefined(self, windows: Sequence[NDArray[np.int64]]) -> str | None:
        """Say why nothing can be left out, if so: a stream has rows in one window only."""
        if len(windows) == 1 and len(windows[0]) == 1:
            return "the clip has one frame: without it there is nothing to score"
        for rows, spec in zip(windows, self.run.specs, strict=True):
            if rows[0] == rows[-1]:
                return f"{spec.encoder} sees the clip as one: without it there is nothing to score"
        return None

    def _scores_without(
        self, clip: "_Clip", windows: Sequence[NDArray[np.int64]]
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


@dataclass(frozen=True)
class _Clip:
    """A video as each of a run's encoders sees it.

    Attributes:
        encoded: by each encoder, (rows, width) each.
        covers: int32 (rows,) each, how many frames a row stands for.
        frames: float32 (time, dim) each, on the device, a row as often as it stands for a frame.
    """

    encoded: tuple[EncodedVideo, ...]
    covers: tuple[NDArray[np.int32], ...]
    frames: tuple[Tensor, ...]

    @classmethod
    def of(cls, encoded: Sequence[EncodedVideo], columns: Sequence[int], device: str) -> "_Clip":
        """Take of each row the first `columns` numbers, as the aggregators want them."""
        covers = [
            np.ones(len(each.embeddings), np.int32) if each.covers is None else each.covers
            for each in encoded
        ]
        frames = [
            torch.from_numpy(each.embeddings[:, :n].astype(np.float32).repeat(own, axis=0)).to(
                device
            )
            for each, n, own in zip(encoded, columns, covers, strict=True)
        ]
        return cls(tuple(encoded), tuple(covers), tuple(frames))

    def by_row(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the means (rows,) of the first stream's values (time,) over each row's frames."""
        covers = self.covers[0]
        means: NDArray[np.float64] = np.add.reduceat(values, np.cumsum(covers) - covers) / covers
        return means

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        return self.encoded[0].pts_seconds

    @property
    def worst(self) -> EncodedVideo:
        return next((each for each in self.encoded if each.status != "ok"), self.encoded[0])

    def windows(self) -> list[NDArray[np.int64]]:
        """Return for each stream which window each row is in, int64 (time,), from 0 upwards."""
        times = [each.pts_seconds for each in self.encoded]
        coarsest = min(range(len(times)), key=lambda stream: len(times[stream]))
        step = math.ceil(len(times[coarsest]) / MAX_VARIANTS)
        starts = times[coarsest][::step]
        windows = [np.searchsorted(starts, own, side="right").clip(1) - 1 for own in times]
        windows[coarsest] = np.arange(len(times[coarsest])) // step
        return windows


def frames_at(path: Path, pts_seconds: Collection[float]) -> dict[float, NDArray[np.uint8]]:
    """Decode the frames that appear at these very times, uint8 (height, width, 3) RGB each.

    Raises:
        VideoError: the video cannot be used.
    """
    wanted, found = set(pts_seconds), dict[float, NDArray[np.uint8]]()
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.pts_seconds in wanted:
                found[frame.pts_seconds] = frame.pixels
            if len(found) == len(wanted):
                break
    return found


def _build_encoders(
    run: Run, device: str, weights: Sequence[str | Path]
) -> tuple[FrameEncoder, ...]:
    """Build the encoder that each of the run's specs describes, or refuse."""
    wanted = dict.fromkeys(run.specs)
    for spec in wanted:
        if spec.is_imported:
            raise RunError(
                f"{run.folder} was trained on features that were made elsewhere "
                f"({spec.trained_on}), and memfeat cannot make them for another video; import that "
                "video's features, and use `memfeat evaluate`"
            )
    from_file = [spec for spec in wanted if spec.weights.startswith(_FILE)]
    # A single encoder may be given any weights: that they are others is told with both values.
    given = dict(zip(from_file or wanted, weights, strict=False))
    for spec in from_file:
        if spec not in given:
            raise RunError(
                f"{run.folder} was trained on {spec.encoder} with the checkpoint file "
                f"{spec.weights.removeprefix(_FILE)!r}; give its path with --weights"
            )
    if len(weights) > len(given):
        raise RunError(
            f"{len(weights)} checkpoint files are given, and {run.folder} has {len(given)} "
            "encoders to load one; give --weights once for each"
        )
    built = {spec: _build_encoder(run, spec, device, given.get(spec)) for spec in wanted}
    return tuple(built[spec] for spec in run.specs)


def _build_encoder(
    run: Run, spec: CacheSpec, device: str, weights: str | Path | None
) -> FrameEncoder:
    from_file = spec.weights.startswith(_FILE)
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


def _duration(pts_seconds: NDArray[np.float64], covers: NDArray[np.int32]) -> float:
    """Return how long the frames are shown; the last one as long as they usually are.

    Args:
        pts_seconds: when each row's first frame appears.
        covers: how many frames each row stands for.
    """
    if len(pts_seconds) < 2:
        return 0.0
    usual = np.median(np.diff(pts_seconds) / covers[:-1])
    return float(pts_seconds[-1] - pts_seconds[0] + usual * covers[-1])
