"""The cells of a grid: which systems to train, each with its settings and its run folder."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from memfeat.config import (
    AblationConfig,
    AblationRow,
    PaperFigures,
    TrainConfig,
    build,
    cache_names,
)
from memfeat.errors import ConfigError
from memfeat.models import AGGREGATORS, HEADS
from memfeat.registry import unknown_name
from memfeat.runs import IN_FOLDS
from memfeat.training import resolve_options
from memfeat.training.baselines import BASELINES

# Settings that all rows share, so that they are compared on the same predictions.
FOLDING = {"folds", "group", "fold_seed"}
# Settings that the row's own fields, or the grid's, decide.
FIXED = {"manifest", "cache", "aggregator", "head", "seeds", "run", *FOLDING}

Kind = Literal["model", "control", "baseline", "ensemble", "scorer"]


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Attributes:
        name: unique in its grid.
        kind: `model`; `control`, trained on shuffled labels; `baseline`, from scikit-learn; or
            `ensemble`, which is not trained but averages others; or `scorer`, which was published.
        config: its settings, seeds and run folder; a baseline's `head` is the baseline's name.
        paper: what the paper reports for it, if it does.
    """

    name: str
    kind: Kind
    config: TrainConfig
    paper: PaperFigures | None = None


def cell_folder(config: AblationConfig, name: str) -> Path:
    """Return the run folder of a row."""
    return config.run / "cells" / name.replace("/", "-").replace(" + ", "+").replace(" ", "-")


def control_name(name: str) -> str:
    """Return the name of the control of a row, which learns from shuffled scores."""
    return f"{name} shuffled"


def reported_split(config: AblationConfig, cells: Sequence[Cell]) -> str:
    """Return the split of predictions that the table reports: with folds these, but for a test."""
    return IN_FOLDS if cells[0].config.folds and config.split != "test" else config.split


def plan_cells(config: AblationConfig, recipe: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of a grid: its rows, the product of its lists, its baselines and controls.

    All cells share the settings of `recipe`, the pipeline's [train] table.

    Raises:
        ConfigError: the grid names nothing, or a setting that is not allowed.
        UnknownNameError: an aggregator, head or baseline that does not exist.
    """
    rows = [
        *config.rows,
        *(
            AblationRow(cache=(cache,), aggregator=(aggregator,), head=head)
            for cache, aggregator, head in product(config.caches, config.aggregators, config.heads)
        ),
    ]
    if not rows:
        raise ConfigError(
            f"the grid {config.title!r} names no rows; give rows, or caches, aggregators and heads"
        )
    several = len({row.cache for row in rows}) > 1
    cells: list[Cell] = []
    for row in rows:
        for aggregator in row.aggregator:
            AGGREGATORS.get(aggregator)
        HEADS.get(row.head)
        prefix = f"{cache_names(row.cache)} " if several else ""
        cells.append(_cell(config, recipe, row, f"{prefix}{row.name or row.system}"))
        if row.system in config.controls:
            control = row.model_copy(update={"train": {**row.train, "shuffle_labels": True}})
            name = control_name(cells[-1].name)
            cells.append(_cell(config, recipe, control, name, "control"))
    for cache, name in product(dict.fromkeys(row.cache for row in rows), config.baselines):
        BASELINES.get(name)
        row = AblationRow(cache=cache, aggregator=("avg",), head=name)
        label = f"{cache_names(cache)} {row.system}" if several else row.system
        cells.append(_cell(config, recipe, row, label, "baseline"))
    fitted = [ensemble.name for ensemble in config.ensembles if ensemble.weights == "dev"]
    if fitted and cells[0].config.folds:
        raise ConfigError(
            f"ensemble {fitted[0]!r} fits its weights on the dev split, and with folds there is "
            'none; write weights = "equal"'
        )
    _require_distinct(cells)
    known = [*(cell.name for cell in cells), *config.scorers]
    _require_known(config, known, {row.system for row in rows})
    return cells


def _cell(
    config: AblationConfig,
    recipe: Mapping[str, Any],
    row: AblationRow,
    name: str,
    kind: Kind = "model",
) -> Cell:
    fixed = sorted(FIXED & row.train.keys())
    if fixed:
        raise ConfigError(f"row {name!r}: its train may not set {', '.join(fixed)}")
    settings = {
        **recipe,
        "cache": [config.cache_root / cache for cache in row.cache],
        "aggregator": row.aggregator,
        "head": row.head,
        "seeds": config.seeds,
        "run": cell_folder(config, name),
        **row.train,
    }
    built = build(TrainConfig, settings, f"row {name!r}")
    if kind != "baseline":
        resolve_options(built)  # refuses what no model has, before anything is trained
    return Cell(name, "control" if built.shuffle_labels else kind, built, row.paper)


def _require_known(config: AblationConfig, names: Sequence[str], systems: Collection[str]) -> None:
    """Refuse a grid that speaks of rows or systems that it does not have."""
    own = [ensemble.name for ensemble in config.ensembles]
    if len({*names, *own}) < len(names) + len(own):
        raise ConfigError(f"ensembles {own} are called like each other or a row; rename them")
    named = [
        *(("ensemble's member", member, names) for e in config.ensembles for member in e.members),
        *(("reference", name, [*names, *own]) for name in [config.reference] if name is not None),
        *(("control", name, systems) for name in config.controls),
    ]
    for what, name, known in named:
        if name not in known:
            raise ConfigError(str(unknown_name(what, name, known)))


def _require_distinct(cells: Sequence[Cell]) -> None:
    """Refuse rows that share a name or a run folder."""
    for what in (lambda cell: cell.name, lambda cell: str(cell.config.run)):
        name, count = Counter(map(what, cells)).most_common(1)[0]
        if count > 1:
            raise ConfigError(f"{count} rows are called {name!r}; give each a `name` of its own")
