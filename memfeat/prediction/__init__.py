"""Scores of new videos, how far to trust them, and what each of their frames does to the score."""

from memfeat.prediction.clip import frames_at
from memfeat.prediction.comparison import Comparison, Difference
from memfeat.prediction.effects import FrameEffects
from memfeat.prediction.inputs import Input, find_videos
from memfeat.prediction.predictor import Predictor
from memfeat.prediction.raters import RATERS, RatingPredictor, load_predictor
from memfeat.prediction.results import ABOUT_WEIGHTS, VideoPrediction

__all__ = [
    "ABOUT_WEIGHTS",
    "RATERS",
    "Comparison",
    "Difference",
    "FrameEffects",
    "Input",
    "Predictor",
    "RatingPredictor",
    "VideoPrediction",
    "find_videos",
    "frames_at",
    "load_predictor",
]
