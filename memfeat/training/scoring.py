"""Scoring videos with a trained regressor."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import FeatureTable
from memfeat.devices import CPU
from memfeat.models import Prediction, Regressor
from memfeat.training.batches import FrameBank, Rows

BATCH_SIZE = 32


def score(
    regressor: Regressor,
    table: FeatureTable,
    device: torch.device = CPU,
    batch_size: int = BATCH_SIZE,
) -> NDArray[np.float64]:
    """Score every video of `table`; return float64 (videos,), each in [0, 1].

    The regressor is on `device`.
    """
    rows = [np.arange(*table.offsets[i : i + 2]) for i in range(len(table.video_ids))]
    return score_rows(regressor, FrameBank(table.values, device), rows, batch_size)


def score_rows(
    regressor: Regressor, bank: FrameBank, rows: Sequence[Rows], batch_size: int = BATCH_SIZE
) -> NDArray[np.float64]:
    """Score videos given as row numbers of `bank`; return float64 (videos,), each in [0, 1].

    The regressor is in evaluation mode for the while. Videos of similar length are scored
    together; but for rounding (1e-6) a score depends on no other video.
    """
    by_length = sorted(range(len(rows)), key=lambda video: len(rows[video]))
    scores = np.empty(len(rows))
    was_training = regressor.training
    regressor.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                chosen = by_length[start : start + batch_size]
                prediction: Prediction = regressor(*bank.gather([rows[i] for i in chosen]))
                scores[chosen] = prediction.scores.cpu().numpy()
    finally:
        regressor.train(was_training)
    return scores
