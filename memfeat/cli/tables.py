"""Results as tables on stdout, each with the sources of its features and scores.

In a terminal a table loses its least important columns until it fits, and says so; in a file or a
pipe it is whole.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from shutil import get_terminal_size
from typing import Any, NamedTuple

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memfeat.cli.options import say
from memfeat.errors import counted
from memfeat.runs import IN_FOLDS, split_in_words

WHOLE = 10_000  # columns: more than any table takes
BETWEEN_FOLDS = split_in_words(IN_FOLDS)
NARROWEST_NAME = 16  # columns, below which other columns go rather than fold names
CEILINGS = {"ceiling": "ceiling", "ceiling from people": "split_half"}


def print_metrics(
    metrics: Mapping[str, Mapping[str, Any]], title: str, sources: Sequence[str]
) -> None:
    """Print a line for each split and fold: PLCC, SROCC and MSE, with spread and interval."""
    columns = [Column("split"), Column("videos", 3), Column("PLCC", 1), Column("SROCC")]
    rows: list[Row] = []
    for split, values in metrics.items():
        per_fold = values.get("per_fold", [])
        named = [(f"fold {each['fold']}", each) for each in per_fold]
        for name, own in [*named, (BETWEEN_FOLDS if split == IN_FOLDS else split, values)]:
            figures = [_figure(own, metric) for metric in ("plcc", "srocc", "mse")]
            rows.append([name, str(own["n"]), *figures])
        rows += [None] if per_fold else []
    _print(title, [*columns, Column("MSE", 2)], rows)
    for split, values in metrics.items():
        if values.get("undefined"):
            click.echo(f"  {split}: no correlation: {values['undefined']}")
    pooled = metrics.get(IN_FOLDS)
    over = "groups of videos" if pooled and pooled.get("groups") else "videos"
    lines = [f"[low, high]: 95 % bootstrap interval over {over}"]
    lines += [f"{BETWEEN_FOLDS}: each video by the model that did not see it"] if pooled else []
    _print_lines([*lines, *sources])


def print_ablation(result: Mapping[str, Any]) -> None:
    """Print an ablation's rows, best first, with the ceiling, the notes and the sources."""
    between_folds = result["split"] == IN_FOLDS
    where = split_in_words(result["split"])
    title = f"{result['title']}: {where}, {counted(result['n'], 'video')}"
    with_paper = any(row["paper"] for row in result["rows"])
    sampled = any(row["frames_kept"] < 1 for row in result["rows"])
    reference = result["reference"]
    against = "best" if reference == result["best"] else reference
    columns = [Column("system"), Column("PLCC", 3), Column("SROCC"), Column("MSE", 4)]
    columns += [Column(f"SROCC minus {against}", 1)] + [Column("frames kept", 2)] * sampled
    columns += [Column("SROCC of folds", 3)] * between_folds
    columns += [Column("paper PLCC", 5), Column("SROCC", 5)] * with_paper
    rows: list[Row] = []
    for row in result["rows"]:
        name = row["name"] if row["kind"] == "model" else f"{row['name']} ({row['kind']})"
        figures = [_figure(row, metric) for metric in ("plcc", "srocc", "mse")]
        paper = row["paper"] or {}
        is_reference = row["name"] == reference
        own = "best" if reference == result["best"] else "reference"
        cells = [name, *figures, own if is_reference else _difference(row["versus"])]
        cells += [f"{row['frames_kept']:.1%}"] * sampled
        cells += [_spread_of(row["per_fold"])] if between_folds else []
        cells += [_number(paper.get(m)) for m in ("plcc", "srocc")] if with_paper else []
        rows.append(cells)
    ceilings = {name: result[key] for name, key in CEILINGS.items() if result[key]}
    for name, ceiling in ceilings.items():
        figures = [_figure(ceiling, metric) for metric in ("plcc", "srocc", "mse")]
        rows += [None, [name, *figures]]
    _print(title, columns, rows)
    over = "groups of videos" if result.get("groups") else "videos"
    legend = [f"mean ±spread over seeds [low, high]: 95 % bootstrap interval over {over}"]
    legend += ["SROCC of folds: mean and standard deviation of each fold's own"] * between_folds
    legend += [f"{name}: {ceiling['what']}" for name, ceiling in ceilings.items()]
    _print_lines([*legend, *result["sources"], *result["notes"]])
    for failed in result["failed"]:
        say(f"failed: {failed['name']}: {failed['error']}")


def print_transfer(result: Mapping[str, Any]) -> None:
    """Print a line for each pair of datasets and split, with the notes and the sources."""
    with_paper = any(row["paper"] for row in result["rows"])
    columns = [Column("trained on"), Column("evaluated on"), Column("split"), Column("videos", 5)]
    columns += [Column("PLCC", 4), Column("SROCC"), Column("bias", 3), Column("MSE", 2)]
    columns += [Column("recalibrated", 1)]
    columns += [Column(name, 6) for name in ("paper PLCC", "SROCC", "MSE") if with_paper]
    rows: list[Row] = []
    before = None
    for row in result["rows"]:
        pair = row["trained_on"], row["evaluated_on"]
        if before not in (None, pair[0]):
            rows.append(None)
        before = pair[0]
        fitted, paper = row["recalibrated"] or {}, row["paper"] or {}
        cells = [*pair, row["split"], str(row["n"])]
        cells += [_figure(row, metric) for metric in ("plcc", "srocc")]
        cells += [f"{row['bias']:+.3f}", _figure(row, "mse"), _figure(fitted, "mse")]
        if with_paper:
            cells += [_number(paper.get("plcc")), _number(paper.get("srocc"))]
            cells += [_number(paper.get("mse"), digits=4)]
        rows.append(cells)
    _print(result["title"], columns, rows)
    legend = [
        "mean ±spread over seeds [low, high]: 95 % bootstrap interval over videos",
        "bias: mean of prediction minus score; its square is part of the MSE",
        "recalibrated: MSE after a * prediction + b, fitted on the target's training part, which "
        "within a dataset the model has seen",
    ]
    _print_lines([*legend, *result["sources"], *result["notes"]])
    for failed in result["failed"]:
        pair_name = f"{failed['trained_on']} to {failed['evaluated_on']}"
        say(f"failed: {pair_name}: {failed['error']}")


class Column(NamedTuple):
    """A column of a table; of those with a `rank` the highest goes first where room is short."""

    name: str
    rank: int = 0


Row = Sequence[str] | None  # None is a line between sections


def _print(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    width = get_terminal_size().columns if sys.stdout.isatty() else WHOLE
    kept = _that_fit(columns, rows, width)
    table = Table(
        title=escape(title),
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(columns[0].name, overflow="fold", no_wrap=width == WHOLE)
    for at in kept[1:]:
        table.add_column(columns[at].name, justify="right", no_wrap=True)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(escape(row[at]) for at in kept if at < len(row)))
    console = Console(highlight=False, width=width)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))
    left_out = [column.name for at, column in enumerate(columns) if at not in kept]
    if left_out:
        say(f"left out, for the terminal has {width} columns: {', '.join(left_out)}")


def _that_fit(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[int]:
    """Return the indices of the columns that fit into `width`, the first one folded if need be."""

    def needed(at: int) -> int:
        cells = [columns[at].name, *(row[at] for row in rows if row and at < len(row))]
        widest = max(map(cell_len, cells))
        return 1 + (min(widest, NARROWEST_NAME) if at == 0 else widest)

    kept = list(range(len(columns)))
    while sum(map(needed, kept)) > width and any(columns[at].rank for at in kept):
        kept.remove(max(reversed(kept), key=lambda at: columns[at].rank))
    return kept


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(f"  {line}")


def _figure(values: Mapping[str, Any], metric: str) -> str:
    if metric == "mse":
        return _number(values.get(metric), digits=4)
    text = _number(values[metric])
    spread = values.get(f"{metric}_std")
    interval = values.get(f"{metric}_interval") if metric == "srocc" else None
    if spread is not None:
        text += f" ±{_number(spread)}"
    if interval is not None:
        text += f" [{_number(interval[0])}, {_number(interval[1])}]"
    return text


def _spread_of(values: Sequence[float | None]) -> str:
    """Return the mean and standard deviation of those that are defined."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return _number(None)
    return f"{_number(statistics.mean(known))} ±{_number(statistics.stdev(known))}"


def _difference(versus: Mapping[str, Any] | None) -> str:
    if versus is None:
        return _number(None)
    if versus["interval"] is None:
        return _number(versus["srocc"])
    low, high = versus["interval"]
    return f"{versus['srocc']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _number(value: float | None, *, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
