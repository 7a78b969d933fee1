"""Attention over space and time: which part of a frame counts, then which frame.

The paper names attention over patches as future work; all of it but the temporal part is ours.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from memfeat.models.aggregators import AGGREGATORS, Aggregated, BiGruAttention, Recurrent


@AGGREGATORS.register("spatial")
class SpatialAttention(BiGruAttention):
    """Attention over each frame's tokens, then the paper's over time (ours).

    A frame's vector is f_t = sum_n a_tn x_tn over its class token and pooled patch tokens x_tn,
    and a_t the softmax over n of a linear map of x_tn. It is a softmax, unlike the weights of
    time, so that f_t starts as the tokens' mean, and has their size.
    """

    of_tokens = True

    def __init__(self, dim: int, options: Recurrent.Options) -> None:
        super().__init__(dim, options)
        self.dim = dim
        self.look = nn.Linear(dim, 1, bias=False)  # a softmax would not see one

    @override
    def forward(self, frames: Tensor, lengths: Tensor) -> Aggregated:
        """Aggregate frames (batch, time, tokens * dim), of which the first lengths are real."""
        tokens = frames.reshape(*frames.shape[:2], -1, self.dim)
        shares = self.look(tokens).softmax(2)
        return super().forward(torch.matmul(shares.mT, tokens).squeeze(2), lengths)
