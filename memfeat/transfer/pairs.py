"""One pair: a model of one dataset, and how well it predicts another's scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.cache import FeatureTable
from memfeat.config import Split, TransferDataset
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.metrics import Line, Metrics, evaluate, fit_line
from memfeat.runs import PREDICTIONS, Predictions, Run, format_predictions, mean_over_seeds
from memfeat.storage import write_atomically
from memfeat.training import predict_run, read_features

SPREAD = ("plcc", "srocc", "mse")


@dataclass(frozen=True)
class Target:
    """A dataset to evaluate on.

    Attributes:
        name: as the table calls it.
        records: its videos that have features.
        tables: their features, one table for each cache.
        datasets: where its scores come from, in words.
        notes: what goes unused, a line each.
    """

    name: str
    records: tuple[VideoRecord, ...]
    tables: tuple[FeatureTable, ...]
    datasets: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def open(cls, dataset: TransferDataset) -> "Target":
        """Read a dataset's records and features.

        Raises:
            MemfeatError: the manifest or a cache cannot be read, or lacks videos.
        """
        manifest = read_manifest(dataset.manifest)
        found = read_features(manifest, dataset.cache)
        return cls(dataset.name, found.records, found.tables, manifest.datasets, found.notes)


def pair_folder(run: Path, trained_on: str, evaluated_on: str) -> Path:
    """Return where the predictions of a pair lie, below the table's folder."""
    return run / "pairs" / f"{trained_on}-to-{evaluated_on}".replace(" ", "-")


def evaluate_pair(
    run: Run, target: Target, splits: Sequence[Split], folder: Path
) -> list[dict[str, Any]]:
    """Score a dataset with a run's models, keep the mean over seeds, and return a row a split.

    Each seed's predictions are also recalibrated by a line of their own, fitted on the target's
    training part alone: what is left of the error is not a matter of another scale or mean.

    Args:
        run: the trained models, one for each seed.
        target: the dataset.
        splits: which to report; those without a score are passed over.
        folder: where `predictions.csv` goes.

    Raises:
        RunError: the features were made differently, or a checkpoint is damaged.
        OSError: the predictions cannot be written.
    """
    seeds = predict_run(run, target.tables, target.records)
    write_atomically(folder / PREDICTIONS, format_predictions(mean_over_seeds(seeds)))
    truth = seeds[0].score
    predicted = np.stack([seed.prediction for seed in seeds])
    lines = _lines(seeds)
    rows = []
    for split in splits:
        chosen = _scored(seeds[0], split)
        if not chosen.any():
            continue
        bootstrap = run.config.bootstrap
        metrics = evaluate(truth[chosen], predicted[:, chosen], bootstrap=bootstrap)
        row: dict[str, Any] = {"split": split, "seeds": list(run.config.seeds), **metrics.as_dict()}
        row["bias_std"] = _spread((predicted[:, chosen] - truth[chosen]).mean(axis=1))
        row["recalibrated"] = None
        if lines:
            fitted = np.stack(
                [line(p) for line, p in zip(lines, predicted[:, chosen], strict=True)]
            )
            again = evaluate(truth[chosen], fitted, bootstrap=bootstrap)
            row["recalibrated"] = _recalibrated(lines, again)
        rows.append(row)
    return rows


def _scored(predictions: Predictions, split: Split) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = np.array(predictions.split, object) == split
    return chosen & ~np.isnan(predictions.score)


def _lines(seeds: Sequence[Predictions]) -> list[Line]:
    """Fit each seed's line on the training part; none where that has no scores."""
    train = _scored(seeds[0], "train")
    if not train.any():
        return []
    return [fit_line(seed.prediction[train], seed.score[train]) for seed in seeds]


def _recalibrated(lines: Sequence[Line], metrics: Metrics) -> Mapping[str, Any]:
    return {
        "slope": float(np.mean([line.slope for line in lines])),
        "intercept": float(np.mean([line.intercept for line in lines])),
        "mse": metrics.mse,
        "mse_std": metrics.mse_std,
        "mse_interval": metrics.mse_interval,
        "bias": metrics.bias,
    }


def _spread(values: NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None
