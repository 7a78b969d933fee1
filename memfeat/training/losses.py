"""What training makes small: the paper's L1 loss, and others.

Each takes predictions and true scores (batch,), and the videos' weights (batch,), whose mean over
the training videos is one, or None for all alike; and returns a number ().
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memfeat.config import Loss

HUBER_DELTA = 0.1  # of a score in [0, 1]: larger errors count by their size, smaller by its square


def l1(predicted: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean absolute error."""
    return _mean((predicted - truth).abs(), weights)


def mse(predicted: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean squared error."""
    return _mean((predicted - truth).square(), weights)


def huber(predicted: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    """Return Huber's loss: half the square up to `HUBER_DELTA`, and linear beyond."""
    each = torch.nn.functional.huber_loss(predicted, truth, reduction="none", delta=HUBER_DELTA)
    return _mean(each, weights)


def ccc(predicted: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    """Return 1 - Lin's concordance correlation coefficient over the batch.

    It is 2 cov / (var + var + (mean - mean)^2), with moments divided by the number of videos. Where
    predictions and scores are all one number it is 1.
    """
    shares = None if weights is None else weights / weights.mean()
    means = [_mean(values, shares) for values in (predicted, truth)]
    own, true = predicted - means[0], truth - means[1]
    covariance = _mean(own * true, shares)
    spread = _mean(own.square(), shares) + _mean(true.square(), shares)
    distance = spread + (means[0] - means[1]).square()
    return 1 - 2 * covariance / distance.clamp_min(torch.finfo(distance.dtype).eps)


def rank(predicted: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean absolute error, plus by how much pairs are not as far apart as they should.

    The second term is the mean over all pairs of different scores of max(0, |y_i - y_j| - d), where
    d is how far the higher one is predicted above the lower one; a pair counts by the product of
    its weights.
    """
    above = truth[:, None] - truth
    short = (above - (predicted[:, None] - predicted)).clamp_min(0)
    pairs = (above > 0).to(short.dtype)
    if weights is not None:
        pairs = pairs * weights[:, None] * weights
    return l1(predicted, truth, weights) + (short * pairs).sum() / pairs.sum().clamp_min(1e-12)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    return (values if weights is None else values * weights).mean()


LossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
LOSSES: dict[Loss, LossFunction] = {
    "l1": l1,
    "mse": mse,
    "huber": huber,
    "ccc": ccc,
    "rank": rank,
}
