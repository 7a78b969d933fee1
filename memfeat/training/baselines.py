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
import torch
from numpy.typing import NDArray

from memfeat.config import Monitor, TrainConfig
from memfeat.models import FittedRegressor
from memfeat.registry import Registry
from memfeat.runs import (
    FAMILIAR,
    MODEL,
    PROVENANCE,
    Predictions,
    begin_run,
    finish_seed,
    is_complete,
    read_object,
)
from memfeat.training import DevResult, Examples, versions
from memfeat.training.folds import train_folds

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

    @staticmethod
    @abstractmethod
    def arrays(regressor: Any) -> dict[str, Any]:
        """Return a fitted regressor's numbers, by the names of `FittedRegressor`'s buffers."""


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

    @staticmethod
    def arrays(regressor: Any) -> dict[str, Any]:
        """Return the coefficients."""
        return {"coefficients": regressor.coef_, "intercept": regressor.intercept_}


@BASELINES.register("svr")
class SvrBaseline(Baseline):
    """Support vector regression with an RBF kernel on standardised features."""

    grid: ClassVar = {"C": (0.01, 0.1, 1.0, 10.0), "epsilon": (0.01, 0.03, 0.1)}

    @staticmethod
    def regressor(**hyperparameters: float) -> Any:
        """Return scikit-learn's regressor, unfitted."""
        from sklearn.svm import SVR  # noqa: PLC0415

        return SVR(**hyperparameters)

    @staticmethod
    def arrays(regressor: Any) -> dict[str, Any]:
        """Return the support vectors, which are training videos' features, and the rest."""
        return {
            "support": regressor.support_vectors_,
            "coefficients": regressor.dual_coef_[0],
            "intercept": regressor.intercept_[0],
            "gamma": regressor._gamma,  # `scale`, worked out for the training features
        }


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline's result.

    Attributes:
        predictions: of every video, in the records' order; not clipped to [0, 1].
        hyperparameters: those that did best on dev.
        model: gives the same predictions.
    """

    predictions: Predictions
    hyperparameters: dict[str, float]
    model: FittedRegressor


def fit_baseline(
    name: str, examples: Examples, *, monitor: Monitor = "l1", refit: bool = False
) -> FittedBaseline:
    """Fit a baseline on the train split, once for each point of its grid, and keep the best.

    `monitor`, on the dev split, picks it; of equals the first wins. With `refit` the best is then
    fitted on both, as `GridSearchCV` does.

    Raises:
        UnknownNameError: no such baseline.
        TrainingError: no scored videos in train or dev.
    """
    from sklearn.model_selection import ParameterGrid  # noqa: PLC0415

    baseline = BASELINES.get(name)
    examples.require_splits()
    train, dev = examples.labelled("train"), examples.labelled("dev")
    features, scores = np.hstack(examples.means), examples.scores
    points: list[tuple[float, dict[str, float], NDArray[np.float64], Pipeline]] = []
    for point in ParameterGrid(dict(baseline.grid)):
        regressor = baseline.build(**point).fit(features[train], scores[train])
        predicted = np.asarray(regressor.predict(features), np.float64)
        gain = DevResult.of(scores[dev], predicted[dev]).gain(monitor)
        points.append((gain, point, predicted, regressor))
    _, hyperparameters, predicted, best = max(points, key=lambda point: point[0])
    if refit:
        both = np.concatenate([train, dev])
        best = baseline.build(**hyperparameters).fit(features[both], scores[both])
        predicted = np.asarray(best.predict(features), np.float64)
    scaler = best[0]
    arrays = {"mean": scaler.mean_, "scale": scaler.scale_, **baseline.arrays(best[-1])}
    weights = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in arrays.items()}
    model = FittedRegressor.of(weights, features.shape[1])
    return FittedBaseline(examples.columns(predicted), hyperparameters, model)


def baseline_is_there(config: TrainConfig, facts: Mapping[str, Any]) -> bool:
    """Return whether `config.run` holds this baseline, fitted to these data (`Examples.facts`).

    Raises:
        RunError: the folder holds a damaged run.
    """
    if not is_complete(config.run) or not (config.folds or (config.run / MODEL).is_file()):
        return False
    if not (config.run / FAMILIAR).is_file():  # which early versions did not write
        return False
    return _identity(config, facts).items() <= read_object(config.run / PROVENANCE).items()


def _identity(config: TrainConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    of_folds = {"folds": [config.folds, config.group, config.fold_seed]} if config.folds else {}
    return {
        "baseline": config.head,
        "monitor": config.monitor,
        "bootstrap": config.bootstrap,
        "data_sha256": facts["data_sha256"],
        **of_folds,
        **({"fold": facts["fold"]} if "fold" in facts else {}),
    }


def run_baseline(examples: Examples, config: TrainConfig) -> None:
    """Fit the baseline `config.head` and write the run folder `config.run`.

    What is there already of the same baseline on the same data is kept. With folds there is one of
    each, fitted on all others once its hyperparameters are chosen.

    Raises:
        UnknownNameError, TrainingError: as for `fit_baseline`.
        RunError: the folder holds a damaged run.
        OSError: the folder cannot be written to.
    """
    wanted = _identity(config, examples.facts)
    if baseline_is_there(config, examples.facts):
        return
    if config.folds:
        train_folds(examples, config, run_baseline, wanted)
        return
    start = time.perf_counter()
    refit = "fold" in wanted
    fitted = fit_baseline(config.head, examples, monitor=config.monitor, refit=refit)
    provenance = {
        **wanted,
        "hyperparameters": fitted.hyperparameters,
        "datasets": examples.datasets,
        "versions": versions() | {"scikit-learn": version("scikit-learn")},
        "seconds": round(time.perf_counter() - start, 3),
    }
    begin_run(config, examples.specs)
    examples.familiar.write(config.run)
    finish_seed(config, (), fitted.model, fitted.predictions, provenance)
