"""Telling of a shard that is not as it was written."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memfeat.errors import DamagedShardError


def damage(path: Path, what: str) -> DamagedShardError:
    """Return the error to raise for shard `path`."""
    repair = f"`memfeat cache repair {shlex.quote(str(path.parent))}`"
    return DamagedShardError(
        f"{path} is damaged: {what}. {repair} sets it aside, and `memfeat extract` makes it again"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell of whatever HDF5, the system or our decoding stumbles over as damage to the shard."""
    try:
        yield
    except PermissionError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise damage(path, " ".join(str(error).split())) from error
