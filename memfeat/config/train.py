"""Settings of stage 2: one system trained by the paper's recipe, and I3D finetuned end to end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WrapSerializer,
    field_validator,
    model_validator,
)

from memfeat.config.settings import LocalPath, Missing, Seeds, Settings
from memfeat.storage import Location, Url


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path | Url) else value


def _without_list(value: tuple[Any, ...], write: SerializerFunctionWrapHandler) -> Any:
    written = write(value)
    return written[0] if len(value) == 1 else written


# A single one may be written without a list, and is written back so.
_one_or_several = BeforeValidator(_as_tuple), WrapSerializer(_without_list, when_used="json")

Locations = Annotated[tuple[Location, ...], Field(min_length=1), *_one_or_several]
Names = Annotated[tuple[str, ...], Field(min_length=1), *_one_or_several]


def for_each_cache(aggregators: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """Return one aggregator per cache of the settings; a single one is used for all.

    Raises:
        ValueError: there are several, but not as many as caches.
    """
    caches = info.data.get("cache")
    if caches is None or len(aggregators) == len(caches):
        return aggregators
    if len(aggregators) > 1:
        raise ValueError(
            f"{len(aggregators)} aggregators do not fit a cache count of {len(caches)}; name one "
            "for all caches, or one for each"
        )
    return aggregators * len(caches)


def aggregator_names(aggregators: Sequence[str]) -> str:
    """Join the names of aggregators; a name is given once if they are all the same."""
    return ",".join(aggregators[:1] if len(set(aggregators)) == 1 else aggregators)


def cache_names(caches: Sequence[Location]) -> str:
    """Join the names of caches, such as `ViT-B-32 + i3d`."""
    return " + ".join(cache.name for cache in caches)


Monitor = Literal["l1", "srocc", "plcc"]
Loss = Literal["l1", "mse", "huber", "ccc", "rank"]


class TrainConfig(Settings):
    """Stage 2: which caches, which model, and the paper's recipe.

    Several caches are parallel streams, each with its own aggregator; the aggregators' vectors
    are concatenated (Table 1, rows 9-11).
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
    folds: int = Field(
        0,
        ge=0,
        le=1000,
        description="cross-validate train and dev together in so many folds; 0: as split (ours)",
    )
    group: Literal["group", "dataset"] = Field(
        "group", description="manifest column whose equal videos stay in one fold (ours)"
    )
    fold_seed: int = Field(0, ge=0, lt=2**31, description="of the draw of folds (ours)")
    batch_size: int = Field(8, ge=1, le=65_536, description="videos per step")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's rate in the first epoch")
    learning_rate_decay: float = Field(0.95, gt=0, le=1, description="factor every so many epochs")
    decay_every_epochs: int = Field(5, ge=1, description="epochs between two decays")
    weight_decay: float = Field(0.0, ge=0, description="Adam's (ours)")
    optimizer: Literal["adam", "adamw"] = Field(
        "adam", description="adamw keeps weight decay apart from the gradient (ours)"
    )
    loss: Loss = Field("l1", description="what training makes small; the paper: l1")
    standardise: bool = Field(
        False, description="embeddings of mean 0 and deviation 1 over the training videos (ours)"
    )
    weight_by_annotations: bool = Field(
        False, description="a video counts by how many people's answers it has (ours)"
    )
    max_epochs: int = Field(100, ge=1, description="epochs at most")
    patience_epochs: int = Field(5, ge=1, description="stop after so many without improvement")
    monitor: Monitor = Field("l1", description="what improvement means, on the dev split (ours)")
    missing: Missing = Field(
        "drop",
        description="a video without a text in a cache of texts is left out (drop), or zeros stand "
        "for it (zero) (ours)",
    )
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

    @field_validator("folds")
    @classmethod
    def _three_parts(cls, folds: int) -> int:
        if 0 < folds < 3:
            raise ValueError(
                "give 3 or more: one is held out, one chooses the epoch, the others teach"
            )
        return folds


class FinetuneConfig(Settings):
    """I3D trained end to end: which videos, from which weights, and how. All defaults are ours."""

    manifest: Location = Field(description="videos, splits and scores")
    root: Location | None = Field(
        None, description="folder that the manifest's paths start from [the manifest's own]"
    )
    run: LocalPath = Field(Path("runs/finetune"), description="folder the result goes to")
    weights: str = Field(description="to start from: an I3D checkpoint file, or `random`")
    image_size: int = Field(
        224, ge=32, le=1024, description="pixels a side; less than 224 for trials (ours)"
    )
    batch_size: int = Field(8, ge=1, le=1024, description="videos per step, a clip of each (ours)")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's rate in the first epoch (ours)")
    learning_rate_decay: float = Field(
        0.95, gt=0, le=1, description="factor every so many epochs (ours)"
    )
    decay_every_epochs: int = Field(5, ge=1, description="epochs between two decays (ours)")
    weight_decay: float = Field(0.0, ge=0, description="Adam's (ours)")
    dropout: float = Field(0.5, ge=0, lt=1, description="before the last layer (I3D's own)")
    max_epochs: int = Field(100, ge=1, description="epochs at most (ours)")
    patience_epochs: int = Field(
        5, ge=1, description="stop after so many without improvement (ours)"
    )
    monitor: Monitor = Field("l1", description="what improvement means, on the dev split (ours)")
    freeze_batch_norm: bool | None = Field(
        None, description="keep batch norms' statistics [yes, unless from random weights] (ours)"
    )
    gradient_checkpointing: bool | None = Field(
        None, description="less memory for more time, same gradients [on a GPU] (ours)"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 autocast on a GPU (ours)"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of new weights, clips, order and dropout")
    bootstrap: int = Field(1000, ge=0, description="resamples per interval; 0 for none (ours)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    decoders: int = Field(2, ge=1, description="videos decoded at once")
    limit: int | None = Field(None, ge=1, description="only the first so many videos")
    max_frames: int | None = Field(None, ge=1, description="only each video's first so many frames")
