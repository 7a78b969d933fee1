"""Settings of a plan of stage 1."""

from pydantic import Field

from memfeat.config.extract import ExtractConfig, Tokens
from memfeat.config.settings import LocalPath, Settings
from memfeat.storage import Location

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
