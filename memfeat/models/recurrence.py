"""The bidirectional recurrence behind both Bi-GRU aggregators."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from memfeat.models.gru import GruWeights, gru_layer
from memfeat.models.layout import DIRECTIONS, Layout


class BiGru(nn.GRU):
    """A stack of bidirectional GRU layers with dropout after each, the last included.

    It is an `nn.GRU`, so weights go from one to the other by name. What differs is the sixth
    dropout, which `nn.GRU` leaves out, and that a sequence's own length bounds both directions:
    the backward one starts at the last real frame and never sees padding.

    On a CPU the layers are ours, elsewhere those of `nn.GRU`; both give the same but for rounding
    and for which states dropout hits.
    """

    def __init__(self, dim: int, hidden: int, layers: int, dropout: float) -> None:
        between = dropout if layers > 1 else 0.0
        super().__init__(dim, hidden, layers, batch_first=True, bidirectional=True, dropout=between)
        self.last_dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Return the last layer's states.

        Args:
            frames: (batch, time, dim).
            lengths: int64 (batch,), each in [1, time]; on the CPU it costs no synchronisation.

        Returns:
            (batch, time, 2 * hidden), forward then backward direction; zero where padded.
        """
        if runs_own_layers(frames.device):
            return self._own_layers(frames, lengths.cpu())
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = super().forward(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=frames.shape[1])
        dropped: Tensor = self.last_dropout(padded)
        return dropped

    def _own_layers(self, frames: Tensor, lengths: Tensor) -> Tensor:
        layout = Layout.of(lengths.unsqueeze(0), frames.shape[1])
        packed = layout.pack(frames.unsqueeze(0))
        for layer in range(self.num_layers):
            if layer:
                packed = functional.dropout(packed, self.dropout, self.training)
            packed = gru_layer(packed, self._weights(layer), layout)
        return layout.pad(self.last_dropout(packed)).squeeze(0)

    def _weights(self, layer: int) -> GruWeights:
        """Return a layer's weights as those of one model."""
        directions = self.all_weights[DIRECTIONS * layer : DIRECTIONS * (layer + 1)]
        return GruWeights(
            *(torch.stack(pair).unsqueeze(0) for pair in zip(*directions, strict=True))
        )


def runs_own_layers(device: torch.device) -> bool:
    """Return whether `BiGru` runs its own layers there, rather than those of `nn.GRU`.

    On a CPU ours take less than half the time. On a GPU, where each call of a step is a launch,
    cuDNN's one kernel a layer is faster.
    """
    return device.type == "cpu"
