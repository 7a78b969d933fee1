"""Fitting models by the paper's recipe (section 2), several together as if each were alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from memfeat.config import TrainConfig
from memfeat.devices import cpu_threads, resolve_device, seeded
from memfeat.errors import TrainingError
from memfeat.models import Regressor, Stack, regressor_of
from memfeat.training.batches import Shuffle, Videos, epoch_batches
from memfeat.training.data import Examples
from memfeat.training.epochs import BestEpoch, DevResult, EpochReport, learning_rate
from memfeat.training.scoring import score_with_each

DROPOUT = 0xD120  # keeps the masks apart from other uses of the same seed

OnEpoch = Callable[[int, EpochReport], None]


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Attributes:
        regressor: the best epoch's, in evaluation mode, on the CPU.
        history: one report per epoch.
        best_epoch: the epoch it is from.
        stopped_because: why there was no further epoch, in words.
        seconds: its share of the time its stack took.
    """

    regressor: Regressor
    history: tuple[EpochReport, ...]
    best_epoch: int
    stopped_because: str
    seconds: float


OnFitted = Callable[[int, Fitted], None]


def stack_key(config: TrainConfig) -> tuple[object, ...]:
    """Return what two configurations must have in common to be fitted together."""
    options = [config.aggregators.get(name) for name in config.aggregator]
    sizes = repr([*options, config.heads.get(config.head)])
    shapes = config.aggregator, config.head, sizes, config.batch_size
    return (config.manifest, config.cache, *shapes, config.device, config.threads)


def fit_together(
    examples: Examples,
    configs: Sequence[TrainConfig],
    *,
    on_fitted: OnFitted,
    on_epoch: OnEpoch | None = None,
) -> list[TrainingError | None]:
    """Train one model for each configuration; keep of each the epoch that does best on dev.

    They take each step together, but nothing of one depends on another: each has its own orders,
    dropout, optimiser and end, and but for rounding the history that it has alone. torch's
    generators and thread count are left as they were.

    Args:
        examples: with scored videos in train and dev.
        configs: of one seed each and one `stack_key`, their options filled in.
        on_fitted: called with a configuration's number and its model, as soon as that is ready.
        on_epoch: called with a configuration's number after each epoch of its model.

    Returns:
        For each configuration what went wrong, such as a loss that is no longer a number, or None.

    Raises:
        TrainingError: GPU memory ran out.
        UnknownNameError, ConfigError: aggregator, head, their options, or the device.
    """
    first = configs[0]
    device = resolve_device(first.device)
    own = _dropout_seed(first)
    with cpu_threads(first.threads), seeded(own, device), _memory_errors(first, device):
        data = _Data.of(examples, first, device)
        models = [_Model.build(i, config, data) for i, config in enumerate(configs)]
        errors: list[TrainingError | None] = [None] * len(models)
        active, stack = models, Stack([model.regressor for model in models])
        epoch = 0
        while active:
            start = time.perf_counter()
            losses = _train(stack, active, data, epoch)
            predicted = score_with_each(stack, data.dev)
            seconds = (time.perf_counter() - start) / len(active)
            left = []
            for model, loss, scores in zip(active, losses, predicted, strict=True):
                model.seconds += seconds
                errors[model.index] = model.error(epoch, loss, scores)
                if errors[model.index]:
                    continue
                report = model.judge(epoch, loss, DevResult.of(model.dev_scores, scores))
                if on_epoch:
                    on_epoch(model.index, report)
                if model.stopped_because:
                    on_fitted(model.index, model.fitted())
                else:
                    left.append(model)
            if len(left) < len(active):
                active = left
                if active:
                    stack = Stack([model.regressor for model in active])
            epoch += 1
    return errors


def _dropout_seed(config: TrainConfig) -> int:
    return int(np.random.default_rng([config.seeds[0], DROPOUT]).integers(2**62))


@contextmanager
def _memory_errors(config: TrainConfig, device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} ran out of memory in batches of {config.batch_size} videos; train with "
            "a smaller --batch-size, fewer seeds at once, or with --device cpu"
        ) from error


@dataclass(frozen=True)
class _Data:
    """What all models of a stack share."""

    examples: Examples
    train: Videos
    dev: Videos

    @classmethod
    def of(cls, examples: Examples, config: TrainConfig, device: torch.device) -> "_Data":
        videos = examples.videos(device, config.aggregator, averaged=True)
        train, dev = (videos.of(examples.labelled(split)) for split in ("train", "dev"))
        return cls(examples, train, dev)


@dataclass
class _Model:
    """One model on its way."""

    index: int
    config: TrainConfig
    regressor: Regressor
    generator: torch.Generator
    shuffle: Shuffle
    scores: NDArray[np.float64]
    dev_scores: NDArray[np.float64]
    optimizer: Adam
    best: BestEpoch
    history: list[EpochReport] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    stopped_because: str = ""
    seconds: float = 0.0

    @classmethod
    def build(cls, index: int, config: TrainConfig, data: _Data) -> "_Model":
        device, (seed,) = data.train.device, config.seeds
        examples = data.examples
        with seeded(seed, device):
            dims = [spec.dim for spec in examples.specs]
            regressor = regressor_of(config, dims).to(device)
        scores = examples.shuffled_scores(seed) if config.shuffle_labels else examples.scores
        return cls(
            index,
            config,
            regressor,
            torch.Generator(device).manual_seed(_dropout_seed(config)),
            Shuffle(seed, config.shuffle_frames, config.length_buckets * config.batch_size),
            scores[examples.labelled("train")],
            scores[examples.labelled("dev")],
            Adam(regressor.parameters(), weight_decay=config.weight_decay, fused=True),
            BestEpoch(config.monitor, config.patience_epochs),
        )

    def error(
        self, epoch: int, loss: float, predicted: NDArray[np.float64]
    ) -> TrainingError | None:
        if np.isfinite([loss, *predicted]).all():
            return None
        rate = learning_rate(self.config, epoch)
        return TrainingError(
            f"seed {self.config.seeds[0]} diverged: in epoch {epoch}, at a learning rate of "
            f"{rate}, the loss is {loss} and dev has {np.isnan(predicted).sum()} predictions that "
            "are no numbers; lower --learning-rate, or look for damaged features with `memfeat "
            "cache verify`"
        )

    def judge(self, epoch: int, loss: float, dev: DevResult) -> EpochReport:
        """Take note of an epoch's figures, keep its weights if it is the best, see if it ends."""
        improved = self.best.improves(epoch, dev)
        if improved:
            self.weights = {k: value.clone() for k, value in self.regressor.state_dict().items()}
        rate = learning_rate(self.config, epoch)
        report = EpochReport(self.config.seeds[0], epoch, rate, loss, *dev, improved)
        self.history.append(report)
        if self.best.stops(epoch):
            self.stopped_because = self.best.why()
        elif epoch + 1 == self.config.max_epochs:
            self.stopped_because = f"all {self.config.max_epochs} epochs done"
        return report

    def fitted(self) -> Fitted:
        self.regressor.load_state_dict(self.weights)
        regressor = self.regressor.cpu().eval()
        best = self.best.epoch
        return Fitted(regressor, tuple(self.history), best, self.stopped_because, self.seconds)


def _train(stack: Stack, models: Sequence[_Model], data: _Data, epoch: int) -> list[float]:
    """Train for one epoch; return each model's mean loss over videos."""
    for model in models:
        model.optimizer.param_groups[0]["lr"] = learning_rate(model.config, epoch)
    generators = [model.generator for model in models]
    batches = epoch_batches(
        data.train,
        [model.scores for model in models],
        [model.shuffle for model in models],
        epoch,
        models[0].config.batch_size,
    )
    total = torch.zeros(len(models), dtype=torch.float64)
    for batch in batches:
        scores = stack.scores(batch.streams, generators)
        losses = (scores - batch.scores).abs().mean(1)
        stack.backward(losses.sum())
        for model in models:
            model.optimizer.step()
        total = total.to(losses.device) + losses.detach().double() * batch.scores.shape[1]
    return (total / len(data.train)).tolist()
