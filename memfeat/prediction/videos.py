"""What every predictor does with videos, whatever scores them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from memfeat.errors import ConfigError
from memfeat.extraction.encoding import OnFrames
from memfeat.prediction.comparison import Comparison
from memfeat.prediction.inputs import Input, inputs_of
from memfeat.prediction.results import VideoPrediction
from memfeat.prediction.texts import texts_of
from memfeat.runs import Calibration
from memfeat.storage import AnyLocation, is_one


class VideoPredictor(ABC):
    """Base of what scores videos, one or several.

    Attributes:
        calibration: what is known of how far scores are off.
    """

    calibration: Calibration

    @property
    def takes_text(self) -> str:
        """The encoders of the texts that are taken beside the frames; empty if none are."""
        return ""

    @property
    def needs_text(self) -> bool:
        """Whether a video without a text cannot be scored."""
        return False

    @abstractmethod
    def predict_each(
        self,
        videos: Iterable[AnyLocation | Input],
        *,
        allow_images: bool = False,
        on_frames: OnFrames | None = None,
    ) -> Iterator[VideoPrediction]:
        """Yield the prediction of each video, in order, as soon as it is there.

        Args:
            videos: paths or URLs, or what `find_videos` found.
            allow_images: whether an image is a video of one frame.
            on_frames: called as frames are decoded; see `memfeat.extraction.encode_videos`.

        Raises:
            RunError, EncoderError: what scores the videos cannot be loaded.
            ConfigError: what is given names no file.
            RemoteError: nothing of a storage can be had.
        """

    @overload
    def predict(  # type: ignore[overload-overlap] # a str is iterable, too
        self, videos: AnyLocation, *, allow_images: bool = False, text: str | Sequence[str] = ...
    ) -> VideoPrediction: ...

    @overload
    def predict(
        self,
        videos: Iterable[AnyLocation],
        *,
        allow_images: bool = False,
        text: str | Sequence[str] = ...,
    ) -> list[VideoPrediction]: ...

    def predict(
        self,
        videos: AnyLocation | Iterable[AnyLocation],
        *,
        allow_images: bool = False,
        text: str | Sequence[str] = (),
    ) -> VideoPrediction | list[VideoPrediction]:
        """Score a video, given by path or URL, or several, which are decoded ahead.

        A video that cannot be read gives a prediction with the reason, not an error.

        Args:
            videos: one video, or several.
            allow_images: whether an image is a video of one frame.
            text: the video's text, as `memfeat predict --text` takes it; see `with_texts`.

        Returns:
            The video's prediction; of several a list in their order.

        Raises:
            RunError, EncoderError: see `predict_each`.
            ConfigError: what is given names no file; or of texts as for `with_texts`.
            RemoteError: nothing of a storage can be had.
        """
        several = inputs_of([videos] if is_one(videos) else videos)
        inputs = self.with_texts(several, [text] if isinstance(text, str) else text)
        found = list(self.predict_each(inputs, allow_images=allow_images))
        return found[0] if is_one(videos) else found

    def with_texts(self, videos: Sequence[Input], sources: Sequence[str]) -> Sequence[Input]:
        """Give videos their texts.

        Args:
            videos: what `find_videos` found.
            sources: tables `FILE.csv[:COLUMN,...]` and folders of `ID.txt`, by the videos' ids; or,
                for a single video, files of text or subtitles, or the texts themselves.

        Raises:
            ConfigError: no text is taken, or one is needed and there is none; the text of a single
                video for several, or a source without any of theirs.
            ManifestError: a table that cannot be read.
            VideoError: a file that is not text.
        """
        if sources and not self.takes_text:
            raise ConfigError("no text is taken here, for none was learned from; leave it out")
        if self.needs_text and not sources:
            raise ConfigError(
                f"the run was trained on texts, too ({self.takes_text}); give the videos' with "
                "--text, or train with --missing zero to do without"
            )
        return texts_of(videos, sources) if sources else videos

    def compare(
        self,
        videos: Iterable[AnyLocation | Input],
        *,
        allow_images: bool = False,
        on_video: Callable[[VideoPrediction], None] | None = None,
    ) -> Comparison:
        """Tell which of several videos is more memorable, and which frames make it so.

        Args:
            videos: paths or URLs, or what `find_videos` found.
            allow_images: whether an image is a video of one frame.
            on_video: called with each prediction, in order, as soon as it is there.

        Raises:
            RunError, EncoderError: see `predict_each`.
            ConfigError: what is given names no file.
            RemoteError: nothing of a storage can be had.
        """
        predictions = []
        for prediction in self.predict_each(videos, allow_images=allow_images):
            predictions.append(prediction)
            if on_video is not None:
                on_video(prediction)
        return Comparison.of(predictions, self.calibration.difference_margin)
