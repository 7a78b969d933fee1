"""Scoring videos with trained regressors."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.models import Padded, Prediction, Regressor, Stack
from memfeat.training.batches import Videos

BATCH_SIZE = 32


def score(regressor: Regressor, videos: Videos) -> NDArray[np.float64]:
    """Score videos with a regressor on their bank's device; return (videos,), each in [0, 1].

    The regressor is in evaluation mode for the while. Videos of similar length are scored
    together; but for rounding (1e-6) a score depends on no other video.
    """

    def scores_of(streams: Sequence[Padded]) -> Tensor:
        prediction: Prediction = regressor(*streams)
        return prediction.scores.unsqueeze(0)

    was_training = regressor.training
    regressor.eval()
    try:
        scores: NDArray[np.float64] = _in_batches(scores_of, videos, 1)[0]
    finally:
        regressor.train(was_training)
    return scores


def score_with_each(stack: Stack, videos: Videos) -> NDArray[np.float64]:
    """Score videos with every regressor of a stack; return (models, videos), each in [0, 1]."""

    def scores_of(streams: Sequence[Padded]) -> Tensor:
        return stack.scores([(frames[None], lengths[None]) for frames, lengths in streams])

    return _in_batches(scores_of, videos, len(stack))


def _in_batches(
    scores_of: Callable[[Sequence[Padded]], Tensor], videos: Videos, models: int
) -> NDArray[np.float64]:
    by_length = np.argsort(videos.lengths, kind="stable")
    scores = np.empty((models, len(videos)))
    with torch.inference_mode():
        for first in range(0, len(videos), BATCH_SIZE):
            chosen = by_length[first : first + BATCH_SIZE]
            streams = [stream.padded(chosen) for stream in videos.streams]
            scores[:, chosen] = scores_of(streams).cpu().numpy()
    return scores
