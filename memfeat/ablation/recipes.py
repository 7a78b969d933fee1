"""How the caches of a grid are made, by `memfeat finetune` and `memfeat extract`."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfeat.ablation.grid import Cell
from memfeat.cache import Cache
from memfeat.config import AblationConfig, CacheRecipe, ExtractConfig, build
from memfeat.errors import ConfigError
from memfeat.manifest import read_manifest
from memfeat.registry import unknown_name
from memfeat.runs import FINETUNED
from memfeat.storage import Location, shards_at
from memfeat.storage.locations import name_below
from memfeat.training.folds import NOTHING

RECIPE_FLAGS = ("weights", "tokens", "layer", "resize", "sampler", "max_seconds")


@dataclass(frozen=True)
class CacheRequest:
    """A cache that a grid needs.

    Attributes:
        extract: how to make it.
        finetune: pipeline that makes its weights first, if they are not there.
    """

    extract: ExtractConfig
    finetune: Path | None

    @property
    def exists(self) -> bool:
        """Whether the cache has any shard."""
        return bool(shards_at(self.extract.cache))

    @property
    def is_whole(self) -> bool:
        """Whether the cache knows of every video: what it has, or why it could not be had."""
        own = self.extract
        records = read_manifest(own.manifest, own.root).records[: own.limit]
        return self.exists and Cache.open(own.cache).entries.keys() >= {r.video_id for r in records}

    @property
    def finetune_run(self) -> Path:
        """Where finetuning leaves the weights."""
        return Path(self.extract.weights or "").parent

    @property
    def command(self) -> str:
        """The command that makes it."""
        own = self.extract
        flags = [
            f"--{name.replace('_', '-')} {shlex.quote(str(getattr(own, name)))}"
            for name, field in ExtractConfig.model_fields.items()
            if name == "encoder" or (name in RECIPE_FLAGS and getattr(own, name) != field.default)
        ] + [f"--text {shlex.quote(text)}" for text in own.text]
        where = f"--manifest {shlex.quote(str(own.manifest))}"
        first = ""
        if self.finetune:
            run = shlex.quote(str(self.finetune_run))
            first = f"memfeat finetune {shlex.quote(str(self.finetune))} {where} --run {run} && "
        cache = shlex.quote(str(own.cache))
        return f"{first}memfeat extract {where} {' '.join(flags)} --cache {cache}"


def missing_caches(requests: Iterable[CacheRequest]) -> str:
    """Return a message that names the missing caches and how to make them; empty if none is."""
    return "; ".join(
        f"there is no cache {request.extract.cache}; make it with `{request.command}`"
        for request in requests
        if not request.exists
    )


def caches_of(
    config: AblationConfig, cells: Sequence[Cell], shared: Mapping[str, Any] = NOTHING
) -> dict[Location, CacheRequest]:
    """Return the caches that `cells` need, by folder, in the order of the cells.

    They share the settings of stage 1 of the pipeline's [extract] table.

    Raises:
        ConfigError: a setting that is not allowed, or a recipe for a cache that no cell needs.
    """
    found: dict[Location, CacheRequest] = {}
    for cell in cells:
        for folder in cell.config.cache:
            if folder not in found:
                found[folder] = _request(config, cell, folder, shared)
    names = [_name(config, folder) for folder in found]
    for recipe in config.recipes:
        if recipe not in names:
            raise ConfigError(str(unknown_name("recipe's cache", recipe, names)))
    return found


def _request(
    config: AblationConfig, cell: Cell, folder: Location, shared: Mapping[str, Any]
) -> CacheRequest:
    name = _name(config, folder)
    recipe = config.recipes.get(name) or CacheRecipe(encoder=name)
    own = recipe.model_dump(exclude={"finetune"}, exclude_unset=True)
    if recipe.finetune:
        own["weights"] = str(config.run / "finetuned" / name / FINETUNED)
    settings = {**shared, **own, "manifest": cell.config.manifest, "cache": folder}
    return CacheRequest(build(ExtractConfig, settings, f"recipe {name!r}"), recipe.finetune)


def _name(config: AblationConfig, folder: Location) -> str:
    """Return the name of a cache in the grid's file."""
    return name_below(folder, config.cache_root)
