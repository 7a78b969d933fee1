"""Training epoch by epoch: a clip of each video, then every clip of the dev split's videos."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn
from torch.optim import Adam

from memfeat.config import FinetuneConfig
from memfeat.devices import seeded
from memfeat.encoders.checkpoints import tensors_sha256, weights_path
from memfeat.encoders.family import RANDOM
from memfeat.encoders.i3d import build_network, read_network, trained_on
from memfeat.encoders.inception import FEATURE_DIM, ConvUnit, InceptionI3d
from memfeat.errors import TrainingError, VideoError, counted
from memfeat.finetuning.clips import UsableVideos, clips_at, clips_in_order, start_of_clip
from memfeat.manifest import VideoRecord
from memfeat.training import BestEpoch, DevResult, EpochReport, learning_rate
from memfeat.training.reading import scores_of

ORDER, DROPOUT = 0x04DE4, 0xD120  # keep uses of the same seed apart

OnVideos = Callable[[int, str], None]  # the number of videos just done, and a note or ""


def starting_network(config: FinetuneConfig) -> tuple[InceptionI3d, dict[str, str]]:
    """Build the network to start from; a last layer of one class is kept, any other replaced.

    Returns:
        The network, in float32 on the CPU; and its origin: `started_from` in words, and the
        `started_from_sha256` of the weights as they were found.

    Raises:
        EncoderError: the file cannot be read, or does not fit.
    """
    if config.weights == RANDOM:
        network, origin = build_network(1, config.seed), "RANDOM WEIGHTS"
    else:
        path = weights_path(config.weights)
        network = read_network(path)
        origin = f"{path.name} ({trained_on(path, network)})"
    facts = {"started_from": origin, "started_from_sha256": tensors_sha256(network)}
    if network.logits.conv3d.out_channels != 1:
        with seeded(config.seed):
            network.logits = ConvUnit(FEATURE_DIM, 1, (1, 1, 1), normed=False)
    network.dropout = nn.Dropout(config.dropout)
    network.gradient_checkpointing = bool(config.gradient_checkpointing)
    return network, facts


class Fitting:
    """The training of a network, whose state can be saved after an epoch and restored.

    Attributes:
        history: one report per epoch done.
        weights: the best epoch's, on the network's device.
    """

    def __init__(
        self,
        network: InceptionI3d,
        videos: UsableVideos,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self.network = network.to(device)
        self.network.to(memory_format=torch.channels_last_3d)
        self.history: list[EpochReport] = []
        self.weights: dict[str, Tensor] = {}
        self._videos, self._config, self._device = videos, config, device
        self._optimizer = Adam(network.parameters(), weight_decay=config.weight_decay, fused=True)
        self._best = BestEpoch(config.monitor, config.patience_epochs)

    @property
    def best_epoch(self) -> int:
        """The epoch that did best on dev so far."""
        return self._best.epoch

    @property
    def stopped_because(self) -> str:
        """Why there is no further epoch, in words; empty if there is one."""
        done = len(self.history)
        if done and self._best.stops(done - 1):
            return self._best.why()
        return f"all {counted(done, 'epoch')} done" if done == self._config.max_epochs else ""

    def run_epoch(self, on_videos: OnVideos) -> EpochReport:
        """Train for an epoch, then score the dev split.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        config, epoch = self._config, len(self.history)
        rate = learning_rate(config, epoch)
        self._optimizer.param_groups[0]["lr"] = rate
        dropout = int(np.random.default_rng([config.seed, epoch, DROPOUT]).integers(2**62))
        with seeded(dropout, self._device):
            loss = self._train(epoch, on_videos)
        dev = self._videos.split("dev")
        predicted = self.predict(dev, on_videos)
        scored = ~np.isnan(predicted)
        if not (np.isfinite(loss) and scored.any()):
            raise TrainingError(
                f"in epoch {epoch}, at a learning rate of {rate}, the loss is {loss} and "
                f"{scored.sum()} of {len(dev)} dev videos have a score that is a number; lower "
                "--learning-rate, or see above whether the videos can still be read"
            )
        result = DevResult.of(scores_of(dev)[scored], predicted[scored])
        improved = self._best.improves(epoch, result)
        if improved:
            self.weights = {name: v.clone() for name, v in self.network.state_dict().items()}
        report = EpochReport(config.seed, epoch, rate, loss, *result, improved)
        self.history.append(report)
        return report

    def predict(self, records: Sequence[VideoRecord], on_videos: OnVideos) -> NDArray[np.float64]:
        """Score videos by their clips' mean logit, which is that of their mean feature.

        Returns:
            (videos,), each in [0, 1]; NaN of one that can no longer be decoded.
        """
        config, seen = self._config, set[int]()
        self.network.eval()
        sums, counts = np.zeros(len(records)), np.zeros(len(records))
        clips = clips_in_order(records, config.image_size, config.max_frames, config.decoders)
        with torch.inference_mode():
            while batch := list(islice(clips, config.batch_size)):
                numbers, pixels = zip(*batch, strict=True)
                # In batches of one shape, a clip's logit does not depend on those beside it.
                blank = [np.zeros_like(pixels[0])] * (config.batch_size - len(pixels))
                logits = clip_logits(self.network, _stacked([*pixels, *blank]), config)
                known = logits[: len(pixels)].double().cpu().numpy()
                np.add.at(sums, list(numbers), known)
                np.add.at(counts, list(numbers), 1)
                on_videos(len({*numbers} - seen), "")
                seen.update(numbers)
        on_videos(len(records) - len(seen), "")
        means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        scores: NDArray[np.float64] = expit(means)
        return scores

    def state(self) -> dict[str, Any]:
        """Return all that is needed to resume from here: tensors and plain values."""
        return {
            "history": [asdict(report) for report in self.history],
            "network": self.network.state_dict(),
            "weights": self.weights,
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.weights = dict(state["weights"])
        self.history = [EpochReport(**report) for report in state["history"]]
        for each in self.history:
            self._best.improves(each.epoch, DevResult(each.dev_l1, each.dev_plcc, each.dev_srocc))

    def _train(self, epoch: int, on_videos: OnVideos) -> float:
        """Train on a clip of each video; return the mean loss over videos."""
        _train_mode(self.network, frozen=bool(self._config.freeze_batch_norm))
        total, videos = 0.0, 0
        for pixels, scores in self._batches(epoch, on_videos):
            truth = scores.to(self._device)
            loss = (clip_logits(self.network, pixels, self._config).sigmoid() - truth).abs().mean()
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            self._optimizer.step()
            total += loss.item() * len(scores)
            videos += len(scores)
        return total / videos if videos else float("nan")

    def _batches(self, epoch: int, on_videos: OnVideos) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield clips uint8 (batch, 16, size, size, 3) and scores (batch,), in a new order."""
        config, records = self._config, self._videos.split("train")
        order = np.random.default_rng([config.seed, epoch, ORDER]).permutation(len(records))

        chosen = [records[number] for number in order]
        starts = [
            start_of_clip(config.seed, epoch, number, self._videos.frames(records[number]))
            for number in order.tolist()
        ]
        clips = clips_at(chosen, starts, config.image_size, config.decoders)
        while batch := list(islice(clips, config.batch_size)):
            kept = []
            for record, clip in batch:
                if isinstance(clip, VideoError):
                    on_videos(0, f"left out of this epoch: {clip}")
                else:
                    kept.append((record, clip))
            if kept:
                scores = scores_of([record for record, _ in kept])
                yield _stacked([clip for _, clip in kept]), torch.from_numpy(scores).float()
            on_videos(len(batch), "")


def _stacked(clips: Sequence[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(clips))


def clip_logits(network: InceptionI3d, pixels: Tensor, config: FinetuneConfig) -> Tensor:
    """Return the logit of each clip's score, float32 (batch,).

    Args:
        network: on its device.
        pixels: uint8 (batch, 16, height, width, 3), RGB.
        config: with the precision decided.
    """
    device = network.logits.conv3d.weight.device
    clips = pixels.to(device, non_blocking=True).movedim(-1, 1).float()
    clips = clips.sub_(127.5).div_(127.5)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        features = network.features(clips)
    # In bfloat16, 24 clips' different scores would become ten.
    return network.scores(features.float()).mean(dim=(1, 2))


def _train_mode(network: InceptionI3d, *, frozen: bool) -> None:
    """Turn dropout on, and let batch norms use and gather each batch's statistics if not frozen."""
    network.train()
    for part in network.modules():
        if frozen and isinstance(part, nn.BatchNorm3d):
            part.eval()
