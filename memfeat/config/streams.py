"""One or several caches side by side, and which aggregator each is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WrapSerializer,
)

from memfeat.storage import Location, Url


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path | Url) else value


def _alone(value: tuple[Any, ...], write: SerializerFunctionWrapHandler) -> Any:
    written = write(value)
    return written[0] if len(value) == 1 else written


# One may stand without a list around it, and is written so.
_one_or_several = BeforeValidator(_listed), WrapSerializer(_alone, when_used="json")

Locations = Annotated[tuple[Location, ...], Field(min_length=1), *_one_or_several]
Names = Annotated[tuple[str, ...], Field(min_length=1), *_one_or_several]


def for_each_cache(aggregators: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """Return one aggregator for each of the settings' caches; a single one serves all.

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
    """Name the aggregators of streams side by side, once if they are all the same."""
    return ",".join(aggregators[:1] if len(set(aggregators)) == 1 else aggregators)


def cache_names(caches: Sequence[Location]) -> str:
    """Name caches side by side, such as `ViT-B-32 + i3d`."""
    return " + ".join(cache.name for cache in caches)
