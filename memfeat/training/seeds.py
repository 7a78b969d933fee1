"""Training runs: a folder for each seed, kept if it is complete, and a summary of the seeds."""

import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import memfeat
from memfeat.cache import CacheSpec
from memfeat.config import TrainConfig
from memfeat.devices import CPU, cpu_threads, resolve_devices
from memfeat.errors import ConfigError, MemfeatError, RunError, TrainingError
from memfeat.manifest import VideoRecord
from memfeat.models import AGGREGATORS, HEADS, parameter_count, resolve_model_options
from memfeat.models.aggregators import Recurrent
from memfeat.models.native import kernel
from memfeat.models.regressor import NO_OPTIONS
from memfeat.runs import (
    Run,
    begin_run,
    finish_seed,
    is_complete,
    seed_folders,
)
from memfeat.runs.files import FAMILIAR, require_same_run
from memfeat.runs.writing import rewrite_scores, write_summary
from memfeat.training.examples import Examples, Tables
from memfeat.training.fitting import OnEpoch, fit, score
from memfeat.training.folds import draw_folds, train_folds

# What does not decide what a model learns: where things lie, where it is computed, and how its
# scores are evaluated. Of manifest and cache it is the content that counts.
NOT_LEARNT = {"manifest", "cache", "run", "device", "threads", "bootstrap"}


def train(
    tables: Tables,
    records: Sequence[VideoRecord],
    config: TrainConfig,
    *,
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train every seed of `config` and write the run folder `config.run`.

    Seeds that are complete there, with the same settings and the same scored videos in train and
    dev, are kept; where other videos, scores or `bootstrap` are new, they are scored anew. On one
    machine the same arguments write the same bytes, but for `provenance.json`. With
    `shuffle_labels` the history is of the shuffled scores; the metrics are against the true ones.

    Args:
        tables: the features, one table for each of `config.cache`; a single one may stand for
            itself. Videos without a record go unused.
        records: the videos; those without features go unused (`select_records` tells which).
        config: the settings.
        on_epoch: called after each epoch of each seed.

    Raises:
        TrainingError: no scored videos in train or dev, another number of tables than of caches,
            or the loss is no longer a number.
        UnknownNameError, ConfigError: aggregator, head, their options, or the device.
        RunError: the folder holds a run of other settings or data, or a damaged one.
        OSError: the folder cannot be written to.
    """
    config = resolve_options(config)
    training_device(config)
    examples = Examples.join(tables, records)
    if len(examples.tables) != len(config.cache):
        raise TrainingError(
            f"there are features of {len(examples.tables)} caches, and the settings name "
            f"{len(config.cache)}; give one table for each cache"
        )
    require_trainable(examples, config)
    for own in unfinished(config, examples.specs, examples.facts):
        train_seed(examples, own, on_epoch=on_epoch)
    finish(config, examples.specs, examples.facts)
    return Run.load(config.run)


def training_device(config: TrainConfig) -> torch.device:
    """Return where a model is trained: `auto` means the CPU for one that is faster there.

    Of a list it is the first, for a model uses one; a grid spreads its models over all. A step of a
    recurrent aggregator is hundreds of small kernels on a GPU, so an epoch takes about as long
    there as on one CPU core with the C++ kernel, of which there are more.

    Raises:
        ConfigError: a device is not here.
    """
    recurrent = any(issubclass(AGGREGATORS.get(name), Recurrent) for name in config.aggregator)
    if config.device == "auto" and recurrent and kernel():
        return CPU
    return resolve_devices(config.device)[0]


def unfinished(
    config: TrainConfig, specs: Sequence[CacheSpec], facts: Mapping[str, Any]
) -> list[TrainConfig]:
    """Return the seeds to train, or to score anew, each as a configuration of its own.

    `config` has all options, from `resolve_options`; `facts` are those of `Examples`.

    Raises:
        ConfigError: an aggregator attends over tokens that a cache does not hold.
        RunError: the folder holds a run of other settings or data, or a damaged one.
    """
    _require_tokens(config, specs)
    _find(config, specs, facts)
    return [own for own in _alone(config) if _find(own, specs, facts) != "done"]


def differences_in_settings(config: TrainConfig) -> str:
    """Say in which settings the runs in `config.run` are others than this; empty if in none.

    A run that cannot be read is not compared.
    """
    for own in (config, *_alone(config)):
        try:
            found = Run(own.run) if is_complete(own.run) else None
        except MemfeatError:
            found = None
        if found is not None:
            try:
                _require_settings(found, own)
            except RunError as error:
                return str(error)
    return ""


def _alone(config: TrainConfig) -> list[TrainConfig]:
    """Return each seed's run as a configuration of its own."""
    return [
        config.model_copy(update={"seeds": (seed,), "run": folder})
        for seed, folder in zip(config.seeds, seed_folders(config.run, config), strict=True)
    ]


def train_seed(examples: Examples, config: TrainConfig, *, on_epoch: OnEpoch | None = None) -> None:
    """Train a run of one seed, with folds one of each, and write its folder, `config.run`.

    A model that is there, trained on the same data, only scores the videos anew.

    Raises:
        TrainingError: the loss is no longer a number, or GPU memory ran out.
        ConfigError: the device is not here.
        RunError: the folder cannot be a run's.
        OSError: it cannot be written to.
    """
    if config.folds:
        train_folds(examples, config, partial(_train_fold, on_epoch=on_epoch))
        return
    if _find(config, examples.specs, examples.facts) == "trained":
        _score_again(examples, config)
        return
    device = training_device(config)
    begin_run(config, examples.specs)
    fitted = fit(examples, config, device=device, on_epoch=on_epoch)
    start = time.perf_counter()
    with cpu_threads(config.threads):
        scores = score(fitted.regressor, examples.videos(CPU, config.aggregator))
        familiar = examples.familiar
    provenance = {
        **examples.facts,
        "versions": versions(),
        "git_commit": git_commit(),
        "device": str(device),
        "parameters": parameter_count(fitted.regressor),
        "best_epoch": fitted.best_epoch,
        "stopped_because": fitted.stopped_because,
        "seconds": round(fitted.seconds + time.perf_counter() - start, 3),
    }
    familiar.write(config.run)
    finish_seed(
        config, map(asdict, fitted.history), fitted.regressor, examples.columns(scores), provenance
    )


def _train_fold(examples: Examples, config: TrainConfig, on_epoch: OnEpoch | None) -> None:
    """Train the model of one fold, unless it is there."""
    if _find(config, examples.specs, examples.facts) != "done":
        number = examples.facts["fold"]
        tell = on_epoch and (lambda report: on_epoch(replace(report, fold=number)))
        train_seed(examples, config, on_epoch=tell)


def require_trainable(examples: Examples, config: TrainConfig) -> None:
    """Refuse to train without scored videos to learn from and to stop by.

    Raises:
        TrainingError: there are none, or they cannot be divided into folds.
    """
    if config.folds:
        draw_folds(examples.listed, config)
    else:
        examples.require_splits()


def _score_again(examples: Examples, config: TrainConfig) -> None:
    """Rewrite what a run of one seed says of the videos; its model stays."""
    run = Run(config.run)
    (regressor,) = run.regressors()
    with cpu_threads(config.threads):
        scores = score(regressor, examples.videos(CPU, config.aggregator))
        familiar = examples.familiar
    familiar.write(config.run)
    changes = {name: getattr(config, name) for name in ("manifest", "cache", "bootstrap")}
    rewrite_scores(
        run.config.model_copy(update={**changes, "run": config.run}),
        examples.columns(scores),
        {**run.provenance, **examples.facts},
    )


def finish(config: TrainConfig, specs: Sequence[CacheSpec], facts: Mapping[str, Any]) -> None:
    """Write the summary of several seeds into `config.run`, unless it is there.

    All are complete now; the arguments are those of `unfinished`.

    Raises:
        RunError: a seed's folder is damaged, or `config.run` cannot be written to.
        OSError: the disk is full, and so on; the run stays incomplete.
    """
    if len(config.seeds) > 1 and _find(config, specs, facts) != "done":
        write_summary(config, specs)


def resolve_options(config: TrainConfig) -> TrainConfig:
    """Return `config` with the options of its aggregators and head filled in, and no others.

    Raises:
        UnknownNameError: an aggregator or head that does not exist.
        ConfigError: an option that is unknown or not allowed.
    """
    pools = _filled_in(AGGREGATORS, config.aggregator, config.aggregators)
    heads = _filled_in(HEADS, (config.head,), config.heads)
    return config.model_copy(update={"aggregators": pools, "heads": heads})


def _filled_in(
    registry: Any, used: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the options of the models used; those given for others are checked too."""
    given = {**dict.fromkeys(used, NO_OPTIONS), **options}
    every = {name: resolve_model_options(registry, name, own) for name, own in given.items()}
    return {name: every[name].model_dump(mode="json") for name in dict.fromkeys(used)}


def _find(
    config: TrainConfig, specs: Sequence[CacheSpec], facts: Mapping[str, Any]
) -> Literal["absent", "trained", "done"]:
    """Tell what `config.run` holds of this run: its models, and its scores as well.

    Raises:
        RunError: it holds another run; of several seeds, more or fewer make no other run.
    """
    if not is_complete(config.run):
        return "absent"
    found = Run(config.run)
    own = found.provenance
    same_data = own.get("data_sha256") == facts["data_sha256"]
    others = []
    if found.specs != tuple(specs):
        made = " and ".join(spec.describe() for spec in found.specs)
        others.append(f"its features are of {made}, or were made differently")
    elif not same_data and own.get("training_sha256") != facts["training_sha256"]:
        others.append("its videos, scores or features of train and dev differ")
    _require_settings(found, config, *others)
    same_seeds = found.config.seeds == config.seeds
    # Early versions did not tell what the training videos are like.
    told = len(config.seeds) > 1 or (config.run / FAMILIAR).is_file()
    done = same_data and same_seeds and told and found.config.bootstrap == config.bootstrap
    return "done" if done else "trained"


def _require_settings(found: Run, config: TrainConfig, *others: str) -> None:
    """Refuse a run whose settings made it learn something else, or that differs in `others`."""
    both_several = min(len(found.config.seeds), len(config.seeds)) > 1
    ignored = NOT_LEARNT | ({"seeds"} if both_several else set())
    own = found.config if found.baseline else resolve_options(found.config)  # with later options
    there, here = (each.model_dump(mode="json", exclude=ignored) for each in (own, config))
    require_same_run(config.run, there, here, *others)


def _require_tokens(config: TrainConfig, specs: Sequence[CacheSpec]) -> None:
    for name, cache, spec in zip(config.aggregator, config.cache, specs, strict=True):
        if not AGGREGATORS.get(name).of_tokens:
            continue
        if config.standardise:
            raise ConfigError(
                f"standardise is for class tokens alone, and aggregator {name!r} attends over "
                "others too; leave it out, or choose another aggregator"
            )
        if spec.num_tokens == 1:
            raise ConfigError(
                f"aggregator {name!r} attends over a frame's tokens, and {cache} holds its class "
                f"token alone (tokens {spec.tokens!r}); make a cache with `memfeat extract "
                f"--encoder {spec.encoder} --tokens cls+2x2`, or choose another aggregator"
            )


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    return {
        "memfeat": memfeat.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def git_commit() -> str | None:
    """Return the commit of the checkout that memfeat runs from, or None if it is installed."""
    root, git = Path(memfeat.__file__).parents[1], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() if found.returncode == 0 else None
