"""Rows of ready scorers: published models that rate frames, and learn nothing from the data."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memfeat.ablation.cell_results import CellResult
from memfeat.ablation.grid import Cell, cell_folder
from memfeat.config import AblationConfig
from memfeat.errors import RunError
from memfeat.runs import PREDICTIONS, Predictions, format_predictions, read_predictions
from memfeat.storage import Location, read_rows, write_atomically


def scores_path(config: AblationConfig, name: str) -> Path:
    """Return where a grid looks for a scorer's table, as `memfeat predict NAME -o` writes it."""
    return config.run / "scores" / f"{name}.csv"


def missing_scores(config: AblationConfig, manifest: Location) -> dict[str, str]:
    """Say for each scorer without a table how that is made."""
    paths = {name: scores_path(config, name) for name in config.scorers}
    return {
        name: f"there is no {path}; make it with `{_command(config, name, manifest)}`"
        for name, path in paths.items()
        if not path.is_file()
    }


def scorer_result(
    config: AblationConfig, split: str, name: str, results: Sequence[CellResult]
) -> CellResult:
    """Read a scorer's table, as the row of a grid, for the videos of the first other row.

    Raises:
        RunError: it lacks videos, or there is no other row.
        ManifestError: it cannot be read.
    """
    if not results:
        raise RunError("no other row has a result to compare it with")
    first, path = results[0], scores_path(config, name)
    rows = [row for _, row in read_rows(path, ("video_id", "score"), None)]
    known = {row["video_id"] for row in rows}
    scores = {row["video_id"]: float(row["score"]) for row in rows if row["score"]}
    every = read_predictions(first.cell.config.run / PREDICTIONS)
    lacking = [video_id for video_id in every.video_id if video_id not in known]
    if lacking:
        raise RunError(
            f"{path} lacks {len(lacking)} videos, {lacking[0]!r} first; complete it with "
            f"`{_command(config, name, first.cell.config.manifest)}`"
        )
    own = every.of([video_id for video_id in every.video_id if video_id in scores])
    predicted = own._replace(prediction=np.array([scores[each] for each in own.video_id]))
    run = first.cell.config.model_copy(update={"run": cell_folder(config, name)})
    write_atomically(run.run / PREDICTIONS, format_predictions(predicted))
    return _result(Cell(name, "scorer", run), split, predicted, first)


def _result(cell: Cell, split: str, predictions: Predictions, other: CellResult) -> CellResult:
    chosen = predictions.scored(split)
    kept = tuple(np.array(predictions.video_id, dtype=object)[chosen])
    return CellResult(
        cell,
        specs=(),
        frames_kept=1.0,
        video_ids=kept,
        truth=predictions.score[chosen],
        predictions=predictions.prediction[None, chosen],
        provenance={},
        folds=other.folds and other.folds.of(kept),
    )


def _command(config: AblationConfig, name: str, manifest: Location) -> str:
    path = scores_path(config, name)
    return f"memfeat predict {name} {shlex.quote(str(manifest))} -o {shlex.quote(str(path))}"
