"""Scoring videos with a trained run, and comparing that with the truth."""

from collections.abc import Sequence

from memfeat.devices import CPU
from memfeat.errors import RunError, TrainingError
from memfeat.manifest import VideoRecord
from memfeat.metrics import Metrics
from memfeat.runs import Predictions, Run, pooled, read_folds, split_metrics
from memfeat.training.examples import Examples, Tables
from memfeat.training.fitting import score


def predict_run(run: Run, tables: Tables, records: Sequence[VideoRecord]) -> list[Predictions]:
    """Score videos with each of a run's models; one entry per seed.

    Of a run with folds, a video that is in one is scored by the model that did not see it, and any
    other by all; which those are goes by their ids.

    Args:
        run: the run.
        tables: features made as the run's were, one table for each of its caches; a single one may
            stand for itself. Videos without a record go unused.
        records: the videos; those without features go unused.

    Raises:
        RunError: the features were made differently, a checkpoint is damaged, or it is the run of
            one fold.
        TrainingError: no video has both a record and features.
    """
    if "fold" in run.provenance:
        raise RunError(
            f"{run.folder} is the model of one fold, which learned from videos that the manifest "
            f"does not tell apart; name the run of all folds, {run.folder.parent}"
        )
    examples = Examples.join(tables, records)
    run.require(examples.specs)
    if not examples.records:
        counts = " and ".join(str(len(table.video_ids)) for table in examples.tables)
        raise TrainingError(
            f"none of the {len(records)} videos has features among the {counts} of "
            "the cache; give the manifest and the cache of the same videos"
        )
    videos = examples.videos(CPU, run.config.aggregator)
    scored = [examples.columns(score(model, videos)) for model in run.regressors()]
    if not run.config.folds:
        return scored
    folds, count = read_folds(run.folder), run.config.folds
    return [pooled(scored[at : at + count], folds) for at in range(0, len(scored), count)]


def evaluate_run(run: Run, tables: Tables, records: Sequence[VideoRecord]) -> dict[str, Metrics]:
    """Compare a run's predictions with the truth, on its own data or another dataset's.

    Of several seeds each metric is the mean over seeds. Splits without scores are left out.

    Raises:
        RunError, TrainingError: as for `predict_run`; also if no video has a score.
    """
    if all(record.score is None for record in records):
        splits = ", ".join(sorted({record.split for record in records})) or "that split"
        raise TrainingError(
            f"none of the {len(records)} videos of {splits} has a score to compare with; name "
            "another split, or a manifest with scores"
        )
    predictions = predict_run(run, tables, records)
    groups = read_folds(run.folder).of(predictions[0].video_id).group if run.config.folds else ()
    return split_metrics(predictions, bootstrap=run.config.bootstrap, groups=groups)
