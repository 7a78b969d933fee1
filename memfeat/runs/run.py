"""Reading a run folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from safetensors import SafetensorError

from memfeat.cache import CacheSpec
from memfeat.cache.spec import ROUNDING
from memfeat.config import Settings, TrainConfig, build
from memfeat.errors import CacheError, ConfigError, RunError, counted
from memfeat.runs.familiar import FamiliarVideos
from memfeat.runs.fetching import local_run
from memfeat.runs.files import (
    ABLATION,
    CONFIG,
    FINETUNED,
    HISTORY,
    METRICS,
    MODEL,
    NO_SOURCE,
    PREDICTIONS,
    PROVENANCE,
    RECOVER,
    SPEC,
    STREAMS,
    fold_folders,
    is_complete,
    read_checked,
    read_history,
    read_object,
    seed_folders,
)
from memfeat.runs.predictions import Predictions, read_predictions
from memfeat.storage import AnyLocation, location_of

if TYPE_CHECKING:  # torch takes seconds to import, and a run that is refused needs none of it
    from torch import Tensor

    from memfeat.models import FittedRegressor, Regressor

S = TypeVar("S", bound=Settings)
ALL_BUT_CONSTANT = 0.02  # of the scores' standard deviation


class Run:
    """A complete run folder.

    Examples:
        >>> import memfeat
        >>> memfeat.Run.load("runs/mine").metrics["test"]["n"]
        4

    Attributes:
        folder: its path; of a run that lies elsewhere, or is packed, that of its copy.
        name: what it was called: a path or URL.
        config: the settings it was trained with.
        specs: the specification of each cache it was trained on.
        metrics: `metrics.json`: by split, then by metric.
        provenance: `provenance.json`.
        baseline: its name if scikit-learn fitted it, or None.
        members: one folder per seed, in the order of `config.seeds`; `(folder,)` for one seed, or
            for a baseline.
        parts: the folders that hold a model: with folds, each fold's of each member; else the
            members.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder, self.name = folder, name or str(folder)
        self.config = _built(TrainConfig, read_object(folder / CONFIG), folder / CONFIG)
        self.specs = _read_specs(folder / SPEC, len(self.config.cache))
        self.metrics = read_checked(folder / METRICS)
        self.provenance = read_checked(folder / PROVENANCE)
        self.baseline: str | None = self.provenance.get("baseline")
        own = self.config
        self.members = (folder,) if self.baseline else tuple(seed_folders(folder, own))
        self.parts = tuple(part for member in self.members for part in fold_folders(member, own))

    def __repr__(self) -> str:
        what = self.baseline or f"{self.config.system} of seeds {list(self.config.seeds)}"
        return f"<Run {self.folder}: {what}>"

    @classmethod
    def load(cls, folder: AnyLocation) -> Self:
        """Read a run folder; weights and predictions are read on demand.

        Args:
            folder: its path or URL, or that of a packed file. What is not a folder here is copied
                once into the user's cache; see `memfeat.runs.fetching`.

        Raises:
            RunError: no such folder, or it is incomplete or damaged.
            RemoteError: it cannot be fetched.
            ConfigError: what is given names no file or folder.
        """
        location = location_of(folder)
        folder = local_run(location)
        if not folder.is_dir():
            raise RunError(f"there is no run folder {folder}; `memfeat train --run` makes one")
        if (folder / "cells").is_dir():
            raise RunError(
                f"{folder} holds a table of runs; name one of those in {folder}/cells"
                f"{_best_of(folder)}"
            )
        if (folder / FINETUNED).is_file():
            raise RunError(
                f"{folder} holds a finetuned I3D, which is an encoder: `memfeat extract --encoder "
                f"i3d --weights {folder / FINETUNED}`, then `memfeat train` on that cache"
            )
        if is_complete(folder) and not (folder / CONFIG).is_file():
            raise RunError(
                f"{folder} is a baseline's of an early version, which kept its scores alone; the "
                "same `memfeat ablation` fits it again"
            )
        if not is_complete(folder):
            raise RunError(
                f"{folder} is not a complete run: it holds no {METRICS}. If its training was "
                "interrupted, the same `memfeat train` command finishes it"
            )
        run = cls(folder, str(location))
        for member in (*run.members, *run.parts):
            if not is_complete(member):
                raise RunError(f"{folder} is incomplete: {member} holds no {METRICS}; {RECOVER}")
        return run

    def predictions(self) -> Predictions:
        """Read every video's prediction, the mean over seeds; with folds, see `Folds`.

        Raises:
            RunError: `predictions.csv` is missing or damaged.
        """
        return read_predictions(self.folder / PREDICTIONS)

    def histories(self) -> list[list[dict[str, Any]]]:
        """Read each model's `history.jsonl`, an object for each epoch; a baseline has none.

        Raises:
            RunError: one is missing or damaged.
        """
        return [] if self.baseline else [read_history(part / HISTORY) for part in self.parts]

    def warnings(self) -> list[str]:
        """Return a line for each sign that its training did not work out.

        Raises:
            RunError: `predictions.csv` is missing or damaged.
        """
        best, most = self.provenance.get("best_epoch"), self.config.max_epochs
        epochs = best if isinstance(best, list) else [best]
        found = []
        if (late := epochs.count(most - 1)) and most > 1:
            found.append(
                f"{late} of {counted(len(epochs), 'model')} still improved in the last of {most} "
                "epochs; train for more (max_epochs)"
            )
        predictions = self.predictions()
        dev = predictions.scored(predictions.held_out)
        spread, own = np.std(predictions.score[dev]), np.std(predictions.prediction[dev])
        if dev.any() and own < ALL_BUT_CONSTANT * spread:
            found.append(
                f"its predictions hardly differ from video to video: their standard deviation is "
                f"{own:.2g} on {predictions.held_out}, that of the scores {spread:.2g}"
            )
        return found

    def familiar(self) -> FamiliarVideos | None:
        """Read what its training videos are like; None if an early version trained it.

        Raises:
            RunError: the file is damaged.
        """
        return FamiliarVideos.read(self.members[0])

    def regressors(self) -> "list[Regressor] | list[FittedRegressor]":
        """Build every model with its trained weights, on the CPU, in evaluation mode.

        There is one for each of `parts`, in their order.

        Raises:
            RunError: a checkpoint is missing, damaged, or of another model than `config.json`.
        """
        if self.baseline:
            return [self._fitted(part) for part in self.parts]
        return [self._regressor(part) for part in self.parts]

    def _fitted(self, part: Path) -> "FittedRegressor":
        from memfeat.models import FittedRegressor  # noqa: PLC0415

        weights, dim = _read_weights(part), sum(spec.dim for spec in self.specs)
        try:
            return FittedRegressor.of(weights, dim).eval()
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"{part / MODEL} does not hold the {self.baseline} baseline on {dim}-d features; "
                f"{RECOVER}. {reason}"
            ) from error

    def _regressor(self, part: Path) -> "Regressor":
        import torch  # noqa: PLC0415

        from memfeat.devices import seeded  # noqa: PLC0415
        from memfeat.models import regressor_of  # noqa: PLC0415

        weights, dims = _read_weights(part), [spec.dim for spec in self.specs]
        try:
            # First without memory: a config of a hundred bytes can name a model of a terabyte.
            with torch.device("meta"):
                regressor_of(self.config, dims).load_state_dict(weights, assign=True)
            with seeded(0):  # the weights that it draws are replaced
                regressor = regressor_of(self.config, dims)
            regressor.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
            reason, widths = " ".join(str(error).split()), " and ".join(f"{dim}-d" for dim in dims)
            raise RunError(
                f"{part / MODEL} does not hold the weights of {self.config.system} on {widths} "
                f"features, which {CONFIG} and {SPEC} beside it name; {RECOVER}. {reason}"
            ) from error
        return regressor.eval()

    def require(self, specs: Sequence[CacheSpec]) -> None:
        """Refuse features, of one cache or several, that were made differently from the run's own.

        Raises:
            RunError: names the first difference.
        """
        if len(specs) != len(self.specs):
            raise RunError(
                f"{self.name} was trained on {len(self.specs)} caches side by side, "
                f"{', '.join(map(str, self.config.cache))}; give one for each, in this order, "
                f"instead of {len(specs)}"
            )
        for own, other in zip(self.specs, specs, strict=True):
            try:
                own.require(other, f"{self.name} does not fit this cache", ignored=ROUNDING)
            except CacheError as error:
                raise RunError(
                    f"{error}. Extract the videos as the run's own were, or train on this cache"
                ) from error

    def sources(self) -> list[str]:
        """Return the lines on features and scores that belong under every table and figure."""
        datasets = self.provenance.get("datasets") or [NO_SOURCE]
        lines = list(dict.fromkeys(f"features: {spec.describe()}" for spec in self.specs))
        lines.append(f"scores: {', '.join(datasets)}")
        if self.config.folds:
            lines.append(
                f"{self.config.folds} folds by {self.config.group}: a video in one is scored by "
                "the model that did not see it, any other by the mean over all"
            )
        if self.config.shuffle_labels:
            lines.append("CONTROL: trained on shuffled scores, so that nothing could be learnt")
        return lines


def _best_of(folder: Path) -> str:
    """Name the best run of a grid's table, to follow the folder of its runs."""
    try:
        table = read_object(folder / ABLATION)
        (best,) = [row["run"] for row in table["rows"] if row["name"] == table["best"]]
    except (RunError, KeyError, TypeError, ValueError):
        return ""
    return f", such as {folder / best}, the best on {table['split']}"


def _read_weights(part: Path) -> "dict[str, Tensor]":
    """Read a folder's checkpoint and check its hash; early runs have none."""
    from safetensors.torch import load  # noqa: PLC0415

    path, sha256 = part / MODEL, read_checked(part / PROVENANCE).get("model_sha256")
    try:
        content = path.read_bytes()
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise RunError(
                f"{path} is not the checkpoint that its training wrote, whose SHA-256 is in "
                f"{PROVENANCE} beside it; {RECOVER}"
            )
        return load(content)
    except OSError as error:
        raise RunError(f"cannot read checkpoint {path}: {error.strerror}; {RECOVER}") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"cannot read checkpoint {path}: {error}; {RECOVER}") from error


def _built(kind: type[S], values: dict[str, Any], path: Path) -> S:
    try:
        return build(kind, values, str(path))
    except ConfigError as error:
        raise RunError(f"{error}; {RECOVER}") from error


def _read_specs(path: Path, count: int) -> tuple[CacheSpec, ...]:
    content = read_object(path)
    listed = content.get(STREAMS, [content])
    if not isinstance(listed, list) or len(listed) != count:
        raise RunError(f"{path} is damaged: it has not the specs of {count} caches; {RECOVER}")
    return tuple(_built(CacheSpec, each, path) for each in listed)
