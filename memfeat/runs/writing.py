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
    fold_folders,
    read_object,
    seed_folders,
)
from memfeat.runs.folds import (
    Folds,
    fold_metrics,
    pooled,
    read_folds,
    write_folds,
)
from memfeat.runs.predictions import (
    Predictions,
    mean_over_seeds,
    read_predictions,
    split_metrics,
    write_predictions,
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
    """Write a line for each epoch, given as a mapping; seed and fold are not written.

    Raises:
        OSError: the disk is full, and so on.
    """
    rows = ({k: v for k, v in epoch.items() if k not in {"seed", "fold"}} for epoch in history)
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
    members = seed_folders(folder, config)
    predictions = [read_predictions(member / PREDICTIONS) for member in members]
    provenance = [read_object(member / PROVENANCE) for member in members]
    folds = read_folds(members[0]) if config.folds else None
    begin_run(config, specs)
    write_json(folder / PROVENANCE, _of_all(provenance))
    write_scores(
        folder, *predictions, bootstrap=config.bootstrap, folds=folds, numbers=config.seeds
    )


def write_pooled(config: TrainConfig, folds: Folds, facts: Mapping[str, Any]) -> None:
    """Write what the finished models of all folds make together into `config.run`: it is complete.

    `facts` are those of all data; the folds' own are of their parts.

    Raises:
        RunError: a fold's folder is damaged.
        OSError: a file cannot be written; the run stays incomplete.
    """
    folder = config.run
    parts = fold_folders(folder, config)
    predictions = pooled([read_predictions(part / PREDICTIONS) for part in parts], folds)
    provenance = _of_all([read_object(part / PROVENANCE) for part in parts])
    write_json(folder / PROVENANCE, {**provenance, **facts})
    write_scores(folder, predictions, bootstrap=config.bootstrap, folds=folds)


def _of_all(provenance: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up what several models' runs say of themselves; what differs becomes a list."""
    shared = {k: value for k, value in provenance[0].items() if k not in {"model_sha256", "fold"}}
    own = {
        key: [value for each in provenance for value in _as_list(each[key])]
        for key in ("best_epoch", "stopped_because", "hyperparameters")
        if key in shared
    }
    return shared | own | {"seconds": round(sum(each["seconds"] for each in provenance), 3)}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def write_scores(
    folder: Path,
    *seeds: Predictions,
    bootstrap: int,
    folds: Folds | None = None,
    numbers: Sequence[int] = (),
) -> None:
    """Write `predictions.csv`, the mean over seeds, and, last, `metrics.json`.

    With folds also `folds.csv`. `numbers` are the seeds' own, where there are several.

    Raises:
        OSError: a file cannot be written.
    """
    if folds:
        metrics = fold_metrics(seeds, folds, bootstrap=bootstrap)
        write_folds(folder, folds)
    else:
        found = split_metrics(seeds, bootstrap=bootstrap)
        metrics = {split: values.as_dict() for split, values in found.items()}
    write_predictions(folder / PREDICTIONS, mean_over_seeds(seeds))
    named = {"seeds": list(numbers)} if numbers else {}
    write_json(folder / METRICS, {split: values | named for split, values in metrics.items()})
