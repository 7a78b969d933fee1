"""Telling of a shard that is not as it was written."""

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memfeat.errors import DamagedShardError

# What says nothing about a file: it may not be read, too many are open, a server is away, ...
NOT_OF_THE_FILE = {
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT),
}


def damage(path: Path, what: str) -> DamagedShardError:
    """Return the error to raise for shard `path`."""
    repair = f"`memfeat cache repair {shlex.quote(str(path.parent))}`"
    return DamagedShardError(
        f"{path} is damaged: {what}. {repair} sets it aside, and `memfeat extract` makes it again"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell of whatever HDF5, the system or our decoding stumbles over as damage to the shard.

    Raises:
        DamagedShardError: that.
        OSError: it may not be read, or for now nothing can be.
    """
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno in NOT_OF_THE_FILE:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise damage(path, " ".join(str(error).split())) from error
