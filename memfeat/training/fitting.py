"""Fitting one model by the paper's recipe (section 2)."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memfeat.config import FinetuneConfig, Monitor, TrainConfig
from memfeat.devices import cpu_threads, seeded
from memfeat.errors import TrainingError, counted
from memfeat.metrics import evaluate
from memfeat.models import FittedRegressor, Regressor, regressor_of
from memfeat.training.adam import Adam
from memfeat.training.batches import Batch, Shuffle, Videos, epoch_batches
from memfeat.training.examples import Examples
from memfeat.training.losses import LOSSES, LossFunction, l1

DROPOUT = 0xD120  # keeps the masks apart from other uses of the same seed
SCORED_TOGETHER = 32  # videos


@dataclass(frozen=True)
class EpochReport:
    """What `on_epoch` gets; without the seed it is a line of `history.jsonl`.

    Attributes:
        seed: which model.
        epoch: counted from 0.
        learning_rate: Adam's, during the epoch.
        train_l1: mean absolute error over the epoch's steps, dropout on, whatever the loss is.
        dev_l1: mean L1 error on dev after the epoch.
        dev_plcc, dev_srocc: correlations on dev; None where undefined.
        best: whether the monitored value was the best so far.
        fold: of a run with folds, which one the model is judged on, counted from 1.
    """

    seed: int
    epoch: int
    learning_rate: float
    train_l1: float
    dev_l1: float
    dev_plcc: float | None
    dev_srocc: float | None
    best: bool
    fold: int | None = None


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
    """Which epoch did best on dev, and when to stop.

    The first epoch is the best until a later one is strictly better, which an undefined
    correlation never is.
    """

    def __init__(self, monitor: Monitor, patience_epochs: int) -> None:
        self.epoch = 0
        self._monitor, self._patience_epochs = monitor, patience_epochs
        self._gain = -math.inf

    def improves(self, epoch: int, result: DevResult) -> bool:
        """Return whether an epoch is the best so far, and remember it if it is."""
        gain = result.gain(self._monitor)
        better = epoch == 0 or gain > self._gain
        if better:
            self.epoch, self._gain = epoch, gain
        return better

    def stops(self, epoch: int) -> bool:
        """Return whether patience ends with this epoch."""
        return epoch - self.epoch >= self._patience_epochs

    def why(self) -> str:
        """Return why training stopped, in words."""
        undefined = ", which was never defined" if self._gain == -math.inf else ""
        watched = f"dev {self._monitor}{undefined}"
        return f"{counted(self._patience_epochs, 'epoch')} without improvement of {watched}"


def learning_rate(config: TrainConfig | FinetuneConfig, epoch: int) -> float:
    """Return Adam's rate in `epoch`, counted from 0: decayed every so many epochs."""
    return config.learning_rate * config.learning_rate_decay ** (epoch // config.decay_every_epochs)


OnEpoch = Callable[[EpochReport], None]


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes:
        regressor: the best epoch's, in evaluation mode, on the CPU.
        history: one report per epoch.
        best_epoch: the epoch it is from.
        stopped_because: why there was no further epoch, in words.
        seconds: the time it took.
    """

    regressor: Regressor
    history: tuple[EpochReport, ...]
    best_epoch: int
    stopped_because: str
    seconds: float


def fit(
    examples: Examples,
    config: TrainConfig,
    *,
    device: torch.device,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train one model, and keep the epoch that does best on dev.

    torch's generators and thread count are left as they were.

    Raises:
        TrainingError: the loss is no longer a number, or GPU memory ran out.
        UnknownNameError, ConfigError: aggregator, head, or their options.
    """
    start = time.perf_counter()
    (seed,) = config.seeds
    dropout_seed = int(np.random.default_rng([seed, DROPOUT]).integers(2**62))
    with cpu_threads(config.threads), _memory_errors(config, device):
        with seeded(seed, device):
            regressor = regressor_of(config, [spec.dim for spec in examples.specs]).to(device)
        _standardise(regressor, examples)
        with seeded(dropout_seed, device):
            history, best = _train_epochs(regressor, examples, config, device, on_epoch)
    stopped = (
        best.why()
        if best.stops(history[-1].epoch)
        else f"all {counted(len(history), 'epoch')} done"
    )
    seconds = time.perf_counter() - start
    return Fitted(regressor.cpu().eval(), tuple(history), best.epoch, stopped, seconds)


def _standardise(regressor: Regressor, examples: Examples) -> None:
    """Set what a regressor does to its inputs from the training videos' means over time."""
    train = examples.labelled("train")
    for stream, standardise in enumerate(regressor.inputs):
        means = examples.means[stream][train]
        standardise.set(torch.from_numpy(means.mean(axis=0)), torch.from_numpy(means.std(axis=0)))


@contextmanager
def _memory_errors(config: TrainConfig, device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} ran out of memory in batches of {config.batch_size} videos; train with "
            "a smaller --batch-size, or with --device cpu"
        ) from error


def _train_epochs(
    regressor: Regressor,
    examples: Examples,
    config: TrainConfig,
    device: torch.device,
    on_epoch: OnEpoch | None,
) -> tuple[list[EpochReport], BestEpoch]:
    """Train until patience or epochs end, and leave `regressor` with the best epoch's weights."""
    (seed,) = config.seeds
    videos = examples.videos(device, config.aggregator, averaged=True)
    scores = examples.shuffled_scores(seed) if config.shuffle_labels else examples.scores
    train, dev = examples.labelled("train"), examples.labelled("dev")
    train_videos, dev_videos = videos.of(train), videos.of(dev)
    shuffle = Shuffle(seed, config.shuffle_frames, config.length_buckets * config.batch_size)
    weights = examples.annotation_weights(train) if config.weight_by_annotations else None
    decoupled = config.optimizer == "adamw"
    optimizer = Adam(regressor.parameters(), config.weight_decay, decoupled=decoupled)
    best = BestEpoch(config.monitor, config.patience_epochs)
    history: list[EpochReport] = []
    kept: dict[str, Tensor] = {}
    for epoch in range(config.max_epochs):
        rate = learning_rate(config, epoch)
        batches = epoch_batches(
            train_videos, scores[train], shuffle, epoch, config.batch_size, weights=weights
        )
        loss = _train_epoch(regressor, optimizer, rate, batches, LOSSES[config.loss])
        predicted = score(regressor, dev_videos)
        if not np.isfinite([loss, *predicted]).all():
            raise TrainingError(
                f"seed {seed} diverged: in epoch {epoch}, at a learning rate of {rate}, the loss "
                f"is {loss} and dev has {np.isnan(predicted).sum()} predictions that are no "
                "numbers; lower --learning-rate, or look for damaged features with `memfeat "
                "cache verify`"
            )
        result = DevResult.of(scores[dev], predicted)
        improved = best.improves(epoch, result)
        if improved:
            kept = {name: value.clone() for name, value in regressor.state_dict().items()}
        history.append(EpochReport(seed, epoch, rate, loss, *result, improved))
        if on_epoch:
            on_epoch(history[-1])
        if best.stops(epoch):
            break
    regressor.load_state_dict(kept)
    return history, best


def _train_epoch(
    regressor: Regressor,
    optimizer: Adam,
    learning_rate: float,
    batches: Iterable[Batch],
    loss_of: LossFunction,
) -> float:
    """Take a step for each batch; return the mean absolute error over videos."""
    regressor.train()
    total, videos = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        scores = regressor(*batch.streams).scores
        loss = loss_of(scores, batch.scores, batch.weights)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step(learning_rate)
        error = loss if loss_of is l1 and batch.weights is None else l1(scores, batch.scores, None)
        total = total.to(loss.device) + error.detach().double() * len(batch.scores)
        videos += len(batch.scores)
    return float(total / videos)


def score(regressor: Regressor | FittedRegressor, videos: Videos) -> NDArray[np.float64]:
    """Score videos with a regressor on the same device, without dropout.

    Videos of similar length are scored together; but for rounding (1e-6) a score depends on no
    other video.

    Returns:
        (videos,), each in [0, 1], but for a baseline's.
    """
    by_length = np.argsort(videos.lengths, kind="stable")
    scores = np.empty(len(videos))
    was_training = regressor.training
    regressor.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(videos), SCORED_TOGETHER):
                chosen = by_length[first : first + SCORED_TOGETHER]
                scores[chosen] = regressor(*videos.padded(chosen)).scores.cpu().numpy()
    finally:
        regressor.train(was_training)
    return scores
