"""Classical regressors on time-averaged features, which every model should be held against.

Of several caches, a video's averages are taken side by side. scikit-learn is imported where it is
used: it takes over a second, and neither a grid's worker without baselines nor a report needs it.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memfeat.config import Monitor, TrainConfig
from memfeat.registry import Registry
from memfeat.runs import METRICS, PROVENANCE, Predictions, is_complete, read_object, write_scores
from memfeat.storage import write_json
from memfeat.training import DevResult, Examples, versions

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Baseline(ABC):
    """Base of all baselines.

    Attributes:
        grid: each hyperparameter's values, of which dev picks.
    """

    grid: ClassVar[Mapping[str, Sequence[float]]]

    @classmethod
    def build(cls, **hyperparameters: float) -> "Pipeline":
        """Return the regressor on standardised features, unfitted."""
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        return make_pipeline(StandardScaler(), cls.regressor(**hyperparameters))

    @staticmethod
    @abstractmethod
    def regressor(**hyperparameters: float) -> Any:
        """Return scikit-learn's regressor, unfitted."""


BASELINES: Registry[type[Baseline]] = Registry("baseline")


@BASELINES.register("ridge")
class RidgeBaseline(Baseline):
    """Linear regression with an L2 penalty on standardised features."""

    grid: ClassVar = {"alpha": (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)}

    @staticmethod
    def regressor(**hyperparameters: float) -> Any:
        """Return scikit-learn's regressor, unfitted."""
        from sklearn.linear_model import Ridge  # noqa: PLC0415

        return Ridge(**hyperparameters)


@BASELINES.register("svr")
class SvrBaseline(Baseline):
    """Support vector regression with an RBF kernel on standardised features."""

    grid: ClassVar = {"C": (0.01, 0.1, 1.0, 10.0), "epsilon": (0.01, 0.03, 0.1)}

    @staticmethod
    def regressor(**hyperparameters: float) -> Any:
        """Return scikit-learn's regressor, unfitted."""
        from sklearn.svm import SVR  # noqa: PLC0415

        return SVR(**hyperparameters)


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline's result.

    Attributes:
        predictions: of every video, in the records' order; not clipped to [0, 1].
        hyperparameters: those that did best on dev.
    """

    predictions: Predictions
    hyperparameters: dict[str, float]


def fit_baseline(name: str, examples: Examples, *, monitor: Monitor = "l1") -> FittedBaseline:
    """Fit a baseline on the train split, once for each point of its grid, and keep the best.

    `monitor`, on the dev split, picks it; of equals the first wins.

    Raises:
        UnknownNameError: no such baseline.
        TrainingError: no scored videos in train or dev.
    """
    from sklearn.model_selection import ParameterGrid  # noqa: PLC0415

    baseline = BASELINES.get(name)
    examples.require_splits()
    train, dev = examples.labelled("train"), examples.labelled("dev")
    features, scores = np.hstack(examples.means), examples.scores
    points: list[tuple[float, dict[str, float], NDArray[np.float64]]] = []
    for point in ParameterGrid(dict(baseline.grid)):
        regressor = baseline.build(**point).fit(features[train], scores[train])
        predicted = np.asarray(regressor.predict(features), np.float64)
        gain = DevResult.of(scores[dev], predicted[dev]).gain(monitor)
        points.append((gain, point, predicted))
    _, hyperparameters, predicted = max(points, key=lambda point: point[0])
    return FittedBaseline(examples.columns(predicted), hyperparameters)


def run_baseline(name: str, examples: Examples, config: TrainConfig) -> None:
    """Fit a baseline and write predictions, provenance and metrics to `config.run`.

    What is there already of the same baseline on the same data is kept.

    Raises:
        UnknownNameError, TrainingError: as for `fit_baseline`.
        RunError: the folder holds a damaged run.
        OSError: the folder cannot be written to.
    """
    wanted: dict[str, Any] = {
        "baseline": name,
        "monitor": config.monitor,
        "bootstrap": config.bootstrap,
        "data_sha256": examples.facts["data_sha256"],
    }
    if is_complete(config.run) and wanted.items() <= read_object(config.run / PROVENANCE).items():
        return
    start = time.perf_counter()
    fitted = fit_baseline(name, examples, monitor=config.monitor)
    provenance = {
        **wanted,
        "hyperparameters": fitted.hyperparameters,
        "datasets": examples.datasets,
        "versions": versions() | {"scikit-learn": version("scikit-learn")},
        "seconds": round(time.perf_counter() - start, 3),
    }
    (config.run / METRICS).unlink(missing_ok=True)
    write_json(config.run / PROVENANCE, provenance)
    write_scores(config.run, fitted.predictions, bootstrap=config.bootstrap)
