"""What a page's script knows of each video, so that a reader can ask about any of them."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memfeat.errors import RunError, short_repr
from memfeat.metrics import paired_differences
from memfeat.report.videos import Frame
from memfeat.runs import PREDICTIONS, Calibration, Predictions, Run, read_folds, read_predictions
from memfeat.runs.files import RECOVER

DIGITS = 6  # significant ones, of scores in the page
MOST_DRAWN = 100_000_000  # values of videos that resamples draw, so that a page takes no minutes


@dataclass(frozen=True)
class System:
    """The predictions of one system for one set of videos.

    Attributes:
        name: of the system.
        videos: names the set; systems of one set can be compared.
        predictions: of the set's videos, which all have a score.
        margin: how far a true score may be from a prediction, see `Calibration.margin`.
        members: the folders of each seed's predictions, or the only one.
        run: what predicted them, if its models are there.
    """

    name: str
    videos: str
    predictions: Predictions
    margin: float | None
    members: tuple[Path, ...]
    run: Run | None = None

    @classmethod
    def of(
        cls, name: str, videos: str, split: str, folders: Sequence[Path], run: Run | None = None
    ) -> "System":
        """Read the predictions of a split; of several seeds the first folder has their mean."""
        every = read_predictions(folders[0] / PREDICTIONS)
        margin = Calibration.of([every]).margin
        return cls(name, videos, every.of_split(split), margin, tuple(folders[1:]), run)

    def of_videos(self, ids: Sequence[str]) -> "System":
        """Return its predictions of these videos alone."""
        return System(
            self.name, self.videos, self.predictions.of(ids), self.margin, self.members, self.run
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Each video's group, of a run with folds; empty of others."""
        if self.run is None or not self.run.config.folds:
            return ()
        return read_folds(self.run.folder).of(self.predictions.video_id).group

    def by_seed(self) -> list[NDArray[np.float64]]:
        """Read each seed's predictions of its videos, (videos,) each.

        Raises:
            RunError: some are missing or damaged.
        """
        if not self.members:
            return [self.predictions.prediction]
        ids = self.predictions.video_id
        found = []
        for member in self.members:
            path = member / PREDICTIONS
            own = read_predictions(path)
            if missing := sorted(set(ids).difference(own.video_id)):
                raise RunError(f"{path} is damaged: it lacks {short_repr(missing[0])}; {RECOVER}")
            found.append(own.of(ids).prediction)
        return found


def on_shared_videos(systems: Sequence[System]) -> list[System]:
    """Leave out videos that not all systems of their set predict, as a grid's table does."""
    shared: dict[str, list[str]] = {}
    for system in systems:
        own = system.predictions.video_id
        known = set(own)
        kept = shared.setdefault(system.videos, list(own))
        shared[system.videos] = [name for name in kept if name in known]
    return [system.of_videos(shared[system.videos]) for system in systems]


@dataclass(frozen=True)
class Exploration:
    """Everything that the page's script can show.

    Attributes:
        systems: in the order of a table's rows, or of scatters.
        frames: of the videos that have one, by set and id.
        timelines: an `<svg>` element by system and id.
        bootstrap: resamples behind each difference's interval.
        differences: in SROCC of two systems, by their places, where they are to be compared.
    """

    systems: tuple[System, ...] = ()
    frames: Mapping[str, Mapping[str, Frame]] = field(default_factory=dict)
    timelines: Mapping[tuple[int, str], str] = field(default_factory=dict)
    bootstrap: int = 0
    differences: Mapping[tuple[int, int], Sequence[float | None]] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return what the script reads, fit to stand in a page."""
        sets = list(dict.fromkeys(system.videos for system in self.systems))
        listed = json.dumps(
            {
                "sets": [self._set(name) for name in sets],
                "systems": [
                    {
                        "name": system.name,
                        "set": sets.index(system.videos),
                        "margin": system.margin,
                        "predictions": _short(system.predictions.prediction),
                    }
                    for system in self.systems
                ],
                "differences": {f"{a} {b}": own for (a, b), own in self.differences.items()},
                "bootstrap": self.bootstrap,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        )
        return listed.replace("<", "\\u003c").replace("\u2028", "\\u2028")

    def timeline_places(self) -> list[tuple[int, int, str]]:
        """Return each timeline with the places of its system and of its video."""
        places: dict[int, dict[str, int]] = {}
        for system, _ in self.timelines:
            ids = self.systems[system].predictions.video_id
            places.setdefault(system, {name: place for place, name in enumerate(ids)})
        return [(own, places[own][name], svg) for (own, name), svg in self.timelines.items()]

    def _set(self, name: str) -> dict[str, Any]:
        predictions = next(own.predictions for own in self.systems if own.videos == name)
        frames = self.frames.get(name, {})
        return {
            "ids": predictions.video_id,
            "truth": _short(predictions.score),
            "thumbnails": {
                place: frames[video_id].thumbnail
                for place, video_id in enumerate(predictions.video_id)
                if video_id in frames and frames[video_id].thumbnail
            },
        }


def differences_of(
    systems: Sequence[System], bootstrap: int
) -> tuple[int, dict[tuple[int, int], Sequence[float | None]]]:
    """Compare each two systems of a set: the difference in SROCC, and its interval's bounds.

    Returns:
        How many resamples were drawn, fewer of many videos; and value, low and high by places.
    """
    predicted = [system.by_seed() for system in systems]
    values = sum(each.size for seeds in predicted for each in seeds)
    drawn = min(bootstrap, max(100, MOST_DRAWN // max(values, 1)))
    found: dict[tuple[int, int], Sequence[float | None]] = {}
    for name in dict.fromkeys(system.videos for system in systems):
        places = [place for place, system in enumerate(systems) if system.videos == name]
        truth = systems[places[0]].predictions.score
        groups = max((systems[place].groups for place in places), key=len)
        every = [predicted[place] for place in places]
        pairs = paired_differences(truth, every, bootstrap=drawn, groups=groups)
        for one, other in combinations(range(len(places)), 2):
            pair = pairs[one, other]
            bounds = pair.interval or (None, None)
            found[places[one], places[other]] = (pair.value, *bounds)
    return drawn, found


def script_hash(script: str) -> str:
    """Return a script's hash as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _short(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
