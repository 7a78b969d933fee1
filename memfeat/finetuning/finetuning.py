"""Finetuning as a whole: check the videos, train, keep the best epoch, score with it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from memfeat.config import FinetuneConfig
from memfeat.devices import resolve_device
from memfeat.encoders.checkpoints import write_checkpoint
from memfeat.encoders.family import RANDOM
from memfeat.errors import TrainingError
from memfeat.finetuning import folder
from memfeat.finetuning.clips import UsableVideos, VideoCheck, check_videos, select_videos
from memfeat.finetuning.fitting import Fitting, starting_network
from memfeat.manifest import Manifest, VideoRecord
from memfeat.runs import FINETUNED, METRICS, PROVENANCE, Predictions, read_object, write_scores
from memfeat.runs.writing import write_history
from memfeat.storage import write_json
from memfeat.training import versions
from memfeat.training.reading import scores_of
from memfeat.training.seeds import git_commit

OnProgress = Callable[[int, int, str], None]  # videos done, the most there may be, latest news
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

    If it is stopped, by any means, the next call resumes after the last complete epoch, on one CPU
    to the same bytes but for `provenance.json`. A complete run is kept. Videos that fail to decode,
    or decode only in part, are left out. `on_progress` is called every few videos, `on_note` with a
    line on each that is left out.

    Raises:
        TrainingError: no scored videos in train or dev, a loss that is no longer a number, or too
            little GPU memory.
        EncoderError: the weights to start from.
        ConfigError: the device.
        RunError: the folder holds another run, or a damaged one.
        OSError: the folder cannot be written to.
    """
    device = resolve_device(config.device)
    config = resolved(config, device)
    records = select_videos(manifest.records[: config.limit])
    selected = Manifest(manifest.path, records)
    network, origin = starting_network(config)
    facts = {
        **origin,
        "labels_sha256": selected.digest,
        "datasets": list(selected.datasets),
    }
    if folder.is_finished(config, facts):
        return FinetuneSummary.read(config.run)
    started = time.perf_counter()
    state = folder.begin(config, facts)
    progress = _Progress(config, records, on_progress, on_note)
    with _memory_errors(config):
        if state:
            checks = {name: VideoCheck(**each) for name, each in state["seen"].items()}
            progress.advance(len(records))
        else:
            checks = check_videos(records, config.max_frames, config.decoders, progress.checked)
        videos = UsableVideos.of(records, checks)
        fitting = Fitting(network, videos, config, device)
        if state:
            fitting.restore(state)
        _fit(fitting, videos, config, facts, progress)
        network.load_state_dict(fitting.weights)
        scores = ", ".join(selected.datasets) or "the manifest does not say whose"
        trained_on = f"memorability scores ({scores}), starting from {facts['started_from']}"
        statements = {"trained_on": trained_on, "image_size": config.image_size}
        write_checkpoint(config.run / FINETUNED, network.cpu(), statements)
        network.to(device)
        predictions = _predictions(fitting, videos, progress)
    provenance = {
        **facts,
        "trained_on": trained_on,
        "versions": versions(),
        "git_commit": git_commit(),
        "device": str(device),
        "parameters": sum(each.numel() for each in network.parameters()),
        "best_epoch": fitting.best_epoch,
        "stopped_because": fitting.stopped_because,
        "seconds": round(time.perf_counter() - started, 3),
        **videos.unused,
    }
    write_json(config.run / PROVENANCE, provenance)
    write_scores(config.run, predictions, bootstrap=config.bootstrap)
    (config.run / folder.STATE).unlink(missing_ok=True)
    return FinetuneSummary.read(config.run)


def resolved(config: FinetuneConfig, device: torch.device) -> FinetuneConfig:
    """Return `config` with all that depends on device and weights decided."""
    on_gpu = device.type == "cuda"
    choices = {
        "precision": "bfloat16" if on_gpu else "float32",
        "gradient_checkpointing": on_gpu,
        "freeze_batch_norm": config.weights != RANDOM,
    }
    undecided = {k: v for k, v in choices.items() if getattr(config, k) in (None, "auto")}
    return config.model_copy(update=undecided)


class _Progress:
    """Counts videos checked, trained on and scored, over all epochs that there may be."""

    def __init__(
        self,
        config: FinetuneConfig,
        records: Sequence[VideoRecord],
        on_progress: OnProgress | None,
        on_note: OnNote | None,
    ) -> None:
        splits = Counter(each.split for each in records)
        self._checks, self._epoch = len(records), splits["train"] + splits["dev"]
        self._last = splits["dev"] + splits["test"]
        self._total = self._checks + config.max_epochs * self._epoch + self._last
        self._done, self._news = 0, "looking at every video once"
        self._on_progress, self._on_note = on_progress, on_note

    def checked(self, record: VideoRecord, check: VideoCheck) -> None:
        kind = "note" if check.status == "ok" else check.status
        self.advance(1, f"{kind}: {record.video_id}: {check.message}" if check.message else "")

    def advance(self, count: int, note: str = "") -> None:
        self._done += count
        if note and self._on_note:
            self._on_note(note)
        if self._on_progress:
            self._on_progress(min(self._done, self._total), self._total, self._news)

    def begin_epoch(self, epoch: int, news: str) -> None:
        self._done, self._news = self._checks + epoch * self._epoch, news
        self.advance(0)

    def begin_scoring(self) -> None:
        self._done, self._news = self._total - self._last, "scoring with the best epoch"
        self.advance(0)


def _fit(
    fitting: Fitting,
    videos: UsableVideos,
    config: FinetuneConfig,
    facts: Mapping[str, Any],
    progress: _Progress,
) -> None:
    """Run the epochs that are left, and save the state after each."""
    write_history(config.run, map(asdict, fitting.history))
    news = f"epoch {len(fitting.history) + 1}"
    while not fitting.stopped_because:
        progress.begin_epoch(len(fitting.history), news)
        report = fitting.run_epoch(progress.advance)
        folder.save_state(config, facts, {"seen": videos.as_json(), **fitting.state()})
        write_history(config.run, map(asdict, fitting.history))
        srocc = "-" if report.dev_srocc is None else f"{report.dev_srocc:.3f}"
        news = f"epoch {report.epoch + 1}: dev L1 {report.dev_l1:.4f}, SROCC {srocc}"


def _predictions(fitting: Fitting, videos: UsableVideos, progress: _Progress) -> Predictions:
    """Score the dev and test splits; scores of training videos would say nothing of new ones."""
    progress.begin_scoring()
    records = videos.split("dev") + videos.split("test")
    predicted = fitting.predict(records, progress.advance)
    kept = np.flatnonzero(~np.isnan(predicted))
    records = [records[index] for index in kept]
    return Predictions(
        tuple(each.video_id for each in records),
        tuple(each.split for each in records),
        scores_of(records),
        predicted[kept],
    )


@contextmanager
def _memory_errors(config: FinetuneConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{config.device} ran out of memory in batches of {config.batch_size} clips; give a "
            "smaller --batch-size, --gradient-checkpointing, or --device cpu"
        ) from error
