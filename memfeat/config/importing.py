"""Settings of the import of features that were made elsewhere."""

from typing import Literal

from pydantic import Field

from memfeat.config.settings import Printed, Settings
from memfeat.storage import Location


class ImportConfig(Settings):
    """What features made elsewhere are called, and what is done with them."""

    name: Printed = Field(
        min_length=1, description="what made them, as tables and pictures name it"
    )
    source: Printed | None = Field(
        None, min_length=1, description="where they come from, in words [the file's name]"
    )
    normalise: Literal["l2", "none"] = Field(
        "l2", description="l2 divides each vector by its length, as the paper does"
    )
    manifest: Location | None = Field(None, description="import the videos of this manifest only")
