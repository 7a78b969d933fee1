"""Settings of a plan of stage 1."""

from typing import Any

from pydantic import Field

from memfeat.config.extract import ExtractConfig, Tokens
from memfeat.config.settings import LocalPath, Settings
from memfeat.storage import Location


def _of_extract(name: str) -> Any:
    return ExtractConfig.model_fields[name].default


class PlanConfig(Settings):
    """What is to be extracted, how fast it goes, and what that is worth."""

    manifest: Location | None = Field(None, description="which videos; or give --videos, --seconds")
    root: Location | None = Field(
        None, description="folder that the manifest's paths start from [the manifest's own]"
    )
    headers: int = Field(
        100, ge=1, description="videos of the manifest whose headers are read for their length"
    )
    videos: int | None = Field(None, ge=1, le=10**13, description="how many, without a manifest")
    seconds: float | None = Field(
        None, gt=0, le=10**6, description="length of each, without a manifest"
    )
    fps: float = Field(25, gt=0, le=1000, description="frames a second, without a manifest")
    encoder: str = Field(_of_extract("encoder"), description="as in `memfeat extract`")
    tokens: Tokens = Field(_of_extract("tokens"), description="as in `memfeat extract`")
    videos_per_shard: int = Field(
        _of_extract("videos_per_shard"), ge=1, description="as in `memfeat extract`"
    )
    keep: float = Field(
        1, gt=0, le=1, description="share of the frames that a sampler passes on to the encoder"
    )
    rate: float | None = Field(None, gt=0, description="frames/s that one GPU encodes")
    rate_from: LocalPath | None = Field(
        None,
        description="JSON of `memfeat extract --json` on one device, or of a benchmark, to take "
        "--rate from",
    )
    rate_field: str | None = Field(
        None, description="which number of that JSON [frames_per_second, or that of 360p]"
    )
    gpus: int = Field(1, ge=1, description="that encode")
    price: float | None = Field(None, ge=0, description="of one GPU for an hour, in any currency")
    cores: int | None = Field(None, ge=1, description="that decode, in all")
    decode_rate: float | None = Field(None, gt=0, description="frames/s that one core decodes")
