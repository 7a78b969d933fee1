"""Scoring videos with trained regressors."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.models import Prediction, Regressor, Stack
from memfeat.training.batches import Videos

BATCH_SIZE = 32


def score(regressor: Regressor, videos: Videos) -> NDArray[np.float64]:
    """Score videos with a regressor on their bank's device; return (videos,), each in [0, 1].

    The regressor is in evaluation mode for the while. Videos of similar length are scored
    together; but for rounding (1e-6) a score depends on no other video.
    """

    def scores_of(frames: Tensor, lengths: Tensor) -> Tensor:
        prediction: Prediction = regressor(frames, lengths)
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

    def scores_of(frames: Tensor, lengths: Tensor) -> Tensor:
        return stack.scores(frames.unsqueeze(0), lengths.unsqueeze(0))

    return _in_batches(scores_of, videos, len(stack))


def _in_batches(
    scores_of: Callable[[Tensor, Tensor], Tensor], videos: Videos, models: int
) -> NDArray[np.float64]:
    by_length = np.argsort(videos.lengths, kind="stable")
    starts, lengths = torch.from_numpy(videos.starts), torch.from_numpy(videos.lengths)
    scores = np.empty((models, len(videos)))
    with torch.inference_mode():
        for first in range(0, len(videos), BATCH_SIZE):
            chosen = by_length[first : first + BATCH_SIZE]
            batch = videos.bank.gather(starts[chosen], lengths[chosen])
            scores[:, chosen] = scores_of(batch, lengths[chosen]).cpu().numpy()
    return scores
