"""What to run: frozen settings whose defaults stand here and nowhere else.

The defaults are the paper's recipe (Agarla et al. 2022, section 3); where the paper is silent the
field says "ours". A pipeline file is TOML with any of the tables `[extract]`, `[train]` and
`[ablation]`; a command reads its own table and its flags override it.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from memfeat.errors import ConfigError
from memfeat.registry import unknown_name

TABLES = ("extract", "train", "ablation")
Split = Literal["train", "dev", "test"]
Monitor = Literal["l1", "srocc", "plcc"]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)]


def _check_place(value: Any) -> Any:
    if isinstance(value, str | Path) and (not str(value) or "\0" in str(value)):
        raise ValueError("it is not a path; name a file or folder")
    return value


Place = Annotated[Path, BeforeValidator(_check_place)]


class Settings(BaseModel):
    """Base of all settings: frozen, typed, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ExtractConfig(Settings):
    """Stage 1: which videos, which encoder, where the cache goes."""

    manifest: Place = Field(description="which videos")
    root: Place | None = Field(
        None, description="folder that the manifest's paths start from [the manifest's own]"
    )
    cache: Place = Field(description="folder of shards")
    encoder: str = Field("ViT-L-14-336", description="frame encoder; `memfeat list` names them")
    weights: str | None = Field(
        None, description="tag, checkpoint file, or `random` [the encoder's own: openai, imagenet]"
    )
    activation: Literal["auto", "gelu", "quickgelu"] = Field(
        "auto", description="only for a checkpoint file that does not tell"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 on a GPU (ours)"
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="frames per encoder call")
    videos_per_shard: int = Field(32, ge=1, description="videos in one HDF5 file")
    device: str = Field(
        "auto", description="auto, cpu, cuda, cuda:1, or several with commas: one worker each"
    )
    decoders: int = Field(2, ge=1, description="videos decoded at once, per worker")
    limit: int | None = Field(None, ge=1, description="only the first so many videos")
    max_frames: int | None = Field(None, ge=1, description="only each video's first so many frames")
    retry_failed: bool = Field(False, description="try videos again that failed before")


class TrainConfig(Settings):
    """Stage 2: which cache, which model, and the paper's recipe."""

    manifest: Place = Field(description="videos, splits and scores")
    cache: Place = Field(description="folder of shards")
    run: Place = Field(Path("runs/train"), description="folder the result goes to")
    aggregator: str = Field("bigru", description="frames to one vector; `memfeat list` names them")
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

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str | int) else value

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat; give each once")
        return self


class PaperFigures(Settings):
    """What the paper reports for a row (Table 1)."""

    plcc: float | None = None
    srocc: float | None = None


class AblationRow(Settings):
    """One system of a table: a cache, an aggregator and a head, trained over the table's seeds."""

    name: str | None = Field(None, description="label [aggregator+head]")
    cache: Place = Field(description="below `cache_root`")
    aggregator: str
    head: str
    train: dict[str, Any] = Field(default_factory=dict, description="settings for this row alone")
    paper: PaperFigures | None = None


class AblationConfig(Settings):
    """A grid of systems: rows one by one, the product of lists, or both."""

    title: str = Field(description="heading of the table")
    run: Place = Field(description="folder the table and the cells' runs go to")
    split: Split = Field("dev", description="split that the table reports (the paper: dev)")
    seeds: Seeds = Field((0, 1, 2, 3, 4), description="of every cell, such as 0-4")
    cache_root: Place = Field(Path("cache"), description="folder that the rows' caches lie in")
    caches: tuple[Place, ...] = Field((), description="with aggregators and heads: their product")
    aggregators: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[AblationRow, ...] = ()
    baselines: tuple[str, ...] = Field((), description="scikit-learn models on averaged frames")
    controls: tuple[str, ...] = Field(
        (), description="`aggregator+head` cells to train on shuffled labels"
    )
    workers: int = Field(0, ge=0, description="processes; 0 for one per CPU core")

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, value: Any) -> Any:
        return parse_seeds(value)


S = TypeVar("S", bound=Settings)


def read_pipeline(path: Path) -> dict[str, dict[str, Any]]:
    """Read a pipeline file's tables, each a plain dictionary, none validated yet.

    Raises:
        ConfigError: no such file, not TOML, or a table that no command knows.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read pipeline {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    for name, table in tables.items():
        if name not in TABLES:
            raise ConfigError(f"{path}: {unknown_name('table', name, TABLES)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} is {table!r}, not a table; write [{name}]")
    return tables


def build(settings: type[S], values: dict[str, Any], source: str) -> S:
    """Validate `values` as `settings`.

    Args:
        settings: the class to build.
        values: field names to values, as TOML or the command line gives them.
        source: where the values come from, for the message.

    Raises:
        ConfigError: an unknown field, a missing one, or a value that is not allowed; the message
            names the field, the value and the rule.
    """
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt setting explains a missing one, so it comes first.
        problem = min(problems, key=lambda each: each["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in problem["loc"]) or settings.__name__
        if problem["type"] == "extra_forbidden":
            message = str(unknown_name("setting", field, settings.model_fields))
        elif problem["type"] == "missing":
            message = f"{field} is missing; set it there or give --{field.replace('_', '-')}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            message = f"{field} = {problem['input']!r} is not allowed: {reason}"
        raise ConfigError(f"{source}: {message}") from error


def parse_seeds(value: Any) -> tuple[int, ...]:
    """Read seeds as people write them: `3`, `"0-4"`, `"0,2,7"`, or a list of numbers.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, list | tuple):
        return tuple(value)
    seeds: list[int] = []
    for part in str(value).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"seeds {value!r} are not numbers or ranges; write 0, 0-4 or 0,2,7")
        seeds.extend(range(int(first), int(last if dash else first) + 1))
    return tuple(seeds)
