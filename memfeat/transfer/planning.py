"""What Table 2 needs: a model for each dataset, all from features made alike."""

from collections.abc import Iterable, Mapping
from typing import Any

from memfeat.ablation import CacheRequest, Cell
from memfeat.cache import Cache
from memfeat.config import ExtractConfig, TrainConfig, TransferConfig, TransferDataset, build
from memfeat.errors import CacheError, ConfigError
from memfeat.training import resolve_options

# What [transfer] decides.
DECIDED = {"manifest", "cache", "seeds", "run"}


def plan_cells(config: TransferConfig, recipe: Mapping[str, Any]) -> list[Cell]:
    """Return for each dataset the model to train on it, with its settings and run folder.

    Args:
        config: the datasets.
        recipe: settings that all share, as the pipeline's [train] table gives them.

    Raises:
        ConfigError: a setting that is not allowed.
        UnknownNameError: an aggregator or head that does not exist.
    """
    fixed = sorted(DECIDED & recipe.keys())
    if fixed:
        raise ConfigError(
            f"[train] sets {', '.join(fixed)}, which [transfer] decides for each dataset; remove it"
        )
    cells = []
    for dataset in config.datasets:
        settings = {
            **recipe,
            "manifest": dataset.manifest,
            "cache": dataset.cache,
            "seeds": config.seeds,
            "run": config.run / "cells" / dataset.name.replace(" ", "-"),
        }
        built = build(TrainConfig, settings, f"[train] for {dataset.name!r}")
        resolve_options(built)  # refuses what no model has, before anything is trained
        cells.append(Cell(dataset.name, "model", built))
    return cells


def caches_of(cell: Cell) -> list[CacheRequest]:
    """Return the caches that a model needs, each made with the encoder that it is named after."""
    manifest = cell.config.manifest
    return [
        CacheRequest(ExtractConfig(manifest=manifest, encoder=folder.name, cache=folder), None)
        for folder in dict.fromkeys(cell.config.cache)
    ]


def require_alike(datasets: Iterable[TransferDataset]) -> None:
    """Refuse datasets whose features were not made alike: no model fits both.

    Raises:
        CacheError: names the two caches and the first difference.
    """
    first, *others = ([Cache.open(folder) for folder in each.cache] for each in datasets)
    for caches in others:
        if len(caches) != len(first):
            raise CacheError(
                f"datasets have {len(first)} and {len(caches)} caches side by side; give each as "
                "many, in the same order"
            )
        for one, other in zip(first, caches, strict=True):
            one.spec.require(
                other.spec, f"{one.folder} and {other.folder} were not made alike, so no model fits"
            )
