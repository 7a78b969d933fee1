"""Fitting one model with one seed: the paper's recipe (section 2)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import l1_loss
from torch.optim import Adam, Optimizer

from memfeat.config import Monitor, TrainConfig
from memfeat.devices import cpu_threads, resolve_device, seeded
from memfeat.errors import TrainingError
from memfeat.metrics import evaluate
from memfeat.models import Prediction, Regressor, build_regressor
from memfeat.training.batches import Batch, EpochBatches, FrameBank
from memfeat.training.data import Examples
from memfeat.training.scoring import score_rows


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


OnEpoch = Callable[[EpochReport], None]


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes:
        regressor: the best epoch's, in evaluation mode, on the CPU.
        history: one report per epoch.
        best_epoch: the epoch it is from.
        stopped_because: why there was no further epoch, in words.
    """

    regressor: Regressor
    history: tuple[EpochReport, ...]
    best_epoch: int
    stopped_because: str


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


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Return Adam's rate in `epoch`, counted from 0: decayed every so many epochs."""
    return config.learning_rate * config.learning_rate_decay ** (epoch // config.decay_every_epochs)


def fit(
    examples: Examples, config: TrainConfig, seed: int, on_epoch: OnEpoch | None = None
) -> Fitted:
    """Train one model; keep the epoch that does best on dev.

    On one machine the same arguments give the same model to the last bit on a CPU. The caller's
    global generators and thread count are left as they were.

    Raises:
        TrainingError: the loss is no longer a number, or GPU memory ran out.
        UnknownNameError, ConfigError: aggregator, head, their options, or the device.
    """
    device = resolve_device(config.device)
    with cpu_threads(config.threads), seeded(seed, device):
        options = (
            config.aggregators.get(config.aggregator, {}),
            config.heads.get(config.head, {}),
        )
        names = config.aggregator, config.head
        regressor = build_regressor(examples.table.spec.dim, *names, *options).to(device)
        try:
            return _Fit(examples, config, seed, regressor, device).run(on_epoch)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"{device} ran out of memory in batches of {config.batch_size} videos; train with "
                "a smaller --batch-size, or with --device cpu"
            ) from error


class _Fit:
    """One model's training."""

    def __init__(
        self,
        examples: Examples,
        config: TrainConfig,
        seed: int,
        regressor: Regressor,
        device: torch.device,
    ) -> None:
        self.config, self.seed, self.regressor = config, seed, regressor
        self.bank = FrameBank(examples.table.values, device)
        rows, ids = examples.rows, examples.video_ids
        scores = examples.shuffled_scores(seed) if config.shuffle_labels else examples.scores
        train, dev = examples.labelled("train"), examples.labelled("dev")
        self.batches = EpochBatches(
            self.bank,
            [rows[i] for i in train],
            [ids[i] for i in train],
            torch.from_numpy(scores[train]).float(),
            config.batch_size,
            config.shuffle_frames,
            seed,
        )
        self.dev_rows, self.dev_scores = [rows[i] for i in dev], scores[dev]

    def run(self, on_epoch: OnEpoch | None) -> Fitted:
        config = self.config
        optimizer = Adam(self.regressor.parameters(), weight_decay=config.weight_decay, fused=True)
        best = BestEpoch(config.monitor, config.patience_epochs)
        history: list[EpochReport] = []
        weights = {}
        stopped_because = f"all {config.max_epochs} epochs done"
        for epoch in range(config.max_epochs):
            rate = learning_rate(config, epoch)
            train_l1 = self._train(optimizer, epoch, rate)
            predicted = score_rows(self.regressor, self.bank, self.dev_rows)
            if not np.isfinite([train_l1, *predicted]).all():
                raise TrainingError(
                    f"seed {self.seed} diverged: in epoch {epoch}, at a learning rate of {rate}, "
                    f"the loss is {train_l1} and dev has {np.isnan(predicted).sum()} predictions "
                    "that are no numbers; lower --learning-rate, or look for damaged features "
                    "with `memfeat cache verify`"
                )
            dev = DevResult.of(self.dev_scores, predicted)
            improved = best.improves(epoch, dev)
            if improved:
                weights = {k: value.clone() for k, value in self.regressor.state_dict().items()}
            report = EpochReport(self.seed, epoch, rate, train_l1, *dev, improved)
            history.append(report)
            if on_epoch:
                on_epoch(report)
            if best.stops(epoch):
                stopped_because = best.why()
                break
        self.regressor.load_state_dict(weights)
        return Fitted(self.regressor.cpu().eval(), tuple(history), best.epoch, stopped_because)

    def _train(self, optimizer: Optimizer, epoch: int, rate: float) -> float:
        """Train for one epoch; return the mean loss over videos."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.regressor.train()
        total, videos = torch.zeros((), dtype=torch.float64), 0
        for batch in self.batches.epoch(epoch):
            loss = self._step(optimizer, batch)
            total = total.to(loss.device) + loss.double() * len(batch.scores)
            videos += len(batch.scores)
        return float(total) / videos

    def _step(self, optimizer: Optimizer, batch: Batch) -> torch.Tensor:
        prediction: Prediction = self.regressor(batch.frames, batch.lengths)
        loss = l1_loss(prediction.scores, batch.scores)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()
