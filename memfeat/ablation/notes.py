"""What a reader of a grid's table might overlook, or take for an error."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memfeat.ablation.cell_results import CellResult
from memfeat.ablation.grid import control_name
from memfeat.config import READY, AblationConfig
from memfeat.errors import counted, listed
from memfeat.runs import IN_FOLDS, Run

MOST = 6  # systems named in a note


def table_notes(
    config: AblationConfig,
    split: str,
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[CellResult],
    best: CellResult | None,
) -> Iterator[str]:
    """Explain what a reader might overlook, or take for an error."""
    if rows and split == IN_FOLDS:
        yield from _fold_notes(results[0])
    elif rows and split == "dev":
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
            f"The interval of {listed(lost, MOST)} includes zero: on these videos it cannot be "
            "distinguished from guessing."
        )
    lucky = [row["name"] for row in known if row["kind"] == "control" and not _includes_zero(row)]
    if lucky:
        yield (
            f"The interval of {listed(lucky, MOST)} excludes zero, though nothing could be learnt "
            "from shuffled labels: the interval covers the choice of videos, not that of random "
            "weights. Its value shows how large a correlation can be by chance here."
        )


def _fold_notes(result: CellResult) -> Iterator[str]:
    """Say what figures between folds are."""
    own, count = result.cell.config, result.folds and result.folds.num_groups
    of_groups = f" nor any other of its {own.group}" if count else ""
    yield (
        f"Between {own.folds} folds (draw {own.fold_seed}): each video is predicted by a model "
        f"that saw neither it{of_groups}; another fold chose the model's epoch, or a baseline's "
        "hyperparameters, and a baseline is then fitted on that one too."
    )
    if count:
        groups = f"{counted(count, 'group')} by {own.group!r}"
        yield f"The videos are of {groups}, and intervals are over groups."
    yield (
        "Correlations over all folds together lean low, even of a shuffled control: where a fold's "
        "scores are high, those that its model learned from are lower. Those of each fold do not."
    )


def _training_notes(results: Sequence[CellResult]) -> Iterator[str]:
    """Tell of models that were not trained to the end, or learnt no more than from noise."""
    named = {each.cell.name: each for each in results}
    for each in results:
        if members := each.provenance.get("members"):
            shares = ", ".join(f"{share:g} of {name}" for name, share in members.items())
            how = "" if len(set(members.values())) == 1 else ", weights fitted on the dev split"
            yield f"{each.cell.name} averages predictions: {shares}{how}."
        if each.cell.kind == "scorer":
            yield from (f"{each.cell.name}: {text}." for text in READY[each.cell.name].values())
        if each.cell.kind != "model":
            continue
        yield from (f"{each.cell.name}: {w}." for w in Run.load(each.cell.config.run).warnings())
        control = named.get(control_name(each.cell.name))
        if control is None:
            continue
        difference = each.minus(control)
        if difference.interval is not None and difference.interval[0] <= 0:
            yield (
                f"{each.cell.name} does no better than its control, trained on shuffled scores: "
                f"the difference in SROCC is {difference.value:+.3f} "
                f"[{difference.interval[0]:+.3f}, {difference.interval[1]:+.3f}]."
            )


def _includes_zero(row: Mapping[str, Any]) -> bool:
    low, high = row["srocc_interval"]
    return bool(low <= 0 <= high)
