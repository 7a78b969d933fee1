"""Settings of the conversion of other people's label files."""

from pydantic import Field

from memfeat.config.settings import LocalPath, Settings


class ConvertConfig(Settings):
    """Which of a dataset's scores go into the manifest, and where its videos lie."""

    target: str | None = Field(None, description="which score [the first of the format's targets]")
    videos: LocalPath | None = Field(
        None, description="folder that the videos lie in, at any depth [SRC]"
    )
    splits: LocalPath | None = Field(
        None, description="CSV with columns video,split, in place of the format's own split"
    )
    seed: int | None = Field(
        None, ge=0, description="of the split, for a format that brings none [0]"
    )
    keep_missing: bool = Field(
        False, description="keep rows whose video was not found, under the name they list"
    )
