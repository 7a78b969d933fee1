"""The page of Table 2: scatters (Fig. 2) and worst predictions (Fig. 3) of every pair."""

from itertools import product
from pathlib import Path

from memfeat.report.parts import Gallery, Page, Picture, run_of, scatter_of
from memfeat.report.table import PairRow, Pairs, read_pairs
from memfeat.report.worst import known_records, worst_videos
from memfeat.runs import PREDICTIONS, Predictions, read_predictions
from memfeat.transfer import RESULT, pair_folder

WORST = 3  # videos of each pair


def of_transfer(folder: Path) -> Page:
    """Gather the page of a folder that holds `transfer.json`.

    Raises:
        RunError: it, or a file that it names, is damaged.
    """
    pairs = read_pairs(folder / RESULT)
    predictions: dict[tuple[str, str], Predictions] = {}
    for row in pairs.rows:
        path = pair_folder(folder, row.trained_on, row.evaluated_on) / PREDICTIONS
        if path.is_file():
            predictions[row.trained_on, row.evaluated_on] = read_predictions(path)
    drawn = [
        row
        for split, row in product(pairs.splits, pairs.rows)
        if row.split == split and (row.trained_on, row.evaluated_on) in predictions
    ]
    runs = [run_of(folder / name) for name in pairs.runs.values()]
    return Page(
        title=pairs.title,
        sources=pairs.sources,
        runs=tuple(run for run in runs if run),
        pairs=pairs,
        notes=pairs.notes,
        scatters=tuple(
            _scatter(row, predictions[row.trained_on, row.evaluated_on], f"p{place}")
            for place, row in enumerate(drawn)
        ),
        worst=_galleries(pairs, drawn, predictions),
        versions=pairs.versions,
    )


def _scatter(row: PairRow, predictions: Predictions, key: str) -> Picture:
    return scatter_of(predictions, row.split, f"{row.pair}, {row.split} split", key)


def _galleries(
    pairs: Pairs, drawn: list[PairRow], predictions: dict[tuple[str, str], Predictions]
) -> tuple[Gallery, ...]:
    """Return the worst of each pair, on the first split that is drawn of it."""
    manifests = {name: known_records(d.manifest) for name, d in pairs.datasets.items()}
    first: dict[str, PairRow] = {}
    for row in drawn:
        first.setdefault(row.pair, row)
    galleries = []
    for pair, row in first.items():
        records, note = manifests.get(row.evaluated_on, ({}, ""))
        found = predictions[row.trained_on, row.evaluated_on]
        galleries.append(
            Gallery(
                words=f"of {row.evaluated_on}'s {row.split} split that the model of "
                f"{row.trained_on}",
                videos=tuple(worst_videos(found, row.split, records, count=WORST)),
                note=note,
                heading=pair,
            )
        )
    return tuple(galleries)
