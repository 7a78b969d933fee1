"""The content of a report, gathered from a run, a grid or a transfer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from markupsafe import Markup

from memfeat.config import aggregator_names
from memfeat.errors import RunError
from memfeat.figures.plots import IntervalRow, intervals, learning_curves, scatter
from memfeat.figures.style import inline_svg
from memfeat.manifest import Split
from memfeat.report.choices import in_words
from memfeat.report.results import PairRow, Pairs, Table, read_result
from memfeat.report.worst import WorstVideo, known_records, worst_videos
from memfeat.runs import (
    ABLATION,
    PREDICTIONS,
    TRANSFER,
    Predictions,
    Run,
    is_complete,
    pair_folder,
    read_predictions,
)
from memfeat.runs.files import table_path

BEST_SYSTEMS = 3  # of a grid, whose predictions are drawn
WORST_OF_PAIR = 3  # videos
SPLIT_ORDER = ("test", "folds", "dev", "train")  # the order in which a run shows them


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Gallery:
    """The worst predictions of one model on one split.

    Attributes:
        words: which they are, to follow "The videos" and precede "is most wrong about".
        videos: the worst first.
        note: why they cannot be shown, or empty.
        heading: empty where there is one gallery alone.
    """

    words: str
    videos: tuple[WorstVideo, ...]
    note: str
    heading: str = ""


@dataclass(frozen=True)
class Page:
    """What the template shows: `table` for a grid, `pairs` for a transfer, `splits` for a run."""

    title: str
    sources: tuple[str, ...]
    runs: tuple[Run, ...]
    table: Table | None = None
    pairs: Pairs | None = None
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overview: Picture | None = None
    scatters: tuple[Picture, ...] = ()
    curves: tuple[Picture, ...] = ()
    worst: tuple[Gallery, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)


def page_of(folder: Path, split: Split | None = None) -> Page:
    """Gather the page of a result folder; of a grid, the table of `split`, or its only one.

    Raises:
        RunError: it is no result, or incomplete or damaged.
    """
    if (folder / ABLATION).is_file():
        return _page_of_grid(folder, table_path(folder, ABLATION, split))
    if split:
        raise RunError(f"{folder} holds no grid, whose table of a split --split could choose")
    if (folder / TRANSFER).is_file():
        return _page_of_transfer(folder)
    return _page_of_run(Run.load(folder))


def _page_of_run(run: Run) -> Page:
    splits = [split for split in SPLIT_ORDER if split in run.metrics]
    predictions = run.predictions()
    name = f"{aggregator_names(run.config.aggregator)} + {run.config.head}"
    versions = run.provenance.get("versions", {})
    others = {key: value for key, value in run.provenance.items() if key != "versions"}
    best = others.pop("best_epoch", None)
    if best is not None:
        others["best epoch, from 1"] = [n + 1 for n in best] if isinstance(best, list) else best + 1
    return Page(
        title=f"{name} on {' + '.join(spec.encoder for spec in run.specs)}",
        sources=tuple(run.sources()),
        runs=(run,),
        splits={split: run.metrics[split] for split in splits},
        notes=(
            *(
                f"{split}: no correlation, because {run.metrics[split]['undefined']}."
                for split in splits
                if run.metrics[split].get("undefined")
            ),
            *(f"{warning[0].upper()}{warning[1:]}." for warning in run.warnings()),
        ),
        scatters=tuple(
            _scatter(predictions, split, f"{name}, {split} split", split) for split in splits
        ),
        curves=_curves(run, name),
        worst=_worst_of(run, name, splits[0]) if splits else (),
        versions={key: in_words(value) for key, value in {**versions, **others}.items()},
    )


def _page_of_grid(folder: Path, path: Path) -> Page:
    if not path.is_file():
        raise RunError(f"there is no {path}; `memfeat ablation` with that --split writes it")
    table = read_result(path, Table)
    runs = {
        row.name: Run.load(folder / row.run)
        for row in table.rows
        if row.kind != "baseline" and is_complete(folder / row.run)
    }
    systems = [row for row in table.ranked if row.kind != "control" and row.srocc is not None]
    scatters = [
        _scatter(read_predictions(path), table.split, row.name, f"s{place}")
        for place, row in enumerate(systems[:BEST_SYSTEMS])
        if (path := folder / row.run / PREDICTIONS).is_file()
    ]
    best = table.best_model
    return Page(
        title=table.title,
        sources=table.sources,
        runs=tuple(runs.values()),
        table=table,
        notes=table.notes,
        overview=_overview(table),
        scatters=tuple(scatters),
        curves=_curves(runs[best.name], best.name) if best and best.name in runs else (),
        worst=_worst_of(runs[best.name], best.name, table.split)
        if best and best.name in runs
        else (),
        versions=table.versions,
    )


def _page_of_transfer(folder: Path) -> Page:
    pairs = read_result(folder / TRANSFER, Pairs)
    predictions: dict[str, Predictions] = {}
    for row in pairs.rows:
        path = pair_folder(folder, row.trained_on, row.evaluated_on) / PREDICTIONS
        if row.pair not in predictions and path.is_file():
            predictions[row.pair] = read_predictions(path)
    drawn = [
        row
        for split, row in product(pairs.splits, pairs.rows)
        if row.split == split and row.pair in predictions
    ]
    runs = [folder / name for name in pairs.runs.values()]
    return Page(
        title=pairs.title,
        sources=pairs.sources,
        runs=tuple(Run.load(run) for run in runs if run.is_dir()),
        pairs=pairs,
        notes=pairs.notes,
        scatters=tuple(
            _scatter(
                predictions[row.pair], row.split, f"{row.pair}, {row.split} split", f"p{place}"
            )
            for place, row in enumerate(drawn)
        ),
        worst=tuple(_worst_of_pairs(pairs, drawn, predictions)),
        versions=pairs.versions,
    )


def _scatter(predictions: Predictions, split: str, name: str, key: str) -> Picture:
    """Draw a split's truth against prediction; `key` keeps the figures' ids apart."""
    chosen = predictions.scored(split)
    truth, predicted = predictions.score[chosen], predictions.prediction[chosen]
    figure = scatter(truth, predicted, title=name)
    description = f"Scatter plot of {name}: measured against predicted score of {len(truth)} videos"
    return Picture(Markup(inline_svg(figure, description, key)), name)  # noqa: S704


def _curves(run: Run, name: str) -> tuple[Picture, ...]:
    """Draw the errors of a run's models after each epoch; there are none of a baseline."""
    histories = run.histories()
    if not histories:
        return ()
    words = (
        f"Learning curves of {name}: mean absolute error after each epoch of {len(histories)} seeds"
    )
    figure = learning_curves(histories)
    return (Picture(Markup(inline_svg(figure, words, "curves")), name),)  # noqa: S704


def _overview(table: Table) -> Picture:
    """Draw the SROCC of a grid's systems with their intervals."""
    rows = [
        IntervalRow(
            name=row.name,
            kind=row.kind,
            value=row.srocc,
            interval=row.srocc_interval,
            paper=row.paper.srocc if row.paper else None,
        )
        for row in table.ranked
    ]
    label = f"SROCC on the {table.split} split"
    ceiling = table.attainable
    figure = intervals(
        rows,
        label=label,
        ceiling=ceiling.srocc if ceiling else None,
        ceiling_interval=ceiling.srocc_interval if ceiling else None,
    )
    description = f"{label} of {len(rows)} systems with 95 % intervals; the table has the numbers"
    return Picture(Markup(inline_svg(figure, description, "overview")), label)  # noqa: S704


def _worst_of(run: Run, name: str, split: str) -> tuple[Gallery, ...]:
    records, note = known_records(run.config.manifest)
    worst = tuple(worst_videos(run.predictions(), split, records))
    return (Gallery(f"of the {split} split that {name}", worst, note),) if worst else ()


def _worst_of_pairs(
    pairs: Pairs, drawn: Sequence[PairRow], predictions: Mapping[str, Predictions]
) -> list[Gallery]:
    """Return each pair's worst videos, of the first split that is drawn."""
    manifests = {name: known_records(d.manifest) for name, d in pairs.datasets.items()}
    first = {row.pair: row for row in reversed(drawn)}
    galleries = []
    for row in (row for row in drawn if first[row.pair] is row):
        records, note = manifests.get(row.evaluated_on, ({}, ""))
        found = worst_videos(predictions[row.pair], row.split, records, count=WORST_OF_PAIR)
        words = f"of {row.evaluated_on}'s {row.split} split that the model of {row.trained_on}"
        galleries.append(Gallery(words, tuple(found), note, heading=row.pair))
    return galleries
