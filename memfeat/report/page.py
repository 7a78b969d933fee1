"""The content of a report, gathered from a run, a grid or a transfer."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from memfeat.config import aggregator_names
from memfeat.errors import RunError, counted
from memfeat.figures.plots import IntervalRow, intervals, learning_curves
from memfeat.figures.style import inline_svg
from memfeat.manifest import Split
from memfeat.report.choices import in_words
from memfeat.report.exploring import Exploration, System, on_shared_videos
from memfeat.report.results import PairRow, Pairs, Row, Table, of_split, read_result
from memfeat.report.scatter import Scatter
from memfeat.report.showing import MOST_TIMELINES, Gallery, Shown, Timelines, explored
from memfeat.report.videos import MOST_PICTURES, SHOWN
from memfeat.runs import (
    ABLATION,
    IN_FOLDS,
    PREDICTIONS,
    TRANSFER,
    Run,
    is_complete,
    pair_folder,
    split_in_words,
)
from memfeat.runs.files import table_path

BEST_SYSTEMS = 3  # of a grid, whose predictions are drawn
SHOWN_OF_PAIR = 3  # videos
SPLIT_ORDER = ("test", "folds", "dev", "train")  # the order in which a run shows them


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Page:
    """What the template shows: `table` for a grid, `pairs` for a transfer, `splits` for a run.

    Attributes:
        rows: of a table, by place: the number of its system among those explored.
    """

    title: str
    sources: tuple[str, ...]
    runs: tuple[Run, ...]
    table: Table | None = None
    pairs: Pairs | None = None
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overview: Picture | None = None
    scatters: tuple[Scatter, ...] = ()
    curves: tuple[Picture, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)
    exploration: Exploration = field(default_factory=Exploration)
    rows: Mapping[int, int] = field(default_factory=dict)
    explained: tuple[str, ...] = ()

    @property
    def pictured(self) -> list[tuple[str, int, int]]:
        """Of each set of videos its name, how many have a picture, and how many there are."""
        own, frames = self.exploration.systems, self.exploration.frames
        sizes = {system.videos: len(system.predictions.video_id) for system in own}
        return [
            (
                name,
                sum(frame.thumbnail is not None for frame in frames.get(name, {}).values()),
                size,
            )
            for name, size in sizes.items()
        ]

    @property
    def is_cut(self) -> bool:
        """Whether videos were left out to keep the page small."""
        return any(size > min(MOST_PICTURES, MOST_TIMELINES) for _, _, size in self.pictured)


def page_of(folder: Path, split: Split | None = None, timelines: Timelines | None = None) -> Page:
    """Gather the page of a result folder; of a grid, the table of `split`, or its only one.

    Raises:
        RunError: it is no result, or incomplete or damaged.
    """
    if (folder / ABLATION).is_file():
        return _page_of_grid(folder, table_path(folder, ABLATION, split), timelines)
    if split:
        raise RunError(f"{folder} holds no grid, whose table of a split --split could choose")
    if (folder / TRANSFER).is_file():
        return _page_of_transfer(folder, timelines)
    return _page_of_run(Run.load(folder), timelines)


def _page_of_run(run: Run, timelines: Timelines | None) -> Page:
    splits = [split for split in SPLIT_ORDER if split in run.metrics]
    name = f"{aggregator_names(run.config.aggregator)} + {run.config.head}"
    versions = run.provenance.get("versions", {})
    others = {key: value for key, value in run.provenance.items() if key != "versions"}
    best = others.pop("best_epoch", None)
    if best is not None:
        others["best epoch, from 1"] = [n + 1 for n in best] if isinstance(best, list) else best + 1
    stopped = others.get("stopped_because")
    if isinstance(stopped, list):  # of each model, and most are alike
        others["stopped_because"] = {
            why: counted(count, "model") for why, count in Counter(stopped).items()
        }
    systems = [
        System.of(f"{name}, {split_in_words(split)}", split, split, [run.folder], run)
        for split in splits
    ]
    shown = [
        Shown(
            own,
            SHOWN if own is systems[0] else 0,
            run.config.manifest,
            f"{of_split(split)} that {name}",
        )
        for own, split in zip(systems, splits, strict=True)
    ]
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
        curves=_curves(run, name),
        versions={key: in_words(value) for key, value in {**versions, **others}.items()},
        **explored(systems, range(len(systems)), shown, timelines),
    )


def _page_of_grid(folder: Path, path: Path, timelines: Timelines | None) -> Page:
    if not path.is_file():
        raise RunError(f"there is no {path}; `memfeat ablation` with that --split writes it")
    table = read_result(path, Table)
    runs = {
        row.name: Run.load(folder / row.run)
        for row in table.rows
        if row.kind != "baseline" and is_complete(folder / row.run)
    }
    rows = [row for row in table.ranked if (folder / row.run / PREDICTIONS).is_file()]
    systems = on_shared_videos([_system_of(folder, row, table.split, runs) for row in rows])
    drawn = [
        place for place, row in enumerate(rows) if row.kind != "control" and row.srocc is not None
    ]
    best = table.best_model
    shown = []
    if best and best.name in runs:
        own = next(system for system in systems if system.name == best.name)
        words = f"{of_split(table.split)} that {best.name}"
        shown = [Shown(own, SHOWN, runs[best.name].config.manifest, words)]
    places = {row.name: place for place, row in enumerate(rows)}
    bootstrap = min((run.config.bootstrap for run in runs.values()), default=0)
    return Page(
        title=table.title,
        sources=table.sources,
        runs=tuple(runs.values()),
        table=table,
        notes=table.notes,
        overview=_overview(table),
        curves=_curves(runs[best.name], best.name) if best and best.name in runs else (),
        versions=table.versions,
        rows={n: places[row.name] for n, row in enumerate(table.ranked) if row.name in places},
        **explored(systems, drawn[:BEST_SYSTEMS], shown, timelines, bootstrap),
    )


def _system_of(folder: Path, row: Row, split: str, runs: Mapping[str, Run]) -> System:
    run = runs.get(row.name)
    members = run.members if run and len(run.members) > 1 else ()
    return System.of(row.name, split, split, [folder / row.run, *members], run)


def _page_of_transfer(folder: Path, timelines: Timelines | None) -> Page:
    pairs = read_result(folder / TRANSFER, Pairs)
    models = {
        name: Run.load(folder / run) for name, run in pairs.runs.items() if (folder / run).is_dir()
    }
    rows = [row for row in pairs.rows if (_folder_of(folder, row) / PREDICTIONS).is_file()]
    systems = on_shared_videos(
        [
            System.of(
                f"{row.pair}, {row.split} split",
                f"{row.evaluated_on}, {row.split} split",
                row.split,
                [_folder_of(folder, row)],
                models.get(row.trained_on) if row.trained_on == row.evaluated_on else None,
            )
            for row in rows
        ]
    )
    drawn = sorted(range(len(rows)), key=lambda place: pairs.splits.index(rows[place].split))
    first = {rows[place].pair: place for place in reversed(drawn)}
    shown = [
        Shown(
            systems[place],
            SHOWN_OF_PAIR if first[row.pair] == place else 0,
            pairs.datasets[row.evaluated_on].manifest,
            f"of {row.evaluated_on}'s {row.split} split that the model of {row.trained_on}",
            row.pair,
        )
        for place in drawn
        for row in (rows[place],)
    ]
    bootstrap = min((run.config.bootstrap for run in models.values()), default=0)
    return Page(
        title=pairs.title,
        sources=pairs.sources,
        runs=tuple(models.values()),
        pairs=pairs,
        notes=pairs.notes,
        versions=pairs.versions,
        rows={n: rows.index(row) for n, row in enumerate(pairs.rows) if row in rows},
        **explored(systems, drawn, shown, timelines, bootstrap),
    )


def _folder_of(folder: Path, row: PairRow) -> Path:
    return pair_folder(folder, row.trained_on, row.evaluated_on)


def _curves(run: Run, name: str) -> tuple[Picture, ...]:
    """Draw the errors of a run's models after each epoch; there are none of a baseline."""
    histories = run.histories()
    if not histories:
        return ()
    models = counted(len(histories), "model")
    words = f"Learning curves of {name}: mean absolute error after each epoch of {models}"
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
    where = "between folds" if table.split == IN_FOLDS else f"on the {table.split} split"
    label = f"SROCC {where}"
    ceiling = table.attainable
    figure = intervals(
        rows,
        label=label,
        ceiling=ceiling.srocc if ceiling else None,
        ceiling_interval=ceiling.srocc_interval if ceiling else None,
    )
    description = (
        f"{label} of {counted(len(rows), 'system')} with 95 % intervals; the table has the numbers"
    )
    return Picture(Markup(inline_svg(figure, description, "overview")), label)  # noqa: S704
