"""The models of stage 2: an aggregator, then a head (paper, section 2)."""

from memfeat.models.aggregators import AGGREGATORS, Aggregated, Aggregator, SpatialAttention
from memfeat.models.fitted import FittedRegressor
from memfeat.models.heads import HEADS, Head
from memfeat.models.regressor import (
    Padded,
    Prediction,
    Regressor,
    build_regressor,
    parameter_count,
    regressor_of,
    resolve_model_options,
)

__all__ = [
    "AGGREGATORS",
    "HEADS",
    "Aggregated",
    "Aggregator",
    "FittedRegressor",
    "Head",
    "Padded",
    "Prediction",
    "Regressor",
    "SpatialAttention",
    "build_regressor",
    "parameter_count",
    "regressor_of",
    "resolve_model_options",
]
