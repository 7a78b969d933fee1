"""Every error memfeat raises on purpose, and the exit code each ends a command with.

A message says what was wrong, the value got, what is allowed, and what to do next.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a `memfeat` command tells the shell."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    SOME_VIDEOS_FAILED = 3
    INTERRUPTED = 130
    TERMINATED = 143


class MemfeatError(Exception):
    """Base of all errors with a message meant for the user."""

    exit_code = ExitCode.ERROR


class UnknownNameError(MemfeatError):
    """A name that no registry, model zoo or list of choices knows."""

    exit_code = ExitCode.USAGE


class ConfigError(MemfeatError):
    """A pipeline file or option that is malformed, unknown or out of range."""

    exit_code = ExitCode.USAGE


class ManifestError(MemfeatError):
    """A manifest that breaks its rules; names file, row and column."""


class VideoError(MemfeatError):
    """A video that cannot be used.

    Attributes:
        reason: stable lower-case code, such as `missing` or `unreadable`, that reaches the
            shard, the summary and `--json`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        return type(self), (self.reason, str(self))


class DecoderError(MemfeatError):
    """Processes that decode videos cannot be had, whatever the video."""


class EncoderError(MemfeatError):
    """An encoder or its weights that cannot be loaded as asked."""


class CacheError(MemfeatError):
    """A cache that is damaged, missing videos, or made by another encoder."""


class DamagedShardError(CacheError):
    """A shard that is not as it was written; extraction sets it aside and makes it again."""


class TrainingError(MemfeatError):
    """Training data or settings that cannot give a model."""


class RunError(MemfeatError):
    """A run folder that is incomplete, damaged, or does not fit the cache given."""
