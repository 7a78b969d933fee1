"""Fitting one model by the paper's recipe (section 2)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from memfeat.config import TrainConfig
from memfeat.devices import cpu_threads, seeded
from memfeat.errors import TrainingError
from memfeat.models import Regressor, regressor_of
from memfeat.training.batches import Shuffle, Videos, epoch_batches
from memfeat.training.data import Examples
from memfeat.training.epochs import BestEpoch, DevResult, EpochReport, learning_rate
from memfeat.training.scoring import score

DROPOUT = 0xD120  # keeps the masks apart from other uses of the same seed

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

    Args:
        examples: with scored videos in train and dev.
        config: of one seed, its options filled in.
        device: where to train.
        on_epoch: called after each epoch.

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
        with seeded(dropout_seed, device):
            history, best = _train_epochs(regressor, examples, config, device, on_epoch)
    stopped = best.why() if best.stops(history[-1].epoch) else f"all {len(history)} epochs done"
    seconds = time.perf_counter() - start
    return Fitted(regressor.cpu().eval(), tuple(history), best.epoch, stopped, seconds)


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
    """Train until it ends, and leave `regressor` with the weights of the best epoch."""
    (seed,) = config.seeds
    videos = examples.videos(device, config.aggregator, averaged=True)
    scores = examples.shuffled_scores(seed) if config.shuffle_labels else examples.scores
    train, dev = map(examples.labelled, ("train", "dev"))
    dev_videos, dev_scores = videos.of(dev), scores[dev]
    epochs = _Epochs(regressor, config, videos.of(train), scores[train])
    best = BestEpoch(config.monitor, config.patience_epochs)
    history: list[EpochReport] = []
    weights: dict[str, Tensor] = {}
    for epoch in range(config.max_epochs):
        rate = learning_rate(config, epoch)
        loss = epochs.train(epoch, rate)
        predicted = score(regressor, dev_videos)
        if not np.isfinite([loss, *predicted]).all():
            raise TrainingError(
                f"seed {seed} diverged: in epoch {epoch}, at a learning rate of {rate}, the loss "
                f"is {loss} and dev has {np.isnan(predicted).sum()} predictions that are no "
                "numbers; lower --learning-rate, or look for damaged features with `memfeat "
                "cache verify`"
            )
        result = DevResult.of(dev_scores, predicted)
        improved = best.improves(epoch, result)
        if improved:
            weights = {name: value.clone() for name, value in regressor.state_dict().items()}
        history.append(EpochReport(seed, epoch, rate, loss, *result, improved))
        if on_epoch:
            on_epoch(history[-1])
        if best.stops(epoch):
            break
    regressor.load_state_dict(weights)
    return history, best


class _Epochs:
    """Trains a regressor with Adam, epoch by epoch."""

    def __init__(
        self,
        regressor: Regressor,
        config: TrainConfig,
        videos: Videos,
        scores: NDArray[np.float64],
    ) -> None:
        self._regressor, self._videos, self._scores = regressor, videos, scores
        self._optimizer = Adam(regressor.parameters(), weight_decay=config.weight_decay, fused=True)
        bucket = config.length_buckets * config.batch_size
        self._shuffle = Shuffle(config.seeds[0], config.shuffle_frames, bucket)
        self._batch_size = config.batch_size

    def train(self, epoch: int, rate: float) -> float:
        """Train for one epoch; return the mean L1 loss over videos."""
        self._optimizer.param_groups[0]["lr"] = rate
        self._regressor.train()
        total = torch.zeros((), dtype=torch.float64, device=self._videos.device)
        batches = epoch_batches(self._videos, self._scores, self._shuffle, epoch, self._batch_size)
        for batch in batches:
            loss = (self._regressor(*batch.streams).scores - batch.scores).abs().mean()
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            total += loss.detach().double() * len(batch.scores)
        return float(total / len(self._videos))
