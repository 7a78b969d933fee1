"""A grid's finished runs as one table, with intervals, spreads and paired comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.ablation.grid import Cell
from memfeat.cache import Cache, CacheSpec
from memfeat.config import AblationConfig, aggregator_names
from memfeat.errors import MemfeatError, RunError
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.metrics import Metrics, evaluate, known_ceiling, paired_difference, split_half_ceiling
from memfeat.runs import (
    ABLATION,
    PREDICTIONS,
    PROVENANCE,
    read_object,
    read_predictions,
    seed_folder,
)

RESULT = ABLATION
NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class _Result:
    """A finished cell's predictions for the table's split."""

    cell: Cell
    specs: tuple[CacheSpec, ...]
    frames_kept: float
    video_ids: tuple[str, ...]
    truth: NDArray[np.float64]  # (videos,)
    predictions: NDArray[np.float64]  # (seeds, videos)
    provenance: Mapping[str, Any]

    def of(self, video_ids: Sequence[str]) -> "_Result":
        """Return the same for these videos, in this order."""
        place = {video_id: index for index, video_id in enumerate(self.video_ids)}
        chosen = [place[video_id] for video_id in video_ids]
        return replace(
            self,
            video_ids=tuple(video_ids),
            truth=self.truth[chosen],
            predictions=self.predictions[:, chosen],
        )

    @cached_property
    def metrics(self) -> Metrics:
        """The means over seeds, their spread, and their intervals over videos."""
        return evaluate(self.truth, self.predictions, bootstrap=self.cell.config.bootstrap)


def table_of(
    config: AblationConfig,
    cells: Sequence[Cell],
    errors: Mapping[str, str],
    without_cache: Mapping[str, str] = NONE,
) -> dict[str, Any]:
    """Gather the cells' runs into what `ablation.json` holds and the report shows.

    Each figure is the mean over seeds; `*_std` is their spread over seeds, `*_interval` the 95 %
    bootstrap interval of that mean over videos, and `versus` the paired difference in SROCC from
    the reference, which is the best row or the one that the grid names, with its interval.
    `frames_kept` is the share of frames that samplers left.

    Args:
        config: the grid.
        cells: all of its cells.
        errors: those that failed, name to message.
        without_cache: those that were not run for want of a cache, likewise.
    """
    results: list[_Result] = []
    failed = {**without_cache, **errors}
    for cell in cells:
        if cell.name not in failed:
            try:
                results.append(_read(config, cell))
            except MemfeatError as error:
                failed[cell.name] = str(error)
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
    records = [record for record in manifest.of_split(config.split) if record.video_id in shared]
    ceiling = known_ceiling(records, bootstrap=cells[0].config.bootstrap)
    datasets = ", ".join(manifest.datasets) or "the manifest does not say"
    return {
        "title": config.title,
        "split": config.split,
        "n": len(shared),
        "best": best and best.cell.name,
        "reference": reference and reference.cell.name,
        "rows": rows,
        "failed": [
            {"name": name, "error": error, "missing_cache": name in without_cache}
            for name, error in failed.items()
        ],
        "ceiling": None
        if ceiling is None
        else {
            "what": "noise-free scores as predictions: a perfect model, up to luck",
            "plcc": ceiling.plcc,
            "srocc": ceiling.srocc,
            "srocc_interval": ceiling.srocc_interval,
            "mse": ceiling.mse,
        },
        "split_half": _split_half(records, cells[0].config.bootstrap),
        "sources": [
            *dict.fromkeys(f"features: {s.describe()}" for each in scored for s in each.specs),
            f"scores: {datasets}",
        ],
        "notes": [*left_out, *_notes(rows)],
        "versions": dict(scored[0].provenance.get("versions", {})) if scored else {},
    }


def _split_half(records: Sequence[VideoRecord], bootstrap: int) -> dict[str, Any] | None:
    """Return the ceiling that people's answers set, where the manifest counts them."""
    if not any(record.n_annotations for record in records):
        return None
    found = split_half_ceiling(records, bootstrap=bootstrap)
    return {"what": found.describe(), **found.as_dict()}


def _read(config: AblationConfig, cell: Cell) -> _Result:
    run = cell.config
    is_baseline = cell.kind == "baseline"
    folders = [run.run] if is_baseline else [seed_folder(run.run, run, s) for s in run.seeds]
    columns = [read_predictions(folder / PREDICTIONS) for folder in folders]
    first = columns[0]
    for folder, each in zip(folders, columns, strict=True):
        if each.video_id != first.video_id:
            raise RunError(f"{folder} predicts other videos than {folders[0]}; train again")
    chosen = first.scored(config.split)
    caches = [Cache.open(cache) for cache in run.cache]
    return _Result(
        cell,
        tuple(cache.spec for cache in caches),
        _share_kept(caches),
        tuple(np.array(first.video_id, dtype=object)[chosen]),
        first.score[chosen],
        np.stack([each.prediction[chosen] for each in columns]),
        read_object(run.run / PROVENANCE),
    )


def _share_kept(caches: Sequence[Cache]) -> float:
    """Return which share of all frames is cached, the others being covered by one of those."""
    entries = [entry for cache in caches for entry in cache.entries.values()]
    covered = sum(entry.num_covered for entry in entries)
    return sum(entry.num_frames for entry in entries) / covered if covered else 1.0


def _shared_videos(results: Sequence[_Result]) -> tuple[list[str], list[str]]:
    """Return the videos that every cell predicts, and a note on those that some do not."""
    every = list(dict.fromkeys(v for result in results for v in result.video_ids))
    in_all = set(every).intersection(*(result.video_ids for result in results))
    missing = [video_id for video_id in every if video_id not in in_all]
    if not missing:
        return every, []
    note = (
        f"{len(missing)} videos are not in every row's cache and count in none, "
        f"{missing[0]!r} first."
    )
    return [video_id for video_id in every if video_id in in_all], [note]


def _row(config: AblationConfig, each: _Result, reference: _Result | None) -> dict[str, Any]:
    run = each.cell.config
    is_baseline = each.cell.kind == "baseline"
    row: dict[str, Any] = {
        "name": each.cell.name,
        "kind": each.cell.kind,
        "encoder": " + ".join(spec.encoder for spec in each.specs),
        "weights": " + ".join(spec.weights for spec in each.specs),
        "aggregator": aggregator_names(run.aggregator),
        "head": run.head,
        "seeds": [] if is_baseline else list(run.seeds),
    }
    for metric in ("plcc", "srocc", "mse"):
        row[metric] = getattr(each.metrics, metric)
    for metric in ("plcc", "srocc", "mse"):
        row[f"{metric}_std"] = None if is_baseline else getattr(each.metrics, f"{metric}_std")
        row[f"{metric}_interval"] = getattr(each.metrics, f"{metric}_interval")
    row["undefined"] = each.metrics.undefined
    row["versus"] = None
    if reference is not None and reference is not each:
        difference = paired_difference(
            each.truth, each.predictions, reference.predictions, bootstrap=run.bootstrap
        )
        row["versus"] = {"srocc": difference.value, "interval": difference.interval}
    row["frames_kept"] = each.frames_kept
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
