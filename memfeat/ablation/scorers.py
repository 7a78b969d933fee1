"""Rows of ready scorers: published models that rate frames, and learn nothing from the data."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memfeat.ablation.cell_results import CellResult, predictions_of
from memfeat.ablation.grid import Cell, cell_folder
from memfeat.config import AblationConfig
from memfeat.errors import RunError, counted
from memfeat.runs import PREDICTIONS, write_predictions
from memfeat.runs.predictions import finite
from memfeat.storage import Location, read_rows


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
        RunError: it lacks videos, a score is no number, or there is no other row.
        ManifestError: it cannot be read.
    """
    if not results:
        raise RunError("no other row has a result to compare it with")
    first, path = results[0], scores_path(config, name)
    command = _command(config, name, first.cell.config.manifest)
    scores: dict[str, float | None] = {}  # None where the video failed
    for line, row in read_rows(path, ("video_id", "score"), None):
        try:
            scores[row["video_id"]] = finite(row["score"]) if row["score"] else None
        except ValueError as error:
            raise RunError(
                f"{path}, line {line}, column score: {error}; delete the file and make it again "
                f"with `{command}`"
            ) from error
    every = predictions_of(first.cell)
    lacking = [video_id for video_id in every.video_id if video_id not in scores]
    if lacking:
        raise RunError(
            f"{path} lacks {counted(len(lacking), 'video')}, {lacking[0]!r} first; complete it "
            f"with `{command}`"
        )
    own = every.of([name for name in every.video_id if scores[name] is not None])
    predicted = own._replace(prediction=np.array([scores[name] for name in own.video_id], float))
    run = first.cell.config.model_copy(update={"run": cell_folder(config, name)})
    write_predictions(run.run / PREDICTIONS, predicted)
    return CellResult.of_predictions(Cell(name, "scorer", run), split, [predicted], first.folds)


def _command(config: AblationConfig, name: str, manifest: Location) -> str:
    path = scores_path(config, name)
    return f"memfeat predict {name} {shlex.quote(str(manifest))} -o {shlex.quote(str(path))}"
