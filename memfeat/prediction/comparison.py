"""Which of several videos is more memorable, and which frames make it so."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from memfeat.errors import listed
from memfeat.prediction.effects import frames_that_matter
from memfeat.prediction.results import VideoPrediction


@dataclass(frozen=True)
class Difference:
    """The most memorable video against another.

    Attributes:
        video: the other one's path, URL or id.
        difference: how much higher the first one's score is.
        interval: where the difference of the true scores lies with a probability of 90 %, if the
            videos are like those of the dev split; None with too few of those.
    """

    video: str
    difference: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves no doubt which of the two is more memorable."""
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class Comparison:
    """Several videos, the most memorable first.

    Attributes:
        ranking: those that could be scored, by falling score.
        failed: the others.
        differences: of the first one and each of the others in `ranking`.
    """

    ranking: tuple[VideoPrediction, ...]
    failed: tuple[VideoPrediction, ...]
    differences: tuple[Difference, ...]

    @classmethod
    def of(cls, predictions: Iterable[VideoPrediction], margin: float | None) -> Self:
        """Compare predictions.

        Args:
            predictions: of the same runs.
            margin: how far a difference may be off, see `Calibration.difference_margin`.
        """
        every = list(predictions)
        scored = [(each.score, each) for each in every if each.score is not None]
        scored.sort(key=lambda pair: -pair[0])
        differences = []
        for score, each in scored[1:]:
            difference = scored[0][0] - score
            interval = None
            if margin is not None:
                low, high = np.clip([difference - margin, difference + margin], -1.0, 1.0)
                interval = float(low), float(high)
            differences.append(Difference(each.name, difference, interval))
        ranking = tuple(each for _, each in scored)
        failed = tuple(each for each in every if each.score is None)
        return cls(ranking, failed, tuple(differences))

    def lines(self) -> list[str]:
        """Say which video is more memorable, how sure that is, and which scores are in doubt."""
        lines = []
        for each in self.differences:
            best, first = self.ranking[0].name, f"{each.difference:.3f}"
            if each.interval is None:
                told = (
                    f"scores {first} higher than {each.video}; how sure that is is not known, for "
                    "that takes 18 scored dev videos or more"
                )
            elif each.is_clear:
                told = f"is more memorable than {each.video}, by {first} [{_range(each.interval)}]"
            else:
                told = (
                    f"scores {first} higher than {each.video} [{_range(each.interval)}]: the two "
                    "cannot be told apart"
                )
            lines.append(f"{best} {told}")
        return lines + self.doubts()

    def doubts(self) -> list[str]:
        """Say why not to trust a score: of damaged videos, and by cautions."""
        lines = [f"{each.status}: {each.message}" for each in self.ranking if each.message]
        warned: dict[tuple[str, str], list[str]] = {}
        for each in self.ranking:
            for caution in each.cautions.items():
                warned.setdefault(caution, []).append(each.name)
        for (code, text), names in warned.items():
            whose = "all of them" if len(names) == len(self.ranking) else listed(names)
            lines.append(f"{code}: {whose}: {text}")
        return lines

    def frame_lines(self) -> list[str]:
        """Say which frames of each video raise or lower its score most."""
        return [
            f"{prediction.name}: {line}"
            for prediction in self.ranking
            for line in frames_that_matter(prediction.timeline)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison ready for JSON."""
        return {
            "ranking": [each.as_dict() for each in self.ranking],
            "failed": [each.as_dict() for each in self.failed],
            "differences": [
                {
                    **vars(each),
                    "interval": each.interval and list(each.interval),
                    "clear": each.is_clear,
                }
                for each in self.differences
            ],
        }


def _range(interval: tuple[float, float]) -> str:
    return "{:.3f}, {:.3f}".format(*interval)
