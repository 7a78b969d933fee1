"""Settings of a grid of systems."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from memfeat.config.extract import Tokens
from memfeat.config.settings import LocalPath, Seeds, Settings, Split
from memfeat.config.streams import Locations, Names, aggregator_names, for_each_cache
from memfeat.engines import Engine
from memfeat.storage import Location


class PaperFigures(Settings):
    """What the paper reports for a row (Table 1)."""

    plcc: float | None = None
    srocc: float | None = None


class AblationRow(Settings):
    """One system of a table: caches, aggregators and a head, trained over the table's seeds."""

    name: str | None = Field(None, description="label [aggregator+head]")
    cache: Locations = Field(description="below `cache_root`; several are streams side by side")
    aggregator: Names = Field(description="one for all caches, or one each")
    head: str
    train: dict[str, Any] = Field(default_factory=dict, description="settings for this row alone")
    paper: PaperFigures | None = None

    _for_each_cache = field_validator("aggregator")(for_each_cache)

    @property
    def system(self) -> str:
        """Aggregators and head as one name, such as `bigru+mlp`, or `avg,bigru+mlp` of two."""
        return f"{aggregator_names(self.aggregator)}+{self.head}"


class CacheRecipe(Settings):
    """How `memfeat extract` makes a cache that is not simply named after its encoder."""

    encoder: str
    weights: str | None = None
    tokens: Tokens = "cls"
    sampler: str = "every"
    finetune: LocalPath | None = Field(
        None, description="pipeline whose [finetune] table makes the weights, from the same videos"
    )


class AblationConfig(Settings):
    """A grid of systems: rows one by one, the product of lists, or both."""

    title: str = Field(description="heading of the table")
    run: LocalPath = Field(description="folder the table and the cells' runs go to")
    split: Split = Field("dev", description="split that the table reports (the paper: dev)")
    seeds: Seeds = Field((0, 1, 2, 3, 4), description="of every cell, such as 0-4")
    cache_root: Location = Field(Path("cache"), description="folder that the rows' caches lie in")
    recipes: dict[str, CacheRecipe] = Field(
        default_factory=dict, description="by cache: how it is made [with the encoder of its name]"
    )
    caches: tuple[Location, ...] = Field(
        (), description="with aggregators and heads: their product"
    )
    aggregators: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[AblationRow, ...] = ()
    baselines: tuple[str, ...] = Field((), description="scikit-learn models on averaged frames")
    controls: tuple[str, ...] = Field(
        (), description="`aggregator+head` cells to train on shuffled labels"
    )
    reference: str | None = Field(
        None, description="row that the others are compared with [the best]"
    )
    engine: Engine = Field(
        "local", description="where workers are: processes here, or actors of a Ray cluster"
    )
    workers: int = Field(0, ge=0, description="processes; 0 for one per CPU core")
