"""The bidirectional recurrence behind both Bi-GRU aggregators."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from memfeat.devices import default_generator
from memfeat.models.dropout import Dropout
from memfeat.models.gru import GruWeights, gru_layer
from memfeat.models.packing import DIRECTIONS, Packing

KINDS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


class BiGru(nn.GRU):
    """A stack of bidirectional GRU layers with dropout after each, the last included.

    It is an `nn.GRU`, so weights go from one to the other by name. What differs is the sixth
    dropout, which `nn.GRU` leaves out, and that a sequence's own length bounds both directions:
    the backward one starts at the last real frame and never sees padding.
    """

    def __init__(self, dim: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__(dim, hidden, layers, batch_first=True, bidirectional=True)
        self.dropout = dropout

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Return the last layer's states; in training, dropout asks torch's own generator.

        Args:
            frames: (batch, time, dim).
            lengths: int64 (batch,), each in [1, time]; on the CPU it costs no synchronisation.

        Returns:
            (batch, time, 2 * hidden), forward then backward direction; zero where padded.
        """
        generators = [default_generator(frames.device)] if self.training else None
        weights = [
            GruWeights(*(torch.stack(pair).unsqueeze(0) for pair in layer))
            for layer in self.layer_parameters()
        ]
        states = run_layers(
            frames.unsqueeze(0), lengths.unsqueeze(0), weights, self.dropout, generators
        )
        return states.squeeze(0)

    def layer_parameters(self) -> list[list[tuple[nn.Parameter, nn.Parameter]]]:
        """Return for each layer, by kind, the parameters of the two directions."""
        return [
            [
                (getattr(self, f"{kind}_l{layer}"), getattr(self, f"{kind}_l{layer}_reverse"))
                for kind in KINDS
            ]
            for layer in range(self.num_layers)
        ]


def run_layers(
    frames: Tensor,
    lengths: Tensor,
    layers: Sequence[GruWeights],
    dropout: float,
    generators: Sequence[Generator] | None,
) -> Tensor:
    """Run the layers of several models, each on a batch of its own or all on one.

    Args:
        frames: (models, batch, time, dim), or (1, batch, time, dim) where models share one batch.
        lengths: int64 (models or 1, batch), each in [1, time].
        layers: each layer's weights.
        dropout: after each layer.
        generators: where each model's dropout comes from, or None for no dropout. What a model
            draws hangs on its own batch alone.

    Returns:
        (models, batch, time, 2 * hidden), zero where padded.
    """
    packing = Packing.of(lengths.cpu(), frames.shape[2], len(layers[0].hidden))
    packed = packing.pack(frames)
    for weights in layers:
        dropped = None
        if generators is not None and dropout:
            width = DIRECTIONS * weights.hidden.shape[-1]
            dropped = Dropout.draw(dropout, packing, width, generators)
        packed = gru_layer(packed, weights, packing, dropped)
    return packing.pad(packed)
