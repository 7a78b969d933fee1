"""The table of a grid: its finished runs with intervals, spreads and paired comparisons."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from memfeat.ablation.cell_results import CellResult, average_cells, read_cell
from memfeat.ablation.grid import Cell, reported_split
from memfeat.ablation.notes import table_notes
from memfeat.ablation.scorers import scorer_result
from memfeat.cache import Cache
from memfeat.config import AblationConfig, aggregator_names
from memfeat.errors import MemfeatError, counted
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.metrics import (
    METRICS,
    known_ceiling,
    split_half_ceiling,
)
from memfeat.runs import (
    IN_FOLDS,
    NO_SOURCE,
)
from memfeat.training import select_records
from memfeat.training.folds import NOTHING


def table_of(
    config: AblationConfig,
    cells: Sequence[Cell],
    errors: Mapping[str, str],
    without_cache: Mapping[str, str] = NOTHING,
) -> dict[str, Any]:
    """Return the content of `ablation.json`, from the cells' run folders.

    Each figure is the mean over seeds; `*_std` is its standard deviation over seeds, `*_interval`
    the 95 % bootstrap interval of that mean over videos, and `versus` the paired difference in
    SROCC from the reference with its interval. The reference is the row that the grid names, or
    else the best. `frames_kept` is the share of frames that samplers kept. `errors` of cells that
    failed, and of those `without_cache`, are messages by name.
    """
    open_cache = cache(Cache.open)  # which many cells share
    split = reported_split(config, cells)
    results: list[CellResult] = []
    failed = {**without_cache, **errors}
    for cell in cells:
        if cell.name not in failed:
            try:
                results.append(read_cell(split, cell, open_cache))
            except MemfeatError as error:
                failed[cell.name] = str(error)
    for name in config.scorers:
        if name not in failed:
            try:
                results.append(scorer_result(config, split, name, results))
            except MemfeatError as error:
                failed[name] = str(error)
    for ensemble in config.ensembles:
        gone = [name for name in ensemble.members if name in failed]
        if gone:
            failed[ensemble.name] = f"its member {gone[0]!r} has no result"
        else:
            results.append(average_cells(config, split, ensemble, results))
    shared, left_out = _shared_videos(results)
    scored = [result.of(shared) for result in results]
    rivals = [(each.metrics.srocc, each) for each in scored if each.cell.kind != "control"]
    known = [(srocc, each) for srocc, each in rivals if srocc is not None]
    best = max(known, key=lambda rival: rival[0], default=(None, None))[1]
    named = [each for each in scored if each.cell.name == config.reference]
    reference = named[0] if named else best
    rows = [_row(config, each, reference) for each in scored]
    rows.sort(key=lambda row: -2.0 if row["srocc"] is None else row["srocc"], reverse=True)
    manifest = read_manifest(cells[0].config.manifest)
    records = [record for record in manifest.records if record.video_id in shared]
    features = dict.fromkeys(f"features: {s.describe()}" for each in scored for s in each.specs)
    datasets = ", ".join(manifest.datasets) or NO_SOURCE
    configs = [each.cell.config for each in scored]
    caches = dict.fromkeys((folder, own.missing) for own in configs for folder in own.cache)
    opened = (open_cache(folder, missing=missing) for folder, missing in caches)
    together = cells[0].config.group if split == IN_FOLDS else ""
    selected = dict.fromkeys(
        note for each in opened for note in select_records(manifest, each, together=together).notes
    )
    folds = scored[0].folds if scored else None
    return {
        "title": config.title,
        "split": split,
        "n": len(shared),
        "best": best and best.cell.name,
        "reference": reference and reference.cell.name,
        "rows": rows,
        "failed": [
            {"name": name, "error": error, "missing_cache": name in without_cache}
            for name, error in failed.items()
        ],
        **_ceilings(records, cells[0].config.bootstrap),
        "sources": [*features, f"scores: {datasets}"],
        "notes": [
            *left_out,
            *(f"{note}." for note in selected),
            *table_notes(config, split, rows, scored, best),
        ],
        "versions": dict(scored[0].provenance.get("versions", {})) if scored else {},
        **({"groups": folds.num_groups} if folds else {}),
    }


def _ceilings(records: Sequence[VideoRecord], bootstrap: int) -> dict[str, Any]:
    """Return the known ceiling, and the one estimated from people's answers; None where unknown."""
    known = known_ceiling(records, bootstrap=bootstrap)
    ceiling = known and {
        "what": "noise-free scores as predictions: a perfect model, up to luck",
        **{name: getattr(known, name) for name in ("plcc", "srocc", "srocc_interval", "mse")},
    }
    if not any(record.n_annotations for record in records):
        return {"ceiling": ceiling, "split_half": None}
    found = split_half_ceiling(records, bootstrap=bootstrap)
    return {"ceiling": ceiling, "split_half": {"what": found.describe(), **found.as_dict()}}


def _shared_videos(results: Sequence[CellResult]) -> tuple[list[str], list[str]]:
    """Return the videos that every cell predicts, and a note on those that some do not."""
    every = list(dict.fromkeys(v for result in results for v in result.video_ids))
    in_all = set(every).intersection(*(result.video_ids for result in results))
    missing = [video_id for video_id in every if video_id not in in_all]
    if not missing:
        return every, []
    note = (
        f"{counted(len(missing), 'video')} not in every row's cache, counted in none, "
        f"{missing[0]!r} first."
    )
    return [video_id for video_id in every if video_id in in_all], [note]


def _row(config: AblationConfig, each: CellResult, reference: CellResult | None) -> dict[str, Any]:
    run, metrics = each.cell.config, each.metrics
    trained = each.cell.kind in {"model", "control"}
    members, is_scorer = each.provenance.get("members"), each.cell.kind == "scorer"
    versus = None
    if reference is not None and reference is not each:
        difference = each.minus(reference)
        versus = {"srocc": difference.value, "interval": difference.interval}
    row: dict[str, Any] = {
        "name": each.cell.name,
        "kind": each.cell.kind,
        "encoder": " + ".join(spec.encoder for spec in each.specs) or each.cell.name,
        "weights": " + ".join(spec.weights for spec in each.specs),
        "aggregator": "average" if members or is_scorer else aggregator_names(run.aggregator),
        "head": "" if is_scorer else " + ".join(members) if members else run.head,
        "seeds": list(run.seeds) if trained else [],
        **{name: getattr(metrics, name) for name in METRICS},
    }
    for name in METRICS:
        row[f"{name}_std"] = getattr(metrics, f"{name}_std") if trained else None
        row[f"{name}_interval"] = getattr(metrics, f"{name}_interval")
    if each.folds:
        row["per_fold"] = each.per_fold()
    return row | {
        "undefined": metrics.undefined,
        "versus": versus,
        "frames_kept": each.frames_kept,
        "paper": each.cell.paper.model_dump() if each.cell.paper else None,
        "parameters": each.provenance.get("parameters"),
        "seconds": each.provenance.get("seconds"),
        "run": str(run.run.relative_to(config.run)),
    }
