"""The page: gathers what a run or a grid has to show, and renders it with the template."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import memfeat
from memfeat.ablation import RESULT
from memfeat.config import aggregator_names
from memfeat.figures import IntervalRow, inline_svg, intervals, is_loud
from memfeat.report import choices
from memfeat.report.format import FILTERS
from memfeat.report.pairs import of_transfer
from memfeat.report.parts import Gallery, Page, Picture, scatter_of
from memfeat.report.table import Table, read_table
from memfeat.report.worst import known_records, worst_videos
from memfeat.runs import METRICS, PREDICTIONS, Run, read_predictions
from memfeat.storage import write_atomically
from memfeat.transfer import RESULT as TRANSFER

SHOWN = 3  # systems whose predictions are drawn
_UNSEEN = ("test", "dev", "train")  # the splits, the most telling first


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write one HTML page that needs nothing but itself.

    Args:
        folder: a run, of one seed or several; an ablation, which holds `ablation.json`; or a
            transfer, which holds `transfer.json`.
        output: the page; by default `report.html` in `folder`.

    Returns:
        Where the page is.

    Raises:
        RunError: the folder is none of these, or incomplete or damaged.
        OSError: the page cannot be written.
    """
    output = folder / "report.html" if output is None else output
    write_atomically(output, _render(_page_of(folder)).encode())
    return output


def _page_of(folder: Path) -> Page:
    if (folder / RESULT).is_file():
        return _of_grid(folder)
    if (folder / TRANSFER).is_file():
        return of_transfer(folder)
    return _of_run(Run.load(folder))


def _render(page: Page) -> str:
    environment = Environment(
        loader=PackageLoader("memfeat"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    template = environment.get_template("report.html.j2")
    return template.render(
        page=page,
        loud=[line for line in page.sources if is_loud(line)],
        quiet=[line for line in page.sources if not is_loud(line)],
        ours=choices.our_choices(page.runs),
        settings=choices.settings(page.runs),
        features=choices.features(page.runs),
        version=memfeat.__version__,
    )


def _of_grid(folder: Path) -> Page:
    table = read_table(folder / RESULT)
    runs = {
        row.name: Run.load(folder / row.run)
        for row in table.rows
        if row.kind != "baseline" and (folder / row.run / METRICS).is_file()
    }
    systems = [row for row in table.ranked if row.kind != "control" and row.srocc is not None]
    scatters = []
    for place, row in enumerate(systems[:SHOWN]):
        path = folder / row.run / PREDICTIONS
        if path.is_file():
            scatters.append(scatter_of(read_predictions(path), table.split, row.name, f"s{place}"))
    page = Page(
        title=table.title,
        sources=table.sources,
        runs=tuple(runs.values()),
        table=table,
        notes=table.notes,
        overview=_overview(table),
        scatters=tuple(scatters),
        versions=table.versions,
    )
    best = table.best_model
    if best is None or best.name not in runs:
        return page
    return _with_worst(page, best.name, runs[best.name], table.split)


def _of_run(run: Run) -> Page:
    splits = [split for split in _UNSEEN if split in run.metrics]
    predictions = run.predictions()
    name = f"{aggregator_names(run.config.aggregator)} + {run.config.head}"
    encoders = " + ".join(spec.encoder for spec in run.specs)
    page = Page(
        title=f"{name} on {encoders}",
        sources=tuple(run.sources()),
        runs=(run,),
        splits={split: run.metrics[split] for split in splits},
        notes=tuple(
            f"{split}: no correlation, because {run.metrics[split]['undefined']}."
            for split in splits
            if run.metrics[split].get("undefined")
        ),
        scatters=tuple(
            scatter_of(predictions, split, f"{name}, {split} split", split) for split in splits
        ),
        versions=_flat(run.provenance),
    )
    return _with_worst(page, name, run, splits[0]) if splits else page


def _with_worst(page: Page, name: str, run: Run, split: str) -> Page:
    records, note = known_records(run.config.manifest)
    worst = tuple(worst_videos(run.predictions(), split, records))
    gallery = Gallery(f"of the {split} split that {name}", worst, note)
    return replace(page, worst=(gallery,) if worst else ())


def _flat(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return provenance with its versions among the rest, all as text."""
    versions = provenance.get("versions", {})
    rest = {name: value for name, value in provenance.items() if name != "versions"}
    return {name: choices.words(value) for name, value in {**versions, **rest}.items()}


def _overview(table: Table) -> Picture:
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
