"""A run's encoders and models, or those of several runs, applied to new videos."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import cached_property, partial
from pathlib import Path

from memfeat.cache import EncodedVideo
from memfeat.decoding import start_decoders
from memfeat.encoders import FrameEncoder, TextEncoder
from memfeat.errors import VideoError
from memfeat.extraction import encode_text, encode_videos, usual_decoders
from memfeat.extraction.encoding import OnFrames
from memfeat.prediction.encoders import build_encoders
from memfeat.prediction.inputs import Input, inputs_of
from memfeat.prediction.results import VideoPrediction
from memfeat.prediction.scorer import AnyRun, Scorer
from memfeat.prediction.videos import VideoPredictor
from memfeat.storage import AnyLocation


class Predictor(Scorer, VideoPredictor):
    """A run's models, or those of several runs, and the encoders that they were trained on.

    It scores videos, which loads the encoders on first use, or the features that a cache holds
    already, which does not.

    Examples:
        >>> import memfeat
        >>> predictor = memfeat.Predictor("runs/mine")
        >>> [each.status for each in predictor.predict(["videos/clip_0000.mp4", "none.mp4"])]
        ['ok', 'failed']
        >>> len(list(predictor.predict_cache("cache/mine/efficientnet-lite0")))
        14
    """

    def __init__(
        self,
        runs: AnyRun | Sequence[AnyRun],
        *,
        device: str = "auto",
        weights: str | Path | Sequence[str | Path] = (),
    ) -> None:
        """Load the runs.

        Args:
            runs: a run, or its folder, or several, whose scores are averaged; of several seeds, a
                run's score is the mean over them.
            device: `auto`, `cpu` or `cuda:N`.
            weights: the checkpoint files of those encoders that came from one, in the order of
                the run's caches.

        Raises:
            RunError: a run is incomplete or damaged.
            ConfigError: the device is not here.
        """
        super().__init__(runs, device=device)
        self._weights = [weights] if isinstance(weights, str | Path) else list(weights)

    @cached_property
    def encoders(self) -> tuple[FrameEncoder | TextEncoder, ...]:
        """The encoders, one for each of `specs`.

        Raises:
            RunError: a run needs a checkpoint file that was not given, or was trained on an
                encoder other than the one that could be built.
            EncoderError: an encoder's weights cannot be loaded, or the device not used.
        """
        if not self.specs[0].is_text:
            start_decoders(1)  # which takes as long as the encoders do
        return build_encoders(self.runs, self.specs, self.device, self._weights)

    def predict_each(
        self,
        videos: Iterable[AnyLocation | Input],
        *,
        allow_images: bool = False,
        on_frames: OnFrames | None = None,
    ) -> Iterator[VideoPrediction]:
        """Yield each prediction; see `VideoPredictor.predict_each`."""
        inputs = inputs_of(videos)
        if not inputs:
            return
        decoders = min(len(inputs), usual_decoders(self.encoders[0].device))
        encode = partial(
            encode_videos,
            [own.path for own in inputs if own.path is not None],
            decoders=decoders,
            allow_images=allow_images,
            on_frames=on_frames,
        )
        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(encode(encoder, spec)))
                for encoder, spec in zip(self.encoders, self.specs, strict=True)
                if isinstance(encoder, FrameEncoder)
            ]
            for own, *encoded in zip(inputs, *streams, strict=True):
                yield self._of_video(own, [*encoded, *self._texts(own)])

    def _texts(self, own: Input) -> Iterator[EncodedVideo | VideoError]:
        """Encode a video's texts for each stream of texts."""
        for encoder, spec in zip(self.encoders, self.specs, strict=True):
            if isinstance(encoder, TextEncoder):
                encoded = encode_text(own.video_id, own.parts, encoder, spec)
                yield encoded if len(encoded.embeddings) else self.without_text(own.name, spec)

    def _of_video(
        self, own: Input, encoded: Sequence[EncodedVideo | VideoError]
    ) -> VideoPrediction:
        errors = [each for each in encoded if isinstance(each, VideoError)]
        if errors:
            failed = errors[0].reason, str(errors[0])
            return self.failure(own.path, own.video_id, *failed)
        whole = [each for each in encoded if isinstance(each, EncodedVideo)]
        return self.score(whole, own.path, own.video_id)
