"""Results as tables on stdout, each with the sources of its features and scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memfeat.cli.options import say

WIDTH = 200  # lines longer than the terminal wrap instead of being cut
CEILINGS = {"ceiling": "ceiling", "ceiling from people": "split_half"}


def print_metrics(
    metrics: Mapping[str, Mapping[str, Any]], title: str, sources: Sequence[str]
) -> None:
    """Print one line per split: PLCC, SROCC and MSE, with spread and interval."""
    table = _table(title, "split", "videos", "PLCC", "SROCC", "MSE")
    for split, values in metrics.items():
        figures = [_figure(values, metric) for metric in ("plcc", "srocc", "mse")]
        table.add_row(split, str(values["n"]), *figures)
    _print(table)
    for split, values in metrics.items():
        if values.get("undefined"):
            click.echo(f"  {split}: no correlation: {values['undefined']}")
    _print_lines(["[low, high]: 95 % bootstrap interval over videos", *sources])


def print_ablation(result: Mapping[str, Any]) -> None:
    """Print an ablation's rows, best first, with the ceiling, the notes and the sources."""
    title = f"{result['title']}: {result['split']} split, {result['n']} videos"
    with_paper = any(row["paper"] for row in result["rows"])
    sampled = any(row["frames_kept"] < 1 for row in result["rows"])
    reference = result["reference"]
    against = "best" if reference == result["best"] else reference
    columns = ["PLCC", "SROCC", "MSE", f"SROCC minus {against}"]
    columns += ["frames kept"] * sampled + ["paper PLCC", "SROCC"] * with_paper
    table = _table(title, "system", *columns)
    for row in result["rows"]:
        name = row["name"] if row["kind"] == "model" else f"{row['name']} ({row['kind']})"
        figures = [_figure(row, metric) for metric in ("plcc", "srocc", "mse")]
        paper = row["paper"] or {}
        is_reference = row["name"] == reference
        own = "best" if reference == result["best"] else "reference"
        cells = [name, *figures, own if is_reference else _difference(row["versus"])]
        cells += [f"{row['frames_kept']:.1%}"] * sampled
        cells += [_number(paper.get(m)) for m in ("plcc", "srocc")] if with_paper else []
        table.add_row(*map(escape, cells))
    ceilings = {name: result[key] for name, key in CEILINGS.items() if result[key]}
    for name, ceiling in ceilings.items():
        figures = [_figure(ceiling, metric) for metric in ("plcc", "srocc", "mse")]
        table.add_section()
        table.add_row(name, *map(escape, figures))
    _print(table)
    legend = ["mean ±spread over seeds [low, high]: 95 % bootstrap interval over videos"]
    legend += [f"{name}: {ceiling['what']}" for name, ceiling in ceilings.items()]
    _print_lines([*legend, *result["sources"], *result["notes"]])
    for failed in result["failed"]:
        say(f"failed: {failed['name']}: {failed['error']}")


def print_transfer(result: Mapping[str, Any]) -> None:
    """Print a line for each pair of datasets and split, with the notes and the sources."""
    with_paper = any(row["paper"] for row in result["rows"])
    columns = ["evaluated on", "split", "videos", "PLCC", "SROCC", "bias", "MSE", "recalibrated"]
    columns += ["paper PLCC", "SROCC", "MSE"] if with_paper else []
    table = _table(result["title"], "trained on", *columns)
    before = None
    for row in result["rows"]:
        pair = row["trained_on"], row["evaluated_on"]
        if before not in (None, pair[0]):
            table.add_section()
        before = pair[0]
        fitted, paper = row["recalibrated"] or {}, row["paper"] or {}
        cells = [*pair, row["split"], str(row["n"])]
        cells += [_figure(row, metric) for metric in ("plcc", "srocc")]
        cells += [f"{row['bias']:+.3f}", _figure(row, "mse"), _figure(fitted, "mse")]
        if with_paper:
            cells += [_number(paper.get("plcc")), _number(paper.get("srocc"))]
            cells += [_number(paper.get("mse"), digits=4)]
        table.add_row(*map(escape, cells))
    _print(table)
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


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(
        title=escape(title),
        box=SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False, width=WIDTH)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


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


def _difference(versus: Mapping[str, Any] | None) -> str:
    if versus is None:
        return _number(None)
    if versus["interval"] is None:
        return _number(versus["srocc"])
    low, high = versus["interval"]
    return f"{versus['srocc']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _number(value: float | None, *, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
