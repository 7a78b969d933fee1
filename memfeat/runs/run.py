"""Reading a run folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from safetensors import SafetensorError

from memfeat.cache import CacheSpec
from memfeat.config import Settings, TrainConfig, build
from memfeat.errors import CacheError, ConfigError, RunError
from memfeat.runs.files import (
    CONFIG,
    FINETUNED,
    METRICS,
    MODEL,
    PREDICTIONS,
    PROVENANCE,
    RECOVER,
    SPEC,
    STREAMS,
    is_complete,
    read_checked,
    read_object,
    seed_folder,
)
from memfeat.runs.predictions import Predictions, read_predictions

if TYPE_CHECKING:  # torch takes seconds to import, and a run that is refused needs none of it
    from torch import Tensor

    from memfeat.models import Regressor

S = TypeVar("S", bound=Settings)


class Run:
    """A complete run folder.

    Attributes:
        folder: its path.
        config: the settings it was trained with.
        specs: the specification of each cache it was trained on.
        metrics: `metrics.json`: by split, then by metric.
        provenance: `provenance.json`.
        members: one folder per seed, in the order of `config.seeds`; `(folder,)` for one seed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _built(TrainConfig, read_object(folder / CONFIG), folder / CONFIG)
        self.specs = _read_specs(folder / SPEC, len(self.config.cache))
        self.metrics = read_checked(folder / METRICS)
        self.provenance = read_checked(folder / PROVENANCE)
        self.members = tuple(seed_folder(folder, self.config, s) for s in self.config.seeds)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a run folder; weights and predictions are read on demand.

        Raises:
            RunError: no such folder, or it is incomplete or damaged.
        """
        if not folder.is_dir():
            raise RunError(f"there is no run folder {folder}; `memfeat train --run` makes one")
        if (folder / "cells").is_dir():
            raise RunError(f"{folder} holds a table of runs; name one of those in {folder}/cells")
        if (folder / FINETUNED).is_file():
            raise RunError(
                f"{folder} holds a finetuned I3D, which is an encoder: `memfeat extract --encoder "
                f"i3d --weights {folder / FINETUNED}`, then `memfeat train` on that cache"
            )
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

    def regressors(self) -> "list[Regressor]":
        """Build every seed's model with its trained weights, on the CPU, in evaluation mode.

        Raises:
            RunError: a checkpoint is missing, damaged, or of another model than `config.json`.
        """
        return [self._regressor(member) for member in self.members]

    def _regressor(self, member: Path) -> "Regressor":
        import torch  # noqa: PLC0415

        from memfeat.models import regressor_of  # noqa: PLC0415

        path, dims = member / MODEL, [spec.dim for spec in self.specs]
        weights = _read_weights(path, read_checked(member / PROVENANCE).get("model_sha256"))
        try:
            # First without memory: a config of a hundred bytes can name a model of a terabyte.
            with torch.device("meta"):
                regressor_of(self.config, dims).load_state_dict(weights, assign=True)
            with torch.random.fork_rng(devices=[]):
                regressor = regressor_of(self.config, dims)
            regressor.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
            reason, widths = " ".join(str(error).split()), " and ".join(f"{dim}-d" for dim in dims)
            raise RunError(
                f"{path} does not hold the weights of {self.config.system} on {widths} features, "
                f"which {CONFIG} and {SPEC} beside it name; {RECOVER}. {reason}"
            ) from error
        return regressor.eval()

    def require(self, specs: Sequence[CacheSpec]) -> None:
        """Refuse features, of one cache or several, that were made differently from the run's own.

        Raises:
            RunError: names the first difference.
        """
        if len(specs) != len(self.specs):
            raise RunError(
                f"{self.folder} was trained on {len(self.specs)} caches side by side, "
                f"{', '.join(map(str, self.config.cache))}; give one for each, in this order, "
                f"instead of {len(specs)}"
            )
        for own, other in zip(self.specs, specs, strict=True):
            try:
                own.require(other, f"{self.folder} does not fit this cache")
            except CacheError as error:
                raise RunError(
                    f"{error}. Extract the videos as the run's own were, or train on this cache"
                ) from error

    def sources(self) -> list[str]:
        """Return the lines on features and scores that belong under every table and figure."""
        datasets = self.provenance.get("datasets") or ["the manifest does not say"]
        lines = list(dict.fromkeys(f"features: {spec.describe()}" for spec in self.specs))
        lines.append(f"scores: {', '.join(datasets)}")
        if self.config.shuffle_labels:
            lines.append("CONTROL: trained on shuffled scores, so that nothing could be learnt")
        return lines


def _read_weights(path: Path, sha256: str | None) -> "dict[str, Tensor]":
    """Read a checkpoint and check its hash; early runs have none."""
    from safetensors.torch import load  # noqa: PLC0415

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
