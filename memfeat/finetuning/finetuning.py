"""Finetuning as a whole: look at the videos, train, keep the best epoch, score with it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from memfeat.config import FinetuneConfig
from memfeat.devices import resolve_device
from memfeat.encoders.checkpoints import write_checkpoint
from memfeat.encoders.family import RANDOM
from memfeat.errors import TrainingError
from memfeat.finetuning import folder
from memfeat.finetuning.clips import Seen, look_at
from memfeat.finetuning.data import Footage, labels_sha256, scores_of, wanted
from memfeat.finetuning.fitting import Fitting
from memfeat.finetuning.network import starting_network
from memfeat.manifest import Manifest, VideoRecord
from memfeat.runs import FINETUNED, METRICS, PROVENANCE, Predictions, read_object, write_scores
from memfeat.storage import write_json
from memfeat.training import git_commit, versions


class Progress(NamedTuple):
    """How far a run has come: videos `done` of the most there may be, and the latest news."""

    done: int
    total: int
    note: str


OnProgress = Callable[[Progress], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class FinetuneSummary:
    """A complete run folder of finetuning.

    Attributes:
        run: the folder.
        weights: the best epoch's, a checkpoint that the encoder `i3d` takes.
        metrics: `metrics.json`: by split, then by metric.
        provenance: `provenance.json`.
    """

    run: Path
    weights: Path
    metrics: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read a complete run folder.

        Raises:
            RunError: a file is missing or damaged.
        """
        metrics, provenance = (read_object(run / name) for name in (METRICS, PROVENANCE))
        return cls(run, run / FINETUNED, metrics, provenance)

    @property
    def failures(self) -> dict[str, str]:
        """Every video that could not be used: video id to reason."""
        return dict(self.provenance["failed"])

    def as_dict(self) -> dict[str, Any]:
        """Return the summary ready for JSON."""
        return {
            "run": str(self.run),
            "weights": str(self.weights),
            "metrics": self.metrics,
            "trained_on": self.provenance["trained_on"],
            "best_epoch": self.provenance["best_epoch"],
            "stopped_because": self.provenance["stopped_because"],
            "failures": self.failures,
            "reasons": dict(sorted(Counter(self.failures.values()).items())),
            "partial": self.provenance["partial"],
        }


def finetune(
    manifest: Manifest,
    config: FinetuneConfig,
    *,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
) -> FinetuneSummary:
    """Train I3D end to end and write the run folder `config.run`.

    Stopping this at any moment, by any means, costs at most the epoch being worked on: the next
    call goes on from there, on one CPU to the same bytes, but for `provenance.json`. A complete run
    is kept. Videos that fail to decode, or decode only in part, are left out.

    Args:
        manifest: videos, splits and scores.
        config: the settings.
        on_progress: told how far it has come, every few videos.
        on_note: told in words of each video that is left out.

    Raises:
        TrainingError: no scored videos in train or dev, a loss that is no longer a number, or too
            little GPU memory.
        EncoderError: the weights to start from.
        ConfigError: the device.
        RunError: the folder holds another run, or a damaged one.
        OSError: the folder cannot be written to.
    """
    config = resolved(config)
    records = wanted(manifest.records[: config.limit])
    network, origin = starting_network(config)
    facts = {
        **origin,
        "labels_sha256": labels_sha256(records),
        "datasets": list(dict.fromkeys(each.dataset for each in records if each.dataset)),
    }
    if folder.is_finished(config, facts):
        return FinetuneSummary.read(config.run)
    started = time.perf_counter()
    state = folder.begin(config, facts)
    meter = _Meter(config, records, on_progress, on_note)
    with _memory_errors(config):
        if state:
            seen = {name: Seen(**each) for name, each in state["seen"].items()}
            meter.videos(len(records))
        else:
            seen = look_at(records, config.max_frames, config.decoders, meter.look)
        footage = Footage.of(records, seen)
        fitting = Fitting(network, footage, config)
        if state:
            fitting.restore(state)
        _fit(fitting, footage, config, facts, meter)
        network.load_state_dict(fitting.weights)
        trained_on = _trained_on(facts)
        statements = {"trained_on": trained_on, "image_size": config.image_size}
        write_checkpoint(config.run / FINETUNED, network.cpu(), statements)
        predictions = _predictions(fitting, footage, config, meter)
    provenance = {
        **facts,
        "trained_on": trained_on,
        "versions": versions(),
        "git_commit": git_commit(),
        "device": str(resolve_device(config.device)),
        "parameters": sum(each.numel() for each in network.parameters()),
        "best_epoch": fitting.best_epoch,
        "stopped_because": fitting.stopped_because,
        "seconds": round(time.perf_counter() - started, 3),
        **footage.unused,
    }
    write_json(config.run / PROVENANCE, provenance)
    write_scores(config.run, predictions, bootstrap=config.bootstrap)
    folder.forget_state(config.run)
    return FinetuneSummary.read(config.run)


def resolved(config: FinetuneConfig) -> FinetuneConfig:
    """Return `config` with all that depends on device and weights decided.

    Raises:
        ConfigError: the device is not here.
    """
    on_gpu = resolve_device(config.device).type == "cuda"
    choices = {
        "precision": "bfloat16" if on_gpu else "float32",
        "gradient_checkpointing": on_gpu,
        "freeze_batch_norm": config.weights != RANDOM,
    }
    undecided = {k: v for k, v in choices.items() if getattr(config, k) in (None, "auto")}
    return config.model_copy(update=undecided)


class _Meter:
    """Counts videos looked at, trained on and scored, over all epochs that there may be."""

    def __init__(
        self,
        config: FinetuneConfig,
        records: Sequence[VideoRecord],
        on_progress: OnProgress | None,
        on_note: OnNote | None,
    ) -> None:
        splits = Counter(each.split for each in records)
        self.epoch_videos = splits["train"] + splits["dev"]
        self._last = splits["dev"] + splits["test"]
        self._looks = len(records)
        self._total = self._looks + config.max_epochs * self.epoch_videos + self._last
        self._done, self._news = 0, "looking at every video once"
        self._on_progress, self._on_note = on_progress, on_note

    def look(self, record: VideoRecord, seen: Seen) -> None:
        kind = "note" if seen.status == "ok" else seen.status
        self.videos(1, f"{kind}: {record.video_id}: {seen.message}" if seen.message else "")

    def videos(self, count: int, note: str = "") -> None:
        self._done += count
        if note and self._on_note:
            self._on_note(note)
        if self._on_progress:
            self._on_progress(Progress(min(self._done, self._total), self._total, self._news))

    def begin_epoch(self, epoch: int, news: str) -> None:
        self._done, self._news = self._looks + epoch * self.epoch_videos, news
        self.videos(0)

    def begin_last_look(self) -> None:
        self._done, self._news = self._total - self._last, "scoring with the best epoch"
        self.videos(0)


def _fit(
    fitting: Fitting,
    footage: Footage,
    config: FinetuneConfig,
    facts: Mapping[str, Any],
    meter: _Meter,
) -> None:
    """Run the epochs that are left, and keep the state after each."""
    folder.write_history(config, fitting.history)
    news = f"epoch {len(fitting.history)}"
    while not fitting.stopped_because:
        meter.begin_epoch(len(fitting.history), news)
        report = fitting.run_epoch(meter.videos)
        folder.save_state(config, facts, {"seen": footage.as_json(), **fitting.state()})
        folder.write_history(config, fitting.history)
        srocc = "-" if report.dev_srocc is None else f"{report.dev_srocc:.3f}"
        news = f"epoch {report.epoch}: dev L1 {report.dev_l1:.4f}, SROCC {srocc}"


def _predictions(
    fitting: Fitting, footage: Footage, config: FinetuneConfig, meter: _Meter
) -> Predictions:
    """Score the dev and test splits; training videos would say nothing of other ones."""
    meter.begin_last_look()
    fitting.network.to(resolve_device(config.device))
    records = footage.split("dev") + footage.split("test")
    predicted = fitting.predict(records, meter.videos)
    kept = np.flatnonzero(~np.isnan(predicted))
    records = [records[index] for index in kept]
    return Predictions(
        tuple(each.video_id for each in records),
        tuple(each.split for each in records),
        scores_of(records),
        predicted[kept],
    )


def _trained_on(facts: Mapping[str, Any]) -> str:
    datasets = ", ".join(facts["datasets"]) or "the manifest does not say whose"
    return f"memorability scores ({datasets}), starting from {facts['started_from']}"


@contextmanager
def _memory_errors(config: FinetuneConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{config.device} ran out of memory in batches of {config.batch_size} clips; give a "
            "smaller --batch-size, --gradient-checkpointing, or --device cpu"
        ) from error
