"""Every error memfeat raises on purpose, and the exit code each ends a command with.

A message says what was wrong, the value got, what is allowed, and what to do next.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a `memfeat` command tells the shell."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    SOME_VIDEOS_FAILED = 3
    INTERRUPTED = 130
    TERMINATED = 143


class MemfeatError(Exception):
    """Base of all errors with a message meant for the user.

    Messages name settings by their flags. A traceback, which Python's users see, says how to read
    these.
    """

    exit_code = ExitCode.ERROR

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if flag := re.search(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)", str(self)):
            self.add_note(f"In Python, {flag[0]} is the argument {flag[1].replace('-', '_')}.")


class UnknownNameError(MemfeatError):
    """A name that no registry, model zoo or list of choices knows."""

    exit_code = ExitCode.USAGE


class ConfigError(MemfeatError):
    """A pipeline file or option that is malformed, unknown or out of range."""

    exit_code = ExitCode.USAGE


class ManifestError(MemfeatError):
    """A manifest that breaks its rules; names file, row and column."""


class ReasonedError(MemfeatError):
    """An error with a reason that programs can tell apart.

    Attributes:
        reason: stable lower-case code.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ReasonedError"], tuple[str, str]]:
        return type(self), (self.reason, str(self))


class VideoError(ReasonedError):
    """A video that cannot be used.

    Its `reason`, such as `missing` or `unreadable`, reaches the shard, the summary and `--json`.
    """


class RemoteError(ReasonedError):
    """A remote file that cannot be read or written.

    Its `reason` is `missing`, `permission`, `unreachable`, or, where no file of that kind can be
    had, `unusable`: a package or credentials are missing.
    """


class DecoderError(MemfeatError):
    """Processes that decode videos cannot be had, whatever the video."""


class EncoderError(MemfeatError):
    """An encoder or its weights that cannot be loaded as asked, or a batch that fails."""


class NoDirectionError(EncoderError):
    """A feature that is zero or not finite, and so has no direction."""


class CacheError(MemfeatError):
    """A cache that is damaged, missing videos, or made by another encoder."""


class DamagedShardError(CacheError):
    """A shard that is not as it was written; extraction sets it aside and makes it again."""


class TrainingError(MemfeatError):
    """Training data or settings that cannot give a model."""


class RunError(MemfeatError):
    """A run folder that is incomplete, damaged, or does not fit the cache given."""


def short_repr(value: Any) -> str:
    """Return `repr(value)`, cut where it is long, to quote a value in an error message."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} in too many brackets"
    return text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters)"


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number of things in words: `1 video`, `2 videos`; `several` where `s` is not it."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names in a row, at most so many, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
