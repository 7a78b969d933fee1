"""Cross-validation for small sets: grouped folds, a model for each, their predictions together.

Of K folds one is held out, the next one chooses the epoch or the hyperparameters, and the others
are learned from. So no figure of a fold rests on anything that its model has seen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from memfeat.config import TrainConfig
from memfeat.errors import TrainingError
from memfeat.manifest import VideoRecord
from memfeat.runs import IN_FOLDS, Folds, begin_run, write_pooled
from memfeat.runs.files import fold_folders
from memfeat.training.examples import Examples
from memfeat.training.reading import scores_of

SCORE_LEVELS = 5  # between which folds are balanced
NOTHING: Mapping[Any, Any] = {}

TrainOne = Callable[[Examples, TrainConfig], Any]


def draw_folds(records: Sequence[VideoRecord], config: TrainConfig) -> Folds:
    """Divide the scored videos of train and dev into `config.folds` by scikit-learn.

    Videos with the same value in the column `config.group` stay together; those without one are by
    themselves. Folds are of similar size and have similar scores, as far as groups allow. The draw
    depends on ids, scores, groups and `config.fold_seed`, not on which videos have features.

    Raises:
        TrainingError: fewer groups than folds, or groups so unequal that a fold stays empty.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # noqa: PLC0415

    found = [r.split != "test" and r.score is not None for r in records]
    chosen = np.flatnonzero(found).tolist()
    names = tuple(getattr(record, config.group) for record in records)
    groups = np.array([names[at] or f"alone {at}" for at in chosen], dtype=object)
    of_column = f"column {config.group!r} of the manifest"
    if (count := len(set(groups))) < config.folds:
        raise TrainingError(
            f"{config.folds} folds need as many groups; the {len(chosen)} scored videos of train "
            f"and dev are {count} by {of_column}: give fewer --folds, or another --group"
        )
    scores = scores_of([records[at] for at in chosen])
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    levels = ranks * min(SCORE_LEVELS, len(chosen) // config.folds) // len(chosen)
    alone = count == len(chosen)  # then the other takes a second for each thousand videos
    draw = (StratifiedKFold if alone else StratifiedGroupKFold)(
        config.folds, shuffle=True, random_state=config.fold_seed
    )
    fold = np.zeros(len(records), np.int64)
    parts = draw.split(chosen, levels, None if alone else groups)
    for number, (_, held_out) in enumerate(parts, 1):
        fold[np.array(chosen)[held_out]] = number
        if not len(held_out):
            raise TrainingError(
                f"the groups by {of_column} are so unequal that a fold of {config.folds} is "
                "empty: give fewer --folds, or another --group"
            )
    return Folds(tuple(record.video_id for record in records), fold, names)


def fold_examples(examples: Examples, folds: Folds, number: int) -> Examples:
    """Return the examples as the model sees them that is to be judged on a fold, from 1."""
    fold = folds.of([record.video_id for record in examples.records]).fold
    chooses = number % folds.fold.max() + 1
    roles = {number: IN_FOLDS, chooses: "dev"}
    splits = zip(fold.tolist(), examples.splits, strict=True)
    return examples.divided([roles.get(own, "train") if own else split for own, split in splits])


def train_folds(
    examples: Examples,
    config: TrainConfig,
    train_one: TrainOne,
    identity: Mapping[str, Any] = NOTHING,
) -> None:
    """Train a model for each fold and write the run folder `config.run` with all folds' together.

    Args:
        examples: all videos.
        config: of one seed.
        train_one: trains on a fold's examples with a fold's settings, unless that is done already.
        identity: what else the run's provenance tells.

    Raises:
        TrainingError: the videos cannot be divided, or no video of a part has features.
        MemfeatError, OSError: as for `train_one`.
    """
    folds = draw_folds(examples.listed, config)
    begin_run(config, examples.specs)
    for number, folder in enumerate(fold_folders(config.run, config), 1):
        own = fold_examples(examples, folds, number)
        own.require_splits()
        own.facts["fold"] = number
        train_one(own, config.model_copy(update={"folds": 0, "run": folder}))
        if number == 1:
            own.familiar.write(config.run)
    write_pooled(config, folds, {**examples.facts, **identity})
