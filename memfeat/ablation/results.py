"""The table of a grid: its finished runs with intervals, spreads and paired comparisons."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from memfeat.ablation.grid import Cell, cell_folder, control_name
from memfeat.cache import Cache, CacheSpec
from memfeat.config import AblationConfig, Ensemble, aggregator_names
from memfeat.errors import MemfeatError, RunError
from memfeat.manifest import VideoRecord, read_manifest
from memfeat.metrics import (
    METRICS,
    Metrics,
    evaluate,
    known_ceiling,
    paired_difference,
    split_half_ceiling,
)
from memfeat.runs import (
    NO_SOURCE,
    PREDICTIONS,
    PROVENANCE,
    Predictions,
    Run,
    format_predictions,
    read_object,
    read_predictions,
    seed_folder,
)
from memfeat.storage import Location, write_atomically
from memfeat.training import select_records

NONE: Mapping[Any, str] = {}


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
        """Return the result for these videos, in this order."""
        index_of = {video_id: index for index, video_id in enumerate(self.video_ids)}
        chosen = [index_of[video_id] for video_id in video_ids]
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
    """Return the content of `ablation.json`, from the cells' run folders.

    Each figure is the mean over seeds; `*_std` is its standard deviation over seeds, `*_interval`
    the 95 % bootstrap interval of that mean over videos, and `versus` the paired difference in
    SROCC from the reference with its interval. The reference is the row that the grid names, or
    else the best. `frames_kept` is the share of frames that samplers kept. `errors` of cells that
    failed, and of those `without_cache`, are messages by name.
    """
    open_cache = cache(Cache.open)  # which many cells share
    results: list[_Result] = []
    failed = {**without_cache, **errors}
    for cell in cells:
        if cell.name not in failed:
            try:
                results.append(_read(config, cell, open_cache))
            except MemfeatError as error:
                failed[cell.name] = str(error)
    for ensemble in config.ensembles:
        gone = [name for name in ensemble.members if name in failed]
        if gone:
            failed[ensemble.name] = f"its member {gone[0]!r} has no result"
        else:
            results.append(_average(config, ensemble, results))
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
    features = dict.fromkeys(f"features: {s.describe()}" for each in scored for s in each.specs)
    datasets = ", ".join(manifest.datasets) or NO_SOURCE
    folders = dict.fromkeys(folder for each in scored for folder in each.cell.config.cache)
    selected = dict.fromkeys(
        note for folder in folders for note in select_records(manifest, open_cache(folder)).notes
    )
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
        **_ceilings(records, cells[0].config.bootstrap),
        "sources": [*features, f"scores: {datasets}"],
        "notes": [
            *left_out,
            *(f"{note}." for note in selected),
            *_notes(config, rows, scored, best),
        ],
        "versions": dict(scored[0].provenance.get("versions", {})) if scored else {},
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


def _average(config: AblationConfig, ensemble: Ensemble, results: Sequence[_Result]) -> _Result:
    """Average rows, write the predictions for all videos that all of them have, and return it."""
    named = {result.cell.name: result for result in results}
    members = [named[name] for name in ensemble.members]
    columns = [_predictions(member.cell) for member in members]
    in_all = set(columns[0].video_id).intersection(*(each.video_id for each in columns))
    ids = [video_id for video_id in columns[0].video_id if video_id in in_all]
    every = [each.of(ids) for each in columns]
    stacked = np.stack([each.prediction for each in every])
    weights = np.full(len(members), 1 / len(members))
    if ensemble.weights == "dev":
        dev = every[0].scored("dev")
        fitted, _ = nnls(stacked[:, dev].T, every[0].score[dev])
        weights = fitted / fitted.sum() if fitted.sum() else weights
    predictions = every[0]._replace(prediction=weights @ stacked)
    run = members[0].cell.config.model_copy(update={"run": cell_folder(config, ensemble.name)})
    write_atomically(run.run / PREDICTIONS, format_predictions(predictions))
    chosen = predictions.scored(config.split)
    return _Result(
        Cell(ensemble.name, "ensemble", run),
        tuple(dict.fromkeys(spec for member in members for spec in member.specs)),
        min(member.frames_kept for member in members),
        tuple(np.array(ids, dtype=object)[chosen]),
        predictions.score[chosen],
        predictions.prediction[None, chosen],
        {"members": dict(zip(ensemble.members, weights.round(3).tolist(), strict=True))},
    )


def _predictions(cell: Cell) -> Predictions:
    """Read a finished cell's predictions of all videos, the mean over seeds."""
    return read_predictions(cell.config.run / PREDICTIONS)


def _read(config: AblationConfig, cell: Cell, open_cache: Callable[[Location], Cache]) -> _Result:
    run = cell.config
    is_baseline = cell.kind == "baseline"
    folders = [run.run] if is_baseline else [seed_folder(run.run, run, s) for s in run.seeds]
    columns = [read_predictions(folder / PREDICTIONS) for folder in folders]
    first = columns[0]
    for folder, each in zip(folders, columns, strict=True):
        if each.video_id != first.video_id:
            raise RunError(f"{folder} predicts other videos than {folders[0]}; train again")
    chosen = first.scored(config.split)
    caches = [open_cache(folder) for folder in run.cache]
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
    """Return the share of all frames that is cached; a cached frame may stand for several."""
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
    run, metrics = each.cell.config, each.metrics
    trained = each.cell.kind in {"model", "control"}
    members = each.provenance.get("members")
    versus = None
    if reference is not None and reference is not each:
        difference = paired_difference(
            each.truth, each.predictions, reference.predictions, bootstrap=run.bootstrap
        )
        versus = {"srocc": difference.value, "interval": difference.interval}
    row: dict[str, Any] = {
        "name": each.cell.name,
        "kind": each.cell.kind,
        "encoder": " + ".join(spec.encoder for spec in each.specs),
        "weights": " + ".join(spec.weights for spec in each.specs),
        "aggregator": "average" if members else aggregator_names(run.aggregator),
        "head": " + ".join(members) if members else run.head,
        "seeds": list(run.seeds) if trained else [],
        **{name: getattr(metrics, name) for name in METRICS},
    }
    for name in METRICS:
        row[f"{name}_std"] = getattr(metrics, f"{name}_std") if trained else None
        row[f"{name}_interval"] = getattr(metrics, f"{name}_interval")
    return row | {
        "undefined": metrics.undefined,
        "versus": versus,
        "frames_kept": each.frames_kept,
        "paper": each.cell.paper.model_dump() if each.cell.paper else None,
        "parameters": each.provenance.get("parameters"),
        "seconds": each.provenance.get("seconds"),
        "run": str(run.run.relative_to(config.run)),
    }


def _notes(
    config: AblationConfig,
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[_Result],
    best: _Result | None,
) -> Iterator[str]:
    """Explain what a reader might overlook, or take for an error."""
    if rows and config.split == "dev":
        yield (
            "The dev split chose each model's epoch and each baseline's hyperparameters, so its "
            "figures are a little better than those of new videos."
        )
    if best is not None and config.reference in (None, best.cell.name) and len(rows) > 1:
        yield (
            f"{best.cell.name} was chosen as the best on these same videos, so differences from "
            "it lean against the others."
        )
    yield from _training_notes(results)
    for row in rows:
        if row["srocc"] is None:
            yield f"{row['name']} has no correlation: {row['undefined']}."
    known = [row for row in rows if row["srocc_interval"] is not None]
    lost = [row["name"] for row in known if row["kind"] != "control" and _includes_zero(row)]
    if lost:
        yield (
            f"The interval of {', '.join(lost)} includes zero: on these videos it cannot be "
            "distinguished from guessing."
        )
    lucky = [row["name"] for row in known if row["kind"] == "control" and not _includes_zero(row)]
    if lucky:
        yield (
            f"The interval of {', '.join(lucky)} excludes zero, though nothing could be learnt "
            "from shuffled labels: the interval covers the choice of videos, not that of random "
            "weights. Its value shows how large a correlation can be by chance here."
        )


def _training_notes(results: Sequence[_Result]) -> Iterator[str]:
    """Tell of models that were not trained to the end, or learnt no more than from noise."""
    named = {each.cell.name: each for each in results}
    for each in results:
        if members := each.provenance.get("members"):
            shares = ", ".join(f"{share:g} of {name}" for name, share in members.items())
            how = "" if len(set(members.values())) == 1 else ", weights fitted on the dev split"
            yield f"{each.cell.name} averages predictions: {shares}{how}."
        if each.cell.kind != "model":
            continue
        yield from (f"{each.cell.name}: {w}." for w in Run.load(each.cell.config.run).warnings())
        control = named.get(control_name(each.cell.name))
        if control is None:
            continue
        difference = paired_difference(
            each.truth, each.predictions, control.predictions, bootstrap=each.cell.config.bootstrap
        )
        if difference.interval is not None and difference.interval[0] <= 0:
            yield (
                f"{each.cell.name} does no better than its control, trained on shuffled scores: "
                f"the difference in SROCC is {difference.value:+.3f} "
                f"[{difference.interval[0]:+.3f}, {difference.interval[1]:+.3f}]."
            )


def _includes_zero(row: Mapping[str, Any]) -> bool:
    low, high = row["srocc_interval"]
    return bool(low <= 0 <= high)
