"""Plots of results: a table's 95 % intervals, learning curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from memfeat.figures.style import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    RULE,
    VERMILION,
    drawable,
    style,
)

_LOOK = {  # marker, colour, whether it is filled
    "model": ("o", BLUE, True),
    "baseline": ("s", MUTED, True),
    "control": ("D", VERMILION, False),
    "ensemble": ("^", BLUE, True),
    "scorer": ("v", MUTED, True),
}


_CURVES = {"train": MUTED, "dev": BLUE}


@dataclass(frozen=True)
class IntervalRow:
    """One system of an interval plot; undefined values are None.

    Attributes:
        name: shown beside the row.
        kind: `model`, `baseline`, `control`, `ensemble` or `scorer`.
        value: the measure, such as SROCC.
        interval: its 95 % interval.
        paper: what the paper reports for it.
    """

    name: str
    kind: str
    value: float | None
    interval: tuple[float, float] | None
    paper: float | None = None


def learning_curves(histories: Sequence[Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw each seed's L1 error after each epoch, in train and dev, and the epoch that was kept.

    `histories` have a line of `history.jsonl` for each epoch. The error in train is the mean over
    the epoch, under dropout, while the model was learning.
    """
    with style():
        figure, axes = _new_figure(3.7, 2.6)
        axes.set(xlabel="epoch", ylabel="mean absolute error")
        axes.grid(True)
        for history in histories:
            epochs = [line["epoch"] + 1 for line in history]
            for name, colour in (("train_l1", MUTED), ("dev_l1", BLUE)):
                axes.plot(epochs, [line[name] for line in history], color=colour, linewidth=0.9)
            kept = [line for line in history if line["best"]][-1:]
            axes.plot([k["epoch"] + 1 for k in kept], [k["dev_l1"] for k in kept], "o", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        key = [Line2D([], [], color=colour, label=name) for name, colour in _CURVES.items()]
        dot = Line2D([], [], color=INK, marker="o", linestyle="", label="kept")
        figure.legend(handles=[*key, dot], loc="outside upper left", ncols=3, frameon=False)
    return figure


def intervals(
    rows: Sequence[IntervalRow],
    *,
    label: str,
    ceiling: float | None = None,
    ceiling_interval: tuple[float, float] | None = None,
) -> Figure:
    """Draw each system's value with its 95 % interval.

    Args:
        rows: systems, the top one first.
        label: names the axis.
        ceiling: the best attainable value, drawn as a line.
        ceiling_interval: its 95 % interval, drawn as a band.
    """
    with style():
        figure, axes = _new_figure(6.9, 0.95 + 0.27 * max(len(rows), 1))
        axes.grid(True, axis="x")
        axes.axvline(0, color=MUTED, linewidth=1)
        if ceiling_interval is not None:
            axes.axvspan(*ceiling_interval, color=RULE, alpha=0.6, linewidth=0)
        if ceiling is not None:
            axes.axvline(ceiling, color=INK, linewidth=1.2, dashes=(5, 2.5))
        for place, row in enumerate(rows):
            _draw_row(axes, place, row)
        names = [drawable(_short(row.name)) for row in rows]
        axes.set_yticks(range(len(rows)), names, color=INK, fontsize=9, parse_math=False)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
        axes.spines["left"].set_visible(False)
        key = _legend(rows, ceiling, ceiling_interval)
        figure.legend(
            handles=key, loc="outside upper left", ncols=len(key), fontsize=8, borderaxespad=0
        )
    return figure


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of `width` x `height` inches with one pair of axes."""
    layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09)
    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.add_subplot()


def _short(name: str, length: int = 48) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _draw_row(axes: Axes, place: int, row: IntervalRow) -> None:
    marker, colour, filled = _LOOK.get(row.kind, _LOOK["model"])
    if row.interval is not None:
        axes.plot(row.interval, [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
    if row.value is not None:
        face = colour if filled else PAPER
        axes.plot(row.value, place, marker, markersize=6, color=colour, markerfacecolor=face)
    else:
        axes.text(0.01, place, "undefined", color=MUTED, va="center", fontsize=8)
    if row.paper is not None:
        axes.plot(row.paper, place, "|", markersize=13, color=INK, markeredgewidth=1.8)


def _legend(
    rows: Sequence[IntervalRow],
    ceiling: float | None,
    ceiling_interval: tuple[float, float] | None,
) -> list[Line2D | Patch]:
    """Return the legend's entries: only for what the plot shows."""
    kinds = {row.kind for row in rows}
    key: list[Line2D | Patch] = [
        Line2D([], [], marker=marker, color=colour, mfc=colour if filled else PAPER, label=kind)
        for kind, (marker, colour, filled) in _LOOK.items()
        if kind in kinds
    ]
    if any(row.paper is not None for row in rows):
        key.append(Line2D([], [], marker="|", color=INK, mew=1.8, ls="", label="the paper"))
    if ceiling is not None:
        key.append(Line2D([], [], color=INK, linewidth=1.2, dashes=(5, 2.5), label="ceiling"))
    if ceiling_interval is not None:
        key.append(Patch(color=RULE, alpha=0.6, label="its interval"))
    return key
