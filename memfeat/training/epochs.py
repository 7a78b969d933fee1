"""What an epoch gave, which epoch is kept, and when training ends (paper, section 2)."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from memfeat.config import FinetuneConfig, Monitor, TrainConfig
from memfeat.metrics import evaluate


@dataclass(frozen=True)
class EpochReport:
    """One epoch, as told to `on_epoch`; without the seed it is a line of `history.jsonl`.

    Attributes:
        seed: which model.
        epoch: counted from 0.
        learning_rate: Adam's, during the epoch.
        train_l1: mean L1 loss over the epoch's steps, dropout on.
        dev_l1: mean L1 error on dev after the epoch.
        dev_plcc: Pearson's correlation on dev; None where undefined.
        dev_srocc: Spearman's; None where undefined.
        best: whether the monitored value was the best so far.
    """

    seed: int
    epoch: int
    learning_rate: float
    train_l1: float
    dev_l1: float
    dev_plcc: float | None
    dev_srocc: float | None
    best: bool


class DevResult(NamedTuple):
    """How well predictions agree with the dev split; correlations are None where undefined."""

    l1: float
    plcc: float | None
    srocc: float | None

    @classmethod
    def of(cls, truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> Self:
        """Compare predictions (videos,) with the truth (videos,)."""
        metrics = evaluate(truth, predicted, bootstrap=0)
        return cls(float(np.abs(truth - predicted).mean()), metrics.plcc, metrics.srocc)

    def gain(self, monitor: Monitor) -> float:
        """Return the monitored value, turned so that more is better; -inf where undefined."""
        if monitor == "l1":
            return -self.l1
        value = self.plcc if monitor == "plcc" else self.srocc
        return -math.inf if value is None else value


class BestEpoch:
    """Remembers which epoch did best on dev, and tells when to stop.

    The first epoch is the best until a later one is strictly better, which an undefined
    correlation never is.
    """

    def __init__(self, monitor: Monitor, patience_epochs: int) -> None:
        self.epoch = 0
        self._monitor, self._patience_epochs = monitor, patience_epochs
        self._gain = -math.inf

    def improves(self, epoch: int, result: DevResult) -> bool:
        """Take note of an epoch; return whether it is the best so far."""
        gain = result.gain(self._monitor)
        better = epoch == 0 or gain > self._gain
        if better:
            self.epoch, self._gain = epoch, gain
        return better

    def stops(self, epoch: int) -> bool:
        """Return whether patience ends with this epoch."""
        return epoch - self.epoch >= self._patience_epochs

    def why(self) -> str:
        """Say in words why training stopped."""
        undefined = ", which was never defined" if self._gain == -math.inf else ""
        watched = f"dev {self._monitor}{undefined}"
        return f"{self._patience_epochs} epochs without improvement of {watched}"


def learning_rate(config: TrainConfig | FinetuneConfig, epoch: int) -> float:
    """Return Adam's rate in `epoch`, counted from 0: decayed every so many epochs."""
    return config.learning_rate * config.learning_rate_decay ** (epoch // config.decay_every_epochs)
