"""A baseline that scikit-learn fitted, as a module like any regressor."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from memfeat.models.aggregators import mean_over_time
from memfeat.models.regressor import Padded, Prediction


class FittedRegressor(nn.Module):
    """Standardised means over time to a score, in float64: linear, or with an RBF kernel.

    Its buffers are what a baseline's checkpoint holds: `mean` and `scale` (dim,), `coefficients`
    (dim,) and `intercept` (); with a kernel the coefficients are (vectors,), and there are
    `support` (vectors, dim), which are standardised means of training videos, and `gamma` ().
    Streams are side by side, so dim is the sum of their widths. Scores may lie outside [0, 1].
    """

    def __init__(self, dim: int, vectors: int | None = None) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = {"mean": (dim,), "scale": (dim,), "intercept": ()}
        shapes["coefficients"] = (dim if vectors is None else vectors,)
        if vectors is not None:
            shapes |= {"support": (vectors, dim), "gamma": ()}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape, dtype=torch.float64))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], dim: int) -> Self:
        """Build the one that a checkpoint holds, for embeddings of `dim` numbers.

        Raises:
            RuntimeError: it holds none, or one of another width.
        """
        support = weights.get("support")
        module = cls(dim, None if support is None else len(support))
        module.load_state_dict(dict(weights))
        return module

    def forward(self, *streams: Padded) -> Prediction:
        """Score the same videos' frames in each stream; no frame has a weight of its own."""
        means = [mean_over_time(frames.double(), lengths) for frames, lengths in streams]
        own = self.get_buffer
        vectors = (torch.cat(means, dim=-1) - own("mean")) / own("scale")
        if "support" in dict(self.named_buffers()):
            distances = torch.cdist(
                vectors, own("support"), compute_mode="donot_use_mm_for_euclid_dist"
            )
            vectors = torch.exp(-own("gamma") * distances.square())
        return Prediction(vectors @ own("coefficients") + own("intercept"), (None,) * len(streams))
