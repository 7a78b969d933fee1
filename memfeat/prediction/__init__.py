"""New videos to scores, and to which of their moments a score hangs on."""

from memfeat.prediction.answers import Timeline, VideoPrediction
from memfeat.prediction.clip import frames_at
from memfeat.prediction.predictor import Predictor

__all__ = ["Predictor", "Timeline", "VideoPrediction", "frames_at"]
