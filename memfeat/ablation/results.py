"""A grid's finished runs as one table, with intervals, spreads and paired comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.ablation.grid import Cell
from memfeat.cache import Cache, CacheSpec
from memfeat.config import AblationConfig
from memfeat.manifest import read_manifest
from memfeat.metrics import Metrics, evaluate, known_ceiling, paired_difference
from memfeat.runs import PREDICTIONS, PROVENANCE, read_object, read_predictions, seed_folder

RESULT = "ablation.json"


@dataclass(frozen=True)
class _Scored:
    """A finished cell on the table's split."""

    cell: Cell
    spec: CacheSpec
    truth: NDArray[np.float64]  # (videos,)
    predictions: NDArray[np.float64]  # (seeds, videos)
    metrics: Metrics
    provenance: Mapping[str, Any]


def table_of(
    config: AblationConfig, cells: Sequence[Cell], errors: Mapping[str, str]
) -> dict[str, Any]:
    """Gather the cells' runs into what `ablation.json` holds and the report shows.

    Each figure is the mean over seeds; `*_std` is their spread over seeds, `*_interval` the 95 %
    bootstrap interval of that mean over videos, and `vs_best` the paired difference in SROCC from
    the best row, with its interval.

    Args:
        config: the grid.
        cells: all of its cells.
        errors: those that failed, name to message.
    """
    scored = [_score(config, cell) for cell in cells if cell.name not in errors]
    rivals = [each for each in scored if each.cell.kind != "control"]
    best = max(rivals, key=lambda each: _order(each.metrics), default=None)
    rows = [_row(config, each, best) for each in scored]
    rows.sort(key=lambda row: -2.0 if row["srocc"] is None else row["srocc"], reverse=True)
    manifest = read_manifest(cells[0].config.manifest)
    records = manifest.of_split(config.split)
    ceiling = known_ceiling(records, bootstrap=cells[0].config.bootstrap)
    datasets = ", ".join(manifest.datasets) or "the manifest does not say"
    return {
        "title": config.title,
        "split": config.split,
        "n": len(scored[0].truth) if scored else 0,
        "rows": rows,
        "failed": [{"name": name, "error": error} for name, error in errors.items()],
        "ceiling": None
        if ceiling is None
        else {
            "what": "noise-free scores as predictions: a perfect model, up to luck",
            "plcc": ceiling.plcc,
            "srocc": ceiling.srocc,
            "srocc_interval": ceiling.srocc_interval,
            "mse": ceiling.mse,
        },
        "sources": [
            *dict.fromkeys(f"features: {each.spec.describe()}" for each in scored),
            f"scores: {datasets}",
        ],
        "notes": _notes(rows),
        "versions": dict(scored[0].provenance.get("versions", {})) if scored else {},
    }


def _score(config: AblationConfig, cell: Cell) -> _Scored:
    run = cell.config
    is_baseline = cell.kind == "baseline"
    folders = [run.run] if is_baseline else [seed_folder(run.run, run, s) for s in run.seeds]
    columns = [read_predictions(folder / PREDICTIONS) for folder in folders]
    chosen = np.array([split == config.split for split in columns[0].split], dtype=bool)
    chosen &= ~np.isnan(columns[0].score)
    truth = columns[0].score[chosen]
    predictions = np.stack([each.prediction[chosen] for each in columns])
    metrics = evaluate(truth, predictions, bootstrap=run.bootstrap)
    provenance = read_object(run.run / PROVENANCE)
    return _Scored(cell, Cache.open(run.cache).spec, truth, predictions, metrics, provenance)


def _row(config: AblationConfig, each: _Scored, best: _Scored | None) -> dict[str, Any]:
    run = each.cell.config
    is_baseline = each.cell.kind == "baseline"
    row: dict[str, Any] = {
        "name": each.cell.name,
        "kind": each.cell.kind,
        "encoder": each.spec.encoder,
        "weights": each.spec.weights,
        "aggregator": run.aggregator,
        "head": run.head,
        "seeds": [] if is_baseline else list(run.seeds),
    }
    for metric in ("plcc", "srocc", "mse"):
        row[metric] = getattr(each.metrics, metric)
    for metric in ("plcc", "srocc", "mse"):
        row[f"{metric}_std"] = None if is_baseline else getattr(each.metrics, f"{metric}_std")
        row[f"{metric}_interval"] = getattr(each.metrics, f"{metric}_interval")
    row["undefined"] = each.metrics.undefined
    row["vs_best"] = None
    if best is not None and best is not each:
        difference = paired_difference(
            each.truth, each.predictions, best.predictions, bootstrap=run.bootstrap
        )
        row["vs_best"] = {"srocc": difference.value, "interval": difference.interval}
    row["paper"] = each.cell.paper.model_dump() if each.cell.paper else None
    row["parameters"] = each.provenance.get("parameters")
    row["seconds"] = each.provenance.get("seconds")
    row["run"] = str(run.run.relative_to(config.run))
    return row


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Explain in words what a reader might overlook, or take for an error."""
    notes = [
        f"{row['name']} has no correlation: {row['undefined']}."
        for row in rows
        if row["srocc"] is None
    ]
    told = [row for row in rows if row["srocc_interval"] is not None]
    lost = [r["name"] for r in told if r["kind"] != "control" and _includes_zero(r)]
    if lost:
        notes.append(
            f"The interval of {', '.join(lost)} includes zero: on these videos that cannot be told "
            "from knowing nothing."
        )
    lucky = [r["name"] for r in told if r["kind"] == "control" and not _includes_zero(r)]
    if lucky:
        notes.append(
            f"The interval of {', '.join(lucky)} excludes zero, though nothing could be learnt "
            "from shuffled labels: the interval covers the choice of videos, not what random "
            "weights make of them. Take its value as the size of luck here."
        )
    return notes


def _includes_zero(row: Mapping[str, Any]) -> bool:
    low, high = row["srocc_interval"]
    return bool(low <= 0 <= high)


def _order(metrics: Metrics) -> float:
    return -2.0 if metrics.srocc is None else metrics.srocc
