"""The bidirectional recurrence behind both Bi-GRU aggregators."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BiGru(nn.GRU):
    """A stack of bidirectional GRU layers with dropout after each, the last included.

    It is an `nn.GRU`, so weights go from one to the other by name. What differs is the sixth
    dropout, which `nn.GRU` leaves out, and that a sequence's own length bounds both directions:
    the backward one starts at the last real frame and never sees padding.
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
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = super().forward(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=frames.shape[1])
        dropped: Tensor = self.last_dropout(padded)
        return dropped
