"""Scores of new videos, and what each of their frames does to the score."""

from memfeat.prediction.clip import frames_at
from memfeat.prediction.predictor import Predictor
from memfeat.prediction.results import FrameEffects, VideoPrediction

__all__ = ["FrameEffects", "Predictor", "VideoPrediction", "frames_at"]
