"""Models trained on one dataset and evaluated on every one (paper, Table 2)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from memfeat.ablation.grid import Cell
from memfeat.ablation.progress import OnProgress
from memfeat.ablation.recipes import CacheRequest, missing_caches
from memfeat.ablation.running import require_same_settings
from memfeat.ablation.scheduler import train_cells
from memfeat.cache import Cache
from memfeat.cache.spec import ROUNDING
from memfeat.config import ExtractConfig, TrainConfig, TransferConfig, TransferDataset, build
from memfeat.errors import CacheError, ConfigError, MemfeatError
from memfeat.manifest import Manifest, Split, read_manifest
from memfeat.metrics import evaluate, fit_line
from memfeat.runs import (
    NO_SOURCE,
    PREDICTIONS,
    TRANSFER,
    Run,
    mean_over_seeds,
    pair_folder,
    write_predictions,
)
from memfeat.runs.files import path_for_table
from memfeat.storage import write_json
from memfeat.training import Features, predict_run, read_features, resolve_options

SET_BY_TRANSFER = {"manifest", "cache", "seeds", "run", "folds"}


class Target(NamedTuple):
    """A dataset to evaluate on: its manifest, and its videos with their features."""

    manifest: Manifest
    features: Features


def plan_transfer(config: TransferConfig, recipe: Mapping[str, Any]) -> list[Cell]:
    """Return for each dataset the model to train on it, with its settings and run folder.

    All share the settings of `recipe`, the pipeline's [train] table.

    Raises:
        ConfigError: a setting that is not allowed.
        UnknownNameError: an aggregator or head that does not exist.
    """
    fixed = sorted(SET_BY_TRANSFER & recipe.keys())
    if fixed:
        raise ConfigError(
            f"[train] sets {', '.join(fixed)}, which [transfer] decides for each dataset; remove it"
        )
    cells = []
    for dataset in config.datasets:
        settings = {
            **recipe,
            "manifest": dataset.manifest,
            "cache": dataset.cache,
            "seeds": config.seeds,
            "run": config.run / "cells" / dataset.name.replace(" ", "-"),
        }
        built = build(TrainConfig, settings, f"[train] for {dataset.name!r}")
        resolve_options(built)  # refuses unknown names and options before anything is trained
        cells.append(Cell(dataset.name, "model", built))
    return cells


def run_transfer(
    config: TransferConfig, cells: Sequence[Cell], *, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Train what is not trained yet, evaluate every pair, and write and return the table.

    A pair that fails, or whose cache is missing, is listed and the others go on. Finished seeds
    are kept, so an interrupted call can be repeated.

    Each figure is the mean over seeds; `*_std` is its standard deviation over seeds, `*_interval`
    the 95 % bootstrap interval of that mean over videos.

    Returns:
        The content of `transfer.json`.

    Raises:
        CacheError: the datasets' features were made with different settings.
        RunError: the folder holds runs of other settings.
        OSError: a file cannot be written.
    """
    require_same_settings(cells)
    without_cache = {c.name: why for c in cells if (why := missing_caches(_caches_of(c)))}
    datasets = [each for each in config.datasets if each.name not in without_cache]
    if datasets:
        _require_same_specs(datasets)
    trainable = [cell for cell in cells if cell.name not in without_cache]
    errors = train_cells(trainable, config.run, config.workers, on_progress=on_progress)
    errors |= without_cache
    runs: dict[str, Run] = {}
    targets: dict[str, Target] = {}
    for cell, dataset in zip(trainable, datasets, strict=True):
        try:
            manifest = read_manifest(dataset.manifest)
            features = read_features(manifest, dataset.cache, missing=cell.config.missing)
            targets[cell.name] = Target(manifest, features)
            if cell.name not in errors:
                runs[cell.name] = Run.load(cell.config.run)
        except MemfeatError as error:
            errors.setdefault(cell.name, str(error))
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for trained_on, evaluated_on in product((cell.name for cell in cells), repeat=2):
        pair = {"trained_on": trained_on, "evaluated_on": evaluated_on}
        reasons = [errors[trained_on]] if trained_on not in runs else []
        reasons += [errors[evaluated_on]] if evaluated_on not in targets else []
        if not reasons:
            try:
                rows += _rows(config, runs[trained_on], targets[evaluated_on], pair)
            except MemfeatError as error:
                reasons = [str(error)]
        if reasons:
            missing = not without_cache.keys().isdisjoint(pair.values())
            why = "; ".join(dict.fromkeys(reasons))
            failed.append({**pair, "error": why, "missing_cache": missing})
    table = {
        "title": config.title,
        "datasets": {
            name: {"scores": list(target.manifest.datasets), "manifest": str(target.manifest.path)}
            for name, target in targets.items()
        },
        "splits": list(config.splits),
        "rows": rows,
        "failed": failed,
        "runs": {name: str(run.folder.relative_to(config.run)) for name, run in runs.items()},
        "sources": _sources(runs, targets),
        "notes": list(_notes(config, rows, targets)),
        "versions": next((dict(run.provenance.get("versions", {})) for run in runs.values()), {}),
    }
    write_json(path_for_table(config.run, TRANSFER, table), table)
    return table


def _caches_of(cell: Cell) -> list[CacheRequest]:
    """Return the caches that a model needs, each made with the encoder that it is named after."""
    manifest = cell.config.manifest
    return [
        CacheRequest(ExtractConfig(manifest=manifest, encoder=folder.name, cache=folder), None)
        for folder in dict.fromkeys(cell.config.cache)
    ]


def _require_same_specs(datasets: Iterable[TransferDataset]) -> None:
    """Refuse datasets whose features were made differently: no model fits both.

    Raises:
        CacheError: names the two caches and the first difference.
    """
    first, *others = ([Cache.open(folder) for folder in each.cache] for each in datasets)
    for caches in others:
        if len(caches) != len(first):
            raise CacheError(
                f"datasets have {len(first)} and {len(caches)} caches side by side; give each as "
                "many, in the same order"
            )
        for one, other in zip(first, caches, strict=True):
            what = f"{one.folder} and {other.folder} were not made alike, so no model fits"
            one.spec.require(other.spec, what, ignored=ROUNDING)


def _rows(
    config: TransferConfig, run: Run, target: Target, pair: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Score a dataset with a run's models, write the mean over seeds, and return a row per split.

    Each seed's predictions are also recalibrated by a line of their own, fitted on the target's
    training split alone: the error that is left is not due to another scale or mean. Splits
    without scores are left out.

    Raises:
        RunError: the features were made differently, or a checkpoint is damaged.
        OSError: the predictions cannot be written.
    """
    seeds = predict_run(run, target.features.tables, target.features.records)
    path = pair_folder(config.run, pair["trained_on"], pair["evaluated_on"]) / PREDICTIONS
    write_predictions(path, mean_over_seeds(seeds))
    bootstrap = run.config.bootstrap
    train = seeds[0].scored("train")
    lines = [fit_line(s.prediction[train], s.score[train]) for s in seeds] if train.any() else []
    rows = []
    for split in config.splits:
        chosen = seeds[0].scored(split)
        if not chosen.any():
            continue
        truth = seeds[0].score[chosen]
        predicted = np.stack([seed.prediction[chosen] for seed in seeds])
        metrics = evaluate(truth, predicted, bootstrap=bootstrap).as_dict()
        row = {**pair, "split": split, "seeds": list(run.config.seeds), **metrics}
        biases = (predicted - truth).mean(axis=1)
        row["bias_std"] = float(biases.std(ddof=1)) if len(biases) > 1 else None
        row["recalibrated"] = None
        if lines:
            fitted = np.stack([line(p) for line, p in zip(lines, predicted, strict=True)])
            again = evaluate(truth, fitted, bootstrap=bootstrap).as_dict()
            row["recalibrated"] = {
                "slope": float(np.mean([line.slope for line in lines])),
                "intercept": float(np.mean([line.intercept for line in lines])),
                **{name: again[name] for name in ("mse", "mse_std", "mse_interval", "bias")},
            }
        row["paper"] = _paper(config, pair, split)
        rows.append(row)
    return rows


def _paper(config: TransferConfig, pair: Mapping[str, str], split: Split) -> dict[str, Any] | None:
    """Return the paper's figures for a row, if it reports any."""
    for figures in config.paper:
        if {**pair, "split": split}.items() <= figures.model_dump().items():
            return figures.model_dump(include={"plcc", "srocc", "mse"})
    return None


def _sources(runs: Mapping[str, Run], targets: Mapping[str, Target]) -> list[str]:
    """Return the lines that belong under the table: features, scores, and controls."""
    lines = [line for run in runs.values() for line in run.sources()]
    features = [line for line in lines if line.startswith("features: ")]
    control = [line for line in lines if line.startswith("CONTROL: ")]
    scores = [
        f"scores of {name}: {', '.join(target.manifest.datasets) or NO_SOURCE}"
        for name, target in targets.items()
    ]
    return list(dict.fromkeys([*features, *scores, *control]))


def _notes(
    config: TransferConfig, rows: Sequence[Mapping[str, Any]], targets: Mapping[str, Target]
) -> Iterator[str]:
    """Explain what a reader might overlook, or take for an error."""
    for name, target in targets.items():
        yield from (f"{name}: {note}." for note in target.features.notes)
        if not rows:
            continue
        reported = {row["split"] for row in rows if row["evaluated_on"] == name}
        for split in config.splits:
            if split not in reported:
                yield f"{name} has no scores in its {split} split, so it has no row."
        records = target.features.records
        if not any(r.split == "train" and r.score is not None for r in records):
            yield f"{name} has no scored training part to fit a recalibration on."
    for row in rows:
        if row["undefined"]:
            pair = f"{row['trained_on']} to {row['evaluated_on']}, {row['split']}"
            yield f"{pair}: no correlation: {row['undefined']}."
