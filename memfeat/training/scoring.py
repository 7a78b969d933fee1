"""Scoring videos with a trained regressor."""

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.models import Regressor
from memfeat.training.batches import Videos

BATCH_SIZE = 32


def score(regressor: Regressor, videos: Videos) -> NDArray[np.float64]:
    """Score videos with a regressor on their bank's device; return (videos,), each in [0, 1].

    The regressor is in evaluation mode for the while. Videos of similar length are scored
    together; but for rounding (1e-6) a score depends on no other video.
    """
    by_length = np.argsort(videos.lengths, kind="stable")
    scores = np.empty(len(videos))
    was_training = regressor.training
    regressor.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(videos), BATCH_SIZE):
                chosen = by_length[first : first + BATCH_SIZE]
                streams = [stream.padded(chosen) for stream in videos.streams]
                scores[chosen] = regressor(*streams).scores.cpu().numpy()
    finally:
        regressor.train(was_training)
    return scores
