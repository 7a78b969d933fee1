"""Settings of what precedes training: extraction and its plan, labels, features made elsewhere."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from memfeat.config.settings import FLAG_ALONE, LocalPath, Printed, Settings
from memfeat.storage import Location
from memfeat.workers import Engine


def _check_tokens(value: str) -> str:
    if not re.fullmatch(r"cls(\+[1-9][0-9]?x[1-9][0-9]?)?", value):
        raise ValueError("write cls, or a grid of 1 to 99 rows and columns beside it, like cls+2x2")
    return value


def _check_part(value: str) -> str:
    written = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value)
    if not written or not 1 <= int(written[1]) <= int(written[2]):
        raise ValueError("write which share of how many, from 1/N to N/N, such as 2/10")
    return value


Resize = Literal["squash", "crop"]
Part = Annotated[str, AfterValidator(_check_part)]
Tokens = Annotated[str, AfterValidator(_check_tokens)]


def token_grid(tokens: Tokens) -> tuple[int, int]:
    """Return rows and columns of the grid of patches: (2, 2) for `cls+2x2`, (0, 0) for `cls`."""
    rows, _, columns = tokens.partition("+")[2].partition("x")
    return int(rows or 0), int(columns or 0)


def count_tokens(tokens: Tokens) -> int:
    """Return how many vectors a frame `tokens` asks for, such as 5 for `cls+2x2`."""
    rows, columns = token_grid(tokens)
    return 1 + rows * columns


def _parse_reasons(value: Any) -> Any:
    if isinstance(value, bool):
        return (EVERY_REASON,) if value else ()
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"[a-z_0-9]+(,[a-z_0-9]+)*", value):
        raise ValueError("write reasons with commas between them, such as missing,timeout; or all")
    return tuple(value.split(",")) if value != "none" else ()


EVERY_REASON = "all"
MAX_PIXELS = 1 << 26  # of a frame; two of 8K
LAST_LAYER = -1  # of a Vision Transformer
UNTAGGED_HD = "BT.709"  # what players take untagged video of 720 lines or more for
Reasons = Annotated[tuple[str, ...], BeforeValidator(_parse_reasons)]
OnPartial = Literal["keep", "skip", "fail"]


TEXT_PREFIXES = ("text/", "sentence/")  # of the names of encoders that take texts


class ExtractConfig(Settings):
    """Stage 1: which videos, which encoder, and where the cache is written."""

    manifest: Location = Field(description="which videos")
    root: Location | None = Field(
        None, description="folder that the manifest's paths start from [the manifest's own]"
    )
    cache: Location = Field(description="folder of shards")
    encoder: str = Field("ViT-L-14-336", description="frame encoder; `memfeat list` names them")
    weights: str | None = Field(
        None,
        description="tag, checkpoint file, or `random`; i3d has files only [open_clip: openai; "
        "timm/... and torchvision/...: the library's own default; efficientnet-lite0: imagenet]",
    )
    activation: Literal["auto", "gelu", "quickgelu"] = Field(
        "auto", description="only for a checkpoint file that does not name it"
    )
    precision: Literal["auto", "float32", "half", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: float32 on a CPU, half on a GPU, which is float16 for weights that came "
        "in it, else bfloat16 (ours)",
    )
    compile: bool = Field(
        False, description="compile the encoder: a minute or two first, other last bits; for GPUs"
    )
    tokens: Tokens = Field(
        "cls", description="vectors a frame: cls, or cls+2x2 with a grid of patches too (ours)"
    )
    layer: int = Field(
        LAST_LAYER,
        description="block after which a Vision Transformer ends, from 0; -1: the last (ours)",
    )
    resize: Resize = Field(
        "squash", description="to a square: squash all of a frame, or crop its middle (ours)"
    )
    sampler: str = Field(
        "every",
        description="frames kept: every, stride:N, fps:X, thumbnail:X, embedding:X (paper: every)",
    )
    fps: float | None = Field(
        None, gt=0, description="take folders of numbered frames as videos, so many a second"
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="frames per encoder call")
    videos_per_shard: int = Field(32, ge=1, description="videos in one HDF5 file")
    engine: Engine = Field(
        "local", description="what runs the encoders: this machine, or a Ray cluster"
    )
    device: str = Field(
        "auto", description="auto, cpu, cuda, cuda:1, or several with commas: one worker each"
    )
    decoders: int | None = Field(
        None,
        ge=1,
        description="decoder processes in all [with GPUs one per core, else one per 4 cores]",
    )
    limit: int | None = Field(None, ge=1, description="only the first so many videos")
    part: Part | None = Field(
        None, description="only this share of the shards, such as 2/10, for one of several jobs"
    )
    max_frames: int | None = Field(None, ge=1, description="only each video's first so many frames")
    max_seconds: float | None = Field(
        None, gt=0, description="only each video's first so many seconds"
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="refuse videos of larger frames than two of 8K",
    )
    allow_images: bool = Field(False, description="take an image as a video of one frame")
    on_partial: OnPartial = Field(
        "keep",
        description="of a damaged video, keep what can be decoded (training leaves it out), skip "
        "it as failed, or fail the run",
    )
    time_limit: float = Field(
        120, gt=0, description="seconds without a frame after which a video fails"
    )
    retry_failed: Reasons = Field(
        (),
        description="try videos again that failed before, or =REASON,... only those that failed "
        "or are partial for it",
        json_schema_extra={FLAG_ALONE: EVERY_REASON},
    )
    text: tuple[str, ...] = Field(
        (),
        validate_default=True,
        description="encode texts, not frames: a column of the manifest such as caption, "
        "FILE.csv[:COLUMN,...] with ids, or a folder of ID.txt, ID.srt or ID.vtt",
    )

    @field_validator("text")
    @classmethod
    def _fits_encoder(cls, text: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        encoder = str(info.data.get("encoder"))
        if bool(text) != encoder.startswith(TEXT_PREFIXES):
            what = "takes frames; choose one of texts, such as text/ViT-L-14-336"
            raise ValueError(
                f"encoder {encoder} {what}"
                if text
                else f"encoder {encoder} takes texts; say which, such as --text caption"
            )
        return text


class ConvertConfig(Settings):
    """Conversion: which of a dataset's scores go into the manifest, and where its videos are."""

    target: str | None = Field(None, description="which score [the first of the format's targets]")
    videos: LocalPath | None = Field(None, description="folder of the videos, at any depth [SRC]")
    splits: LocalPath | None = Field(
        None, description="CSV with columns video,split, in place of the format's own split"
    )
    seed: int | None = Field(None, ge=0, description="of the split, for formats without one [0]")
    keep_missing: bool = Field(
        False, description="keep rows whose video was not found, under the name they list"
    )
    lag: float | None = Field(
        None,
        ge=0,
        le=180,
        description="of memento10k: the score when so many videos lie in between [80, as scored]",
    )
    id_column: str | None = Field(
        None, description="of a format without known columns: which holds ids or file names"
    )
    score_column: str | None = Field(None, description="likewise: which holds the scores")
    group_column: str | None = Field(
        None, description="likewise: which holds what stays together in folds and splits"
    )


class ImportConfig(Settings):
    """Import of features made elsewhere: their name, source and normalisation."""

    name: Printed | None = Field(
        None,
        min_length=1,
        description="what made them, as tables and pictures name it; what `memfeat cache export` "
        "wrote says it itself",
    )
    source: Printed | None = Field(
        None, min_length=1, description="where they come from, in words [the file's name]"
    )
    normalise: Literal["l2", "none"] = Field(
        "l2", description="l2 divides each vector by its length, as the paper does"
    )
    manifest: Location | None = Field(None, description="import the videos of this manifest only")


class CacheCompareConfig(Settings):
    """Comparison of features: with which videos the cause of a difference is looked for."""

    manifest: Location | None = Field(
        None, description="where the videos are: encode a few again, to find what differs"
    )
    root: Location | None = Field(
        None, description="folder that its paths start from [the manifest's own]"
    )
    weights: str | None = Field(None, description="the checkpoint, if the cache was made with one")
    videos: int = Field(3, ge=1, description="that are encoded again")
    frames: int = Field(8, ge=1, description="of each of these")
    device: str = Field("auto", description="auto, cpu or cuda:N")


EXTRACT = {name: field.default for name, field in ExtractConfig.model_fields.items()}
SAME = "as in `memfeat extract`"


class PlanConfig(Settings):
    """What is to be extracted, how fast it goes, and what that is worth."""

    manifest: Location | None = Field(None, description="which videos; or give --videos, --seconds")
    root: Location | None = Field(None, description="where its paths start [the manifest's folder]")
    headers: int = Field(100, ge=1, description="of its videos that are read for their lengths")
    videos: int | None = Field(None, ge=1, le=10**13, description="how many, without a manifest")
    seconds: float | None = Field(None, gt=0, le=10**6, description="length of each of --videos")
    fps: float = Field(25, gt=0, le=1000, description="frames a second of --videos")
    encoder: str = Field(EXTRACT["encoder"], description=SAME)
    tokens: Tokens = Field(EXTRACT["tokens"], description=SAME)
    videos_per_shard: int = Field(EXTRACT["videos_per_shard"], ge=1, description=SAME)
    keep: float = Field(1, gt=0, le=1, description="share of the frames that a sampler keeps")
    rate: float | None = Field(None, gt=0, description="frames/s that one GPU encodes")
    rate_from: LocalPath | None = Field(None, description="JSON of `memfeat extract` with --rate")
    rate_field: str | None = Field(None, description="its name there [frames_per_second, or _360p]")
    gpus: int = Field(1, ge=1, description="that encode")
    price: float | None = Field(None, ge=0, description="of one GPU for an hour, in any currency")
    cores: int | None = Field(None, ge=1, description="that decode, in all")
    decode_rate: float | None = Field(None, gt=0, description="frames/s that one core decodes")
