"""What a run's own predictions teach about new ones: how far off they are, and what is usual."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from memfeat.runs.files import PREDICTIONS
from memfeat.runs.predictions import Predictions
from memfeat.runs.run import Run

COVERAGE = 90  # per cent of true scores that intervals are to hold
MOST_SHIFTS = 100  # pairings of the dev videos, to learn what differences are usual


@dataclass(frozen=True)
class Calibration:
    """What a run's own predictions teach about new ones.

    Attributes:
        errors: float64 (videos,), true score minus prediction on the dev split, which training did
            not fit but stopped by; of a run with folds on all of these, each by the model that did
            not see it.
        learned: float64 (videos,), the true scores of the train split, or of all folds, in
            increasing order.
    """

    errors: NDArray[np.float64]
    learned: NDArray[np.float64]

    @classmethod
    def of_runs(cls, runs: Sequence[Run]) -> Self:
        """Take the predictions of a run, or of several whose scores are averaged.

        A run may have been handed on without them, since they repeat the scores of its videos; then
        nothing is known.

        Raises:
            RunError: predictions are damaged.
        """
        if all((run.folder / PREDICTIONS).is_file() for run in runs):
            return cls.of([run.predictions() for run in runs])
        return cls(np.empty(0), np.empty(0))

    @classmethod
    def of(cls, runs: Sequence[Predictions]) -> Self:
        """Learn from predictions.

        Of several runs', the errors are of the dev videos that all have in common.
        """
        splits = [_scored(predictions, predictions.held_out) for predictions in runs]
        common = [name for name in splits[0] if all(name in split for split in splits)]
        truth = [splits[0][name][0] for name in common]
        predicted = [np.mean([split[name][1] for split in splits]) for name in common]
        train = [_scored(predictions, predictions.learned) for predictions in runs]
        known = {name: split[name][0] for split in train for name in split}
        return cls(np.array(truth) - np.array(predicted), np.sort(list(known.values())))

    @cached_property
    def margin(self) -> float | None:
        """How far the true score may be from a prediction; None with fewer than 9 dev videos.

        Split conformal prediction (Vovk et al. 2005; Lei et al. 2018): if a new video is drawn
        like the dev videos, its true score is this close with a probability of 90 % or more.
        """
        rank = _rank(len(self.errors))
        return None if rank > len(self.errors) else float(np.sort(abs(self.errors))[rank - 1])

    @cached_property
    def difference_margin(self) -> float | None:
        """The same for the difference of two videos; None with fewer than 18 dev videos.

        Learned from the dev videos in pairs, in as many pairings as there are up to `MOST_SHIFTS`.
        """
        pairs = len(self.errors) // 2
        rank = _rank(pairs)
        if rank > pairs:
            return None
        shifts = range(1, min(pairs, MOST_SHIFTS) + 1)
        differences = [abs(self.errors - np.roll(self.errors, shift)) for shift in shifts]
        return float(np.quantile(differences, rank / pairs, method="inverted_cdf"))

    def interval(self, score: float) -> tuple[float, float] | None:
        """Return where the true score lies with a probability of 90 %, within [0, 1]."""
        margin = self.margin
        if margin is None:
            return None
        low, high = np.clip([score - margin, score + margin], 0.0, 1.0)
        return float(low), float(high)

    def percentile(self, score: float) -> float | None:
        """Return which share of the learned scores is lower, in per cent; equal ones count half."""
        if not len(self.learned):
            return None
        ends = [np.searchsorted(self.learned, score, side) for side in ("left", "right")]
        return float(50 * sum(ends) / len(self.learned))


def _rank(count: int) -> int:
    """Return which of so many errors, by size, bounds a new one with the nominal probability."""
    return -(-(count + 1) * COVERAGE // 100)


def _scored(predictions: Predictions, split: str) -> dict[str, tuple[float, float]]:
    """Return the truth and the prediction of a split's scored videos, by id."""
    own = predictions.of_split(split)
    pairs = zip(own.score.tolist(), own.prediction.tolist(), strict=True)
    return dict(zip(own.video_id, pairs, strict=True))
