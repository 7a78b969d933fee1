"""Settings of stage 2: one system, trained by the paper's recipe."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from memfeat.config.settings import LocalPath, Seeds, Settings
from memfeat.config.streams import Locations, Names, aggregator_names, for_each_cache
from memfeat.storage import Location

Monitor = Literal["l1", "srocc", "plcc"]


class TrainConfig(Settings):
    """Stage 2: which caches, which model, and the paper's recipe.

    Several caches are streams side by side, each with an aggregator of its own; their vectors are
    concatenated (Table 1, rows 9-11).
    """

    manifest: Location = Field(description="videos, splits and scores")
    cache: Locations = Field(description="folder of shards; several are streams side by side")
    run: LocalPath = Field(Path("runs/train"), description="folder the result goes to")
    aggregator: Names = Field(
        ("bigru",),
        description="frames to one vector, one for all caches or one each; `memfeat list` names "
        "them",
        validate_default=True,
    )
    head: str = Field("mlp", description="vector to score; `memfeat list` names them")
    aggregators: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options by aggregator name"
    )
    heads: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options by head name"
    )
    seeds: Seeds = Field((0,), description="one model each, such as 0-4 or 0,7")
    batch_size: int = Field(8, ge=1, le=65_536, description="videos per step")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's rate in the first epoch")
    learning_rate_decay: float = Field(0.95, gt=0, le=1, description="factor every so many epochs")
    decay_every_epochs: int = Field(5, ge=1, description="epochs between two decays")
    weight_decay: float = Field(0.0, ge=0, description="Adam's (ours)")
    max_epochs: int = Field(100, ge=1, description="epochs at most")
    patience_epochs: int = Field(5, ge=1, description="stop after so many without improvement")
    monitor: Monitor = Field("l1", description="what improvement means, on the dev split (ours)")
    shuffle_frames: bool = Field(True, description="permute each video's frames while training")
    length_buckets: int = Field(
        1, ge=1, description="batches filled by length together, for less padding; 1: none (ours)"
    )
    shuffle_labels: bool = Field(
        False, description="control: permute train and dev scores, so nothing can be learnt"
    )
    bootstrap: int = Field(1000, ge=0, description="resamples per interval; 0 for none (ours)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    threads: int = Field(1, ge=1, description="CPU threads per model; more rarely helps a GRU")

    _for_each_cache = field_validator("aggregator")(for_each_cache)

    @property
    def system(self) -> str:
        """Aggregators and head as one name, such as `bigru+mlp`, or `avg,bigru+mlp` of two."""
        return f"{aggregator_names(self.aggregator)}+{self.head}"

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat; give each once")
        return self
