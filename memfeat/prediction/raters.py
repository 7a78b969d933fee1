"""Ready scorers: published models that rate an image's memorability, applied to each frame.

They learnt from people's memory for images, so they need no run of memfeat's own. Preprocessing is
that of their authors' code, exactly: Pillow's bilinear resize to 256 x 256, a crop of the middle,
and RGB in [0, 1].
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memfeat.config import READY, is_ready
from memfeat.decoding import DecodedFrames, DecodedVideo, DecodeSettings, decode_ahead
from memfeat.devices import exact_float32, resolve_device, seeded
from memfeat.encoders.checkpoints import read_checkpoint
from memfeat.encoders.resmem import CROP, RESIZED, resmem_network
from memfeat.encoders.timm_weights import library as timm_library
from memfeat.errors import ConfigError, EncoderError
from memfeat.extraction import usual_decoders
from memfeat.extraction.encoding import OnFrames
from memfeat.manifest import VideoRecord
from memfeat.prediction.effects import FrameEffects
from memfeat.prediction.inputs import Input, inputs_of
from memfeat.prediction.predictor import Predictor
from memfeat.prediction.results import VideoPrediction
from memfeat.prediction.scorer import AnyRun
from memfeat.prediction.videos import VideoPredictor
from memfeat.registry import Registry
from memfeat.runs import Calibration
from memfeat.storage import AnyLocation

BATCH = 16  # frames of one video, padded with black to so many


class Rater(ABC):
    """Base of all raters: an image's memorability in (0, 1).

    Attributes:
        crop: pixels a side that the network takes.
        citation: authors and year.
        cautions: what to say with every score, by a stable code.
    """

    crop: ClassVar[int]
    citation: ClassVar[str]
    cautions: ClassVar[dict[str, str]]

    @staticmethod
    @abstractmethod
    def network(weights: Path | None) -> nn.Module:
        """Return the network: float32 (images, 3, crop, crop) in [0, 1] to ratings (images,).

        Raises:
            ConfigError, EncoderError: its code or weights are not here.
        """


RATERS: Registry[type[Rater]] = Registry("rater")


@RATERS.register("resmem")
class ResMem(Rater):
    """ResMem, from the package `resmem`, which brings its weights."""

    crop: ClassVar[int] = CROP
    citation: ClassVar[str] = "Needell and Bainbridge 2022"
    cautions: ClassVar[dict[str, str]] = READY["resmem"]

    @staticmethod
    def network(weights: Path | None) -> nn.Module:
        """Return the package's own network; see `Rater.network`."""
        if weights is not None:
            raise ConfigError("resmem brings its own weights; leave --weights out")
        return nn.Sequential(resmem_network(), nn.Flatten(0))


@RATERS.register("vitmem")
class VitMem(Rater):
    """ViTMem: a Vision Transformer of timm's with one output, and a file of weights."""

    crop: ClassVar[int] = 224
    citation: ClassVar[str] = "Hagen and Espeseth 2023"
    cautions: ClassVar[dict[str, str]] = READY["vitmem"]
    file: ClassVar[str] = "vitmem_base_patch16_224_miil_v1-f580d24a.pth"
    url: ClassVar[str] = f"https://huggingface.co/brainpriority/vitmem/resolve/main/{file}"

    @staticmethod
    def network(weights: Path | None) -> nn.Module:
        """Build it with the weights of a file, by default where torch's hub keeps it.

        See `Rater.network`.
        """
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / VitMem.file
        if not path.is_file():
            raise EncoderError(
                f"there is no {path}; get ViTMem's weights (MIT licence) from {VitMem.url}, and "
                "give the file with --weights or put it there"
            )
        state = {name.removeprefix("vit."): value for name, value in read_checkpoint(path).items()}
        with seeded(0):
            network = timm_library().create_model(
                "vit_base_patch16_224_miil", pretrained=False, num_classes=1
            )
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(f"{path} does not hold ViTMem's weights: {reason}") from error
        return nn.Sequential(network, nn.Sigmoid(), nn.Flatten(0))


class RatingPredictor(VideoPredictor):
    """Scores videos with a rater, as `Predictor` does with a run.

    Attributes:
        name: the rater's.
        device: where it computes.
        sources: lines that say what made the scores.
        calibration: of nothing: no scores of videos were learned from, so there are no intervals.
        precision: of the network.
    """

    precision = "float32"

    def __init__(
        self, name: str, *, device: str = "auto", weights: str | Path | None = None
    ) -> None:
        """Load a rater.

        Args:
            name: `resmem` or `vitmem`.
            device: `auto`, `cpu` or `cuda:N`.
            weights: a file of its weights, for a rater that does not bring them.

        Raises:
            UnknownNameError: no such rater.
            ConfigError: its package, or the device, is not here.
            EncoderError: its weights cannot be loaded.
        """
        self._rater = RATERS.get(name)
        self.name, self.device = name, str(resolve_device(device))
        self._network = self._rater.network(None if weights is None else Path(weights))
        self._network.eval().to(self.device)
        self.calibration = Calibration(np.empty(0), np.empty(0))
        self.sources = (f"scores: {name} ({self._rater.citation}), a model of memory for images",)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name}>"

    def notes(self) -> list[str]:
        """Return what to say before the first score."""
        return [f"{self.name}: {text}" for text in self._rater.cautions.values()]

    @cached_property
    def model_id(self) -> str:
        """Twelve digits that differ between models, so that their scores are not mixed up."""
        digest = hashlib.sha256(self.name.encode())
        for name, value in self._network.state_dict().items():
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def predict_each(
        self,
        videos: Iterable[AnyLocation | Input],
        *,
        allow_images: bool = False,
        on_frames: OnFrames | None = None,
    ) -> Iterator[VideoPrediction]:
        """Yield each prediction; see `VideoPredictor.predict_each`."""
        inputs = inputs_of(videos)
        records = [
            VideoRecord(video_id="video", path=own.path, score=None, split="test")
            for own in inputs
            if own.path is not None
        ]
        settings = DecodeSettings(RESIZED, pillow=True, hashed=False, allow_images=allow_images)
        decoders = max(1, min(len(inputs), usual_decoders(torch.device(self.device))))
        rated = [_RatedVideo(self._rate) for _ in inputs]
        ended: dict[int, VideoPrediction] = {}
        with decode_ahead(records, settings, decoders=decoders, most_open=2 * decoders) as events:
            at = 0
            for event in events:
                if isinstance(event, DecodedFrames):
                    rated[event.number].add(event)
                    if on_frames is not None:
                        on_frames(event.number, event.pts_seconds[-1])
                    continue
                own = inputs[event.number]
                ended[event.number] = self._prediction(own, event, rated[event.number])
                while at in ended:
                    yield ended.pop(at)
                    at += 1

    def _prediction(self, own: Input, event: DecodedVideo, video: "_RatedVideo") -> VideoPrediction:
        result, ratings = event.result, video.end()
        if result.status == "failed" or not len(ratings):
            return VideoPrediction(
                path=own.path,
                video_id=own.video_id,
                status="failed",
                reason=result.reason,
                message=result.message,
                sources=self.sources,
            )
        times, score = np.array(video.pts_seconds), float(ratings.mean())
        usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        return VideoPrediction(
            path=own.path,
            video_id=own.video_id,
            score=score,
            cautions=self._rater.cautions,
            num_frames=len(times),
            duration_seconds=float(times[-1] - times[0]) + usual,
            status=result.status,
            reason=result.reason,
            message=result.message,
            pts_seconds=times,
            sources=self.sources,
            find_effects=lambda: _effects(ratings, times, score, self.sources),
        )

    @torch.inference_mode()
    def _rate(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Rate uint8 (frames, RESIZED, RESIZED, 3)."""
        crop = self._rater.crop
        start = round((RESIZED - crop) / 2)  # as torchvision's CenterCrop has it
        pixels = torch.from_numpy(frames[:, start : start + crop, start : start + crop].copy())
        scaled = pixels.to(self.device).permute(0, 3, 1, 2).contiguous().float() / 255
        with exact_float32():
            ratings: Tensor = self._network(scaled)
        return ratings.double().cpu().numpy()


class _RatedVideo:
    """Rates a video's frames in batches of one size, so that a rating depends on no other video."""

    def __init__(self, rate: Callable[[NDArray[np.uint8]], NDArray[np.float64]]) -> None:
        self._rate = rate
        self._batch: NDArray[np.uint8] | None = None
        self._filled = 0
        self._ratings = [np.empty(0)]
        self.pts_seconds: list[float] = []

    def add(self, frames: DecodedFrames) -> None:
        """Add the video's next frames."""
        self.pts_seconds += frames.pts_seconds
        for pixels in frames.pixels:
            if self._batch is None:
                self._batch = np.zeros((BATCH, *pixels.shape), np.uint8)
            self._batch[self._filled] = pixels
            self._filled += 1
            if self._filled == BATCH:
                self._flush()

    def end(self) -> NDArray[np.float64]:
        """Return the ratings, float64 (time,)."""
        self._flush()
        self._batch = None
        return np.concatenate(self._ratings)

    def _flush(self) -> None:
        if self._filled and self._batch is not None:
            self._batch[self._filled :] = 0
            self._ratings.append(self._rate(self._batch)[: self._filled])
            self._filled = 0


def _effects(
    ratings: NDArray[np.float64], times: NDArray[np.float64], score: float, sources: tuple[str, ...]
) -> FrameEffects:
    """Return what each frame does to the mean."""
    one = len(ratings) < 2
    return FrameEffects(
        pts_seconds=times,
        weights=None,
        effect=None if one else (ratings - score) / (len(ratings) - 1),
        effect_undefined="the clip has one frame" if one else None,
        window=1,
        score=score,
        score_std=None,
        sources=sources,
        ratings=ratings,
    )


def load_predictor(
    runs: AnyRun | Sequence[AnyRun],
    *,
    device: str = "auto",
    weights: str | Path | Sequence[str | Path] = (),
) -> Predictor | RatingPredictor:
    """Load a run, or several, or the ready scorer of that name.

    Raises:
        RunError, ConfigError, EncoderError: as for `Predictor` and `RatingPredictor`.
    """
    if isinstance(runs, str) and is_ready(runs):
        files = [weights] if isinstance(weights, str | Path) else list(weights)
        return RatingPredictor(runs, device=device, weights=files[0] if files else None)
    return Predictor(runs, device=device, weights=weights)
