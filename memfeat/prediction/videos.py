"""What every predictor does with videos, whatever scores them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import overload

from memfeat.extraction.encoding import OnFrames
from memfeat.prediction.comparison import Comparison
from memfeat.prediction.inputs import Input
from memfeat.prediction.results import VideoPrediction
from memfeat.runs import Calibration
from memfeat.storage import AnyLocation, is_one


class VideoPredictor(ABC):
    """Base of what scores videos, one or several.

    Attributes:
        calibration: what is known of how far scores are off.
    """

    calibration: Calibration

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
        self, videos: AnyLocation, *, allow_images: bool = False
    ) -> VideoPrediction: ...

    @overload
    def predict(
        self, videos: Iterable[AnyLocation], *, allow_images: bool = False
    ) -> list[VideoPrediction]: ...

    def predict(
        self, videos: AnyLocation | Iterable[AnyLocation], *, allow_images: bool = False
    ) -> VideoPrediction | list[VideoPrediction]:
        """Score a video, given by path or URL, or several, which are decoded ahead.

        A video that cannot be read gives a prediction with the reason, not an error.

        Args:
            videos: one video, or several.
            allow_images: whether an image is a video of one frame.

        Returns:
            The video's prediction; of several a list in their order.

        Raises:
            RunError, EncoderError: see `predict_each`.
            ConfigError: what is given names no file.
            RemoteError: nothing of a storage can be had.
        """
        if is_one(videos):
            (one,) = self.predict_each([videos], allow_images=allow_images)
            return one
        return list(self.predict_each(videos, allow_images=allow_images))

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
