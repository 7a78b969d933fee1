"""Reading a run folder back."""

from pathlib import Path
from typing import Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from memfeat.cache import CacheSpec
from memfeat.config import Settings, TrainConfig, build
from memfeat.errors import ConfigError, RunError
from memfeat.models import Regressor, build_regressor
from memfeat.runs.files import (
    CONFIG,
    METRICS,
    MODEL,
    PREDICTIONS,
    PROVENANCE,
    RECOVER,
    SPEC,
    is_complete,
    read_object,
    seed_folder,
)
from memfeat.runs.predictions import Predictions, read_predictions

S = TypeVar("S", bound=Settings)


class Run:
    """A complete run folder.

    Attributes:
        folder: where it lies.
        config: the settings it was trained with.
        spec: what made its features.
        metrics: `metrics.json`: by split, then by metric.
        provenance: `provenance.json`.
        members: one folder per seed, in the order of `config.seeds`; `(folder,)` for one seed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_settings(folder / CONFIG, TrainConfig)
        self.spec = _read_settings(folder / SPEC, CacheSpec)
        self.metrics = read_object(folder / METRICS)
        self.provenance = read_object(folder / PROVENANCE)
        self.members = tuple(seed_folder(folder, self.config, s) for s in self.config.seeds)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a run folder; its weights and predictions only when asked for.

        Raises:
            RunError: no such folder, or it is incomplete or damaged.
        """
        if not folder.is_dir():
            raise RunError(f"there is no run folder {folder}; `memfeat train --run` makes one")
        if (folder / "cells").is_dir():
            raise RunError(f"{folder} holds a table of runs; name one of those in {folder}/cells")
        if is_complete(folder) and not (folder / CONFIG).is_file():
            raise RunError(f"{folder} is a baseline's: it has scores, but no model to load")
        if not is_complete(folder):
            raise RunError(
                f"{folder} is not a complete run: it holds no {METRICS}. If its training was "
                "interrupted, the same `memfeat train` command finishes it"
            )
        run = cls(folder)
        for member in run.members:
            if not is_complete(member):
                raise RunError(f"{folder} is incomplete: {member} holds no {METRICS}; {RECOVER}")
        return run

    def predictions(self) -> Predictions:
        """Read every video's prediction, the mean over seeds.

        Raises:
            RunError: `predictions.csv` is missing or damaged.
        """
        return read_predictions(self.folder / PREDICTIONS)

    def regressors(self) -> list[Regressor]:
        """Build every seed's model with its trained weights, on the CPU, in evaluation mode.

        Raises:
            RunError: a checkpoint is missing, damaged, or of another model than `config.json`.
        """
        return [self._regressor(member / MODEL) for member in self.members]

    def _regressor(self, path: Path) -> Regressor:
        name, head = self.config.aggregator, self.config.head
        options = self.config.aggregators.get(name, {}), self.config.heads.get(head, {})
        with torch.random.fork_rng(devices=[]):
            regressor = build_regressor(self.spec.dim, name, head, *options)
        try:
            regressor.load_state_dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise RunError(f"cannot read checkpoint {path}: {error}; {RECOVER}") from error
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"{path} does not hold the weights of {name}+{head} on {self.spec.dim}-d "
                f"features, which {CONFIG} and {SPEC} beside it name; {RECOVER}. "
                f"{reason}"
            ) from error
        return regressor.eval()

    def sources(self) -> list[str]:
        """Name features and scores, in lines that belong under every table and picture."""
        datasets = self.provenance.get("datasets") or ["the manifest does not say"]
        lines = [f"features: {self.spec.describe()}", f"scores: {', '.join(datasets)}"]
        if self.config.shuffle_labels:
            lines.append("CONTROL: trained on shuffled scores, so that nothing could be learnt")
        return lines


def _read_settings(path: Path, settings: type[S]) -> S:
    try:
        return build(settings, read_object(path), str(path))
    except ConfigError as error:
        raise RunError(f"{error}; {RECOVER}") from error
