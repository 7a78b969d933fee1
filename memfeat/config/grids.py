"""Settings of grids: of systems on one dataset (Table 1), and of datasets (Table 2)."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from memfeat.config.extract import LAST_LAYER, Resize, Tokens
from memfeat.config.settings import LocalPath, Seeds, Settings
from memfeat.config.train import Locations, Names, aggregator_names, for_each_cache
from memfeat.manifest import Split
from memfeat.registry import unknown_name
from memfeat.storage import Location
from memfeat.workers import Engine


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


class Ensemble(Settings):
    """A row whose prediction is the average of other rows', each the mean over its seeds."""

    name: str = Field(min_length=1, description="label")
    members: tuple[str, ...] = Field(min_length=2, description="names of rows or baselines")
    weights: Literal["equal", "dev"] = Field(
        "equal", description="alike, or non-negative ones that fit the dev split's scores best"
    )


class CacheRecipe(Settings):
    """How `memfeat extract` makes a cache that is not named after its encoder."""

    encoder: str
    weights: str | None = None
    tokens: Tokens = "cls"
    layer: int = LAST_LAYER
    resize: Resize = "squash"
    sampler: str = "every"
    max_seconds: float | None = None
    text: tuple[str, ...] = ()
    finetune: LocalPath | None = Field(
        None, description="pipeline whose [finetune] table makes the weights, from the same videos"
    )


class AblationConfig(Settings):
    """A grid of systems: explicit rows, the product of lists, or both."""

    title: str = Field(description="heading of the table")
    run: LocalPath = Field(description="folder the table and the cells' runs go to")
    split: Split = Field("dev", description="split that the table reports (the paper: dev)")
    seeds: Seeds = Field((0, 1, 2, 3, 4), description="of every cell, such as 0-4")
    cache_root: Location = Field(Path("cache"), description="folder of the rows' caches")
    recipes: dict[str, CacheRecipe] = Field(
        default_factory=dict, description="by cache: how it is made [with the encoder of its name]"
    )
    caches: tuple[Location, ...] = Field(
        (), description="with aggregators and heads: their product"
    )
    aggregators: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[AblationRow, ...] = ()
    ensembles: tuple[Ensemble, ...] = Field((), description="rows that average others")
    baselines: tuple[str, ...] = Field((), description="scikit-learn models on averaged frames")
    scorers: tuple[Literal["resmem", "vitmem"], ...] = Field(
        (), description="ready scorers as rows: they rate frames, and learn nothing from the scores"
    )
    controls: tuple[str, ...] = Field(
        (), description="`aggregator+head` cells to train on shuffled labels"
    )
    reference: str | None = Field(
        None, description="row that the others are compared with [the best]"
    )
    engine: Engine = Field(
        "local",
        description="where workers run: this machine, or a Ray cluster",
    )
    workers: int = Field(0, ge=0, description="worker processes; 0 for one per CPU core")


class TransferDataset(Settings):
    """One of the datasets to train and evaluate on."""

    name: str = Field(min_length=1, pattern=r"^[^/\\]+$", description="as the table calls it")
    manifest: Location
    cache: Locations = Field(description="folder of shards, made alike for all datasets")


class TransferFigures(Settings):
    """What the paper reports for a pair (Table 2, and Table 1's row 4 within a dataset)."""

    trained_on: str
    evaluated_on: str
    split: Split
    plcc: float | None = None
    srocc: float | None = None
    mse: float | None = None


class TransferConfig(Settings):
    """A model trained on each dataset, evaluated on every one (paper, Table 2)."""

    title: str = Field(description="heading of the table")
    run: LocalPath = Field(description="folder the table and the datasets' runs go to")
    datasets: tuple[TransferDataset, ...] = Field((), description="each is trained on")
    splits: tuple[Split, ...] = Field(("dev", "test"), min_length=1, description="to report")
    seeds: Seeds = Field((0, 1, 2, 3, 4), description="of every dataset's model, such as 0-4")
    paper: tuple[TransferFigures, ...] = ()
    workers: int = Field(0, ge=0, description="worker processes; 0 for one per CPU core")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [dataset.name for dataset in self.datasets]
        if not names:
            raise ValueError("there are no datasets; give [[transfer.datasets]], two or more")
        if len(set(names)) < len(names):
            raise ValueError(f"datasets {names} repeat; give each a name of its own")
        for figures in self.paper:
            for name in (figures.trained_on, figures.evaluated_on):
                if name not in names:
                    raise ValueError(str(unknown_name("dataset", name, names)))
        return self
