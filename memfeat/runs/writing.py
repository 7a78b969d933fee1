"""Writing a run folder: each file atomically, and `metrics.json` last."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfeat.cache import CacheSpec
from memfeat.config import FinetuneConfig, TrainConfig
from memfeat.errors import RunError
from memfeat.runs.files import (
    CONFIG,
    HISTORY,
    METRICS,
    MODEL,
    PREDICTIONS,
    PROVENANCE,
    SPEC,
    STREAMS,
    read_object,
    seed_folder,
)
from memfeat.runs.predictions import (
    Predictions,
    format_predictions,
    mean_over_seeds,
    read_predictions,
    split_metrics,
)
from memfeat.storage import remove_stale_parts, write_atomically, write_json

if TYPE_CHECKING:
    from memfeat.models import FittedRegressor, Regressor


def begin_run(config: TrainConfig | FinetuneConfig, specs: Sequence[CacheSpec] = ()) -> None:
    """Make `config.run` an incomplete run of these settings.

    An earlier run in the folder becomes incomplete, so its files are not mistaken for this run's;
    and a folder that cannot be written to is reported before training. Finetuning has no `specs`.

    Raises:
        RunError: the folder cannot be made or written to.
    """
    folder = config.run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / METRICS).unlink(missing_ok=True)
        remove_stale_parts(folder)
        write_json(folder / CONFIG, config.model_dump(mode="json"))
        written = [spec.model_dump(mode="json") for spec in specs]
        if written:
            write_json(folder / SPEC, written[0] if len(written) == 1 else {STREAMS: written})
    except OSError as error:
        raise RunError(
            f"cannot write to run folder {folder}: {error.strerror}; make room or give another "
            "with --run"
        ) from error


def write_history(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each epoch, given as a mapping; the seed is not written.

    Raises:
        OSError: the disk is full, and so on.
    """
    rows = ({k: v for k, v in epoch.items() if k != "seed"} for epoch in history)
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_atomically(folder / HISTORY, lines.encode())


def finish_seed(
    config: TrainConfig,
    history: Iterable[Mapping[str, Any]],
    regressor: "Regressor | FittedRegressor",
    predictions: Predictions,
    provenance: Mapping[str, Any],
) -> None:
    """Write the result of training one seed, or of a baseline, into `config.run`: it is complete.

    The provenance is all that may differ between two runs of the same settings.

    Raises:
        OSError: a file cannot be written, for example on a full disk; the run stays incomplete.
    """
    from safetensors.torch import save  # noqa: PLC0415

    folder = config.run
    weights = {name: value.contiguous() for name, value in regressor.state_dict().items()}
    if epochs := list(history):
        write_history(folder, epochs)
    model = save(weights)
    write_atomically(folder / MODEL, model)
    sha256 = {"model_sha256": hashlib.sha256(model).hexdigest()}
    write_json(folder / PROVENANCE, {**provenance, **sha256})
    write_scores(folder, predictions, bootstrap=config.bootstrap)


def rewrite_scores(
    config: TrainConfig, predictions: Predictions, provenance: Mapping[str, Any]
) -> None:
    """Replace the scores of a complete run of one seed, and what its settings say of them.

    The provenance is written last: until then the run's data are those of before.

    Raises:
        OSError: a file cannot be written.
    """
    write_scores(config.run, predictions, bootstrap=config.bootstrap)
    write_json(config.run / CONFIG, config.model_dump(mode="json"))
    write_json(config.run / PROVENANCE, provenance)


def write_summary(config: TrainConfig, specs: Sequence[CacheSpec]) -> None:
    """Write the summary of the seeds' folders into `config.run`.

    Raises:
        RunError: a seed's folder is damaged, or `config.run` cannot be written to.
        OSError: a file cannot be written; the run stays incomplete.
    """
    folder = config.run
    members = [seed_folder(folder, config, seed) for seed in config.seeds]
    predictions = [read_predictions(member / PREDICTIONS) for member in members]
    provenance = [read_object(member / PROVENANCE) for member in members]
    own = {key: [each[key] for each in provenance] for key in ("best_epoch", "stopped_because")}
    seconds = round(sum(each["seconds"] for each in provenance), 3)
    begin_run(config, specs)
    shared = {key: value for key, value in provenance[0].items() if key != "model_sha256"}
    write_json(folder / PROVENANCE, shared | own | {"seconds": seconds})
    write_atomically(folder / PREDICTIONS, format_predictions(mean_over_seeds(predictions)))
    metrics = split_metrics(predictions, bootstrap=config.bootstrap)
    seeds = {"seeds": list(config.seeds)}
    write_json(folder / METRICS, {split: m.as_dict() | seeds for split, m in metrics.items()})


def write_scores(folder: Path, predictions: Predictions, *, bootstrap: int) -> None:
    """Write `predictions.csv` and, last, `metrics.json`.

    Raises:
        OSError: a file cannot be written.
    """
    metrics = split_metrics([predictions], bootstrap=bootstrap)
    write_atomically(folder / PREDICTIONS, format_predictions(predictions))
    write_json(folder / METRICS, {split: value.as_dict() for split, value in metrics.items()})
