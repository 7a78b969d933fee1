"""Settings of training on one dataset and evaluating on another."""

from typing import Self

from pydantic import Field, model_validator

from memfeat.config.settings import LocalPath, Seeds, Settings, Split
from memfeat.config.streams import Locations
from memfeat.registry import unknown_name
from memfeat.storage import Location


class TransferDataset(Settings):
    """One of the datasets that models are carried between."""

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
    """Every dataset trained on, every one evaluated on (paper, Table 2)."""

    title: str = Field(description="heading of the table")
    run: LocalPath = Field(description="folder the table and the datasets' runs go to")
    datasets: tuple[TransferDataset, ...] = Field((), description="each is trained on")
    splits: tuple[Split, ...] = Field(("dev", "test"), min_length=1, description="to report")
    seeds: Seeds = Field((0, 1, 2, 3, 4), description="of every dataset's model, such as 0-4")
    paper: tuple[TransferFigures, ...] = ()
    workers: int = Field(0, ge=0, description="processes; 0 for one per CPU core")

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
