"""Training on every dataset, evaluating on every one, and writing the table."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from memfeat.ablation import Cell, missing_caches, train_cells
from memfeat.ablation.progress import OnProgress
from memfeat.config import TransferConfig
from memfeat.errors import MemfeatError
from memfeat.runs import Run
from memfeat.storage import write_json
from memfeat.transfer.pairs import Target, evaluate_pair, pair_folder
from memfeat.transfer.planning import caches_of, require_alike

RESULT = "transfer.json"


def run_transfer(
    config: TransferConfig, cells: Sequence[Cell], *, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Train what is not trained yet, evaluate every pair, and write and return the table.

    A pair that fails, or a cache of which is not there, is listed and costs the others nothing.
    Stop it at any time: finished seeds are kept.

    Each figure is the mean over seeds; `*_std` is their spread over seeds, `*_interval` the 95 %
    bootstrap interval of that mean over videos.

    Args:
        config: the datasets.
        cells: from `plan_cells`.
        on_progress: called as models train.

    Returns:
        What `transfer.json` holds.

    Raises:
        CacheError: the datasets' features were not made alike.
        OSError: a file cannot be written.
    """
    without_cache = {c.name: lacking for c in cells if (lacking := missing_caches(caches_of(c)))}
    there = [dataset for dataset in config.datasets if dataset.name not in without_cache]
    if there:
        require_alike(there)
    able = [cell for cell in cells if cell.name not in without_cache]
    errors = train_cells(able, config.run, config.workers, on_progress=on_progress)
    runs: dict[str, Run] = {}
    targets: dict[str, Target] = {}
    for cell, dataset in zip(able, there, strict=True):
        try:
            targets[cell.name] = Target.open(dataset)
            if cell.name not in errors:
                runs[cell.name] = Run.load(cell.config.run)
        except MemfeatError as error:
            errors.setdefault(cell.name, str(error))
    rows, failed = [], []
    for trained_on, evaluated_on in product((c.name for c in cells), repeat=2):
        names = trained_on, evaluated_on
        reason = _why_not(names, runs, targets, {**errors, **without_cache})
        if reason is None:
            folder = pair_folder(config.run, *names)
            try:
                found = evaluate_pair(
                    runs[trained_on], targets[evaluated_on], config.splits, folder
                )
                rows += [_named(config, names, row) for row in found]
            except MemfeatError as error:
                reason = str(error)
        if reason is not None:
            missing = not without_cache.keys().isdisjoint(names)
            pair = {"trained_on": trained_on, "evaluated_on": evaluated_on}
            failed.append({**pair, "error": reason, "missing_cache": missing})
    table = {
        "title": config.title,
        "datasets": {
            dataset.name: {
                "scores": list(targets[dataset.name].datasets),
                "manifest": str(dataset.manifest),
            }
            for dataset in there
            if dataset.name in targets
        },
        "splits": list(config.splits),
        "rows": rows,
        "failed": failed,
        "runs": {name: str(run.folder.relative_to(config.run)) for name, run in runs.items()},
        "sources": _sources(runs, targets),
        "notes": list(_notes(config, rows, targets)),
        "versions": _versions(runs),
    }
    write_json(config.run / RESULT, table)
    return table


def _why_not(
    names: tuple[str, str],
    runs: Mapping[str, Run],
    targets: Mapping[str, Target],
    errors: Mapping[str, str],
) -> str | None:
    """Say why a pair cannot be evaluated, or None if it can."""
    trained_on, evaluated_on = names
    reasons = [] if trained_on in runs else [errors[trained_on]]
    if evaluated_on not in targets:
        reasons.append(errors[evaluated_on])
    return "; ".join(dict.fromkeys(reasons)) or None


def _named(
    config: TransferConfig, names: tuple[str, str], row: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a row with its pair, and the paper's figures for it."""
    key = (*names, row["split"])
    figures = {(p.trained_on, p.evaluated_on, p.split): p for p in config.paper}.get(key)
    paper = figures and figures.model_dump(include={"plcc", "srocc", "mse"})
    return {"trained_on": names[0], "evaluated_on": names[1], **row, "paper": paper}


def _sources(runs: Mapping[str, Run], targets: Mapping[str, Target]) -> list[str]:
    features = dict.fromkeys(
        f"features: {spec.describe()}" for run in runs.values() for spec in run.specs
    )
    unknown = ("the manifest does not say",)
    scores = [f"scores of {t.name}: {', '.join(t.datasets or unknown)}" for t in targets.values()]
    control = [
        "CONTROL: trained on shuffled scores, so that nothing could be learnt"
        for run in runs.values()
        if run.config.shuffle_labels
    ]
    return [*features, *scores, *control[:1]]


def _notes(
    config: TransferConfig, rows: Sequence[Mapping[str, Any]], targets: Mapping[str, Target]
) -> Iterator[str]:
    """Explain in words what a reader might overlook, or take for an error."""
    for target in targets.values():
        yield from (f"{target.name}: {note}." for note in target.notes)
        reported = {row["split"] for row in rows if row["evaluated_on"] == target.name}
        for split in config.splits:
            if rows and split not in reported:
                yield f"{target.name} has no scores in its {split} split, so it has no row."
        if rows and not any(r.split == "train" and r.score is not None for r in target.records):
            yield f"{target.name} has no scored training part to fit a recalibration on."
    for row in rows:
        if row["undefined"]:
            pair = f"{row['trained_on']} to {row['evaluated_on']}, {row['split']}"
            yield f"{pair}: no correlation: {row['undefined']}."


def _versions(runs: Mapping[str, Run]) -> dict[str, Any]:
    return next((dict(run.provenance.get("versions", {})) for run in runs.values()), {})
