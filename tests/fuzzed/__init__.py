"""Kinds of files that are damaged to see what comes of it, and how the outcome is judged.

Each module has a function that makes its files in a folder, and gives each one's path with a
function that judges its damaged bytes, by an oracle that knows from those bytes alone what may
come of them. Modules, for a kind should load no more than it needs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Read = Callable[[bytes], str]
Files = Iterator[tuple[Path, Read]]
LONGEST_MESSAGE = 5000

REFUSED = "refused"  # with one line
SAME = "same"  # what was read is what was there before the damage
SOUND = "sound"  # it reads as the damaged text says, and obeys the rules
FOUND = "found"  # it reads, differs, and the check that is there for that finds it
GOOD = (REFUSED, SAME, SOUND, FOUND)
WRONG = "wrong"  # data that differs was taken for right
UNCAUGHT = "uncaught"  # an exception that is not ours, or a message of several lines
CRASHED = "crashed"
HUNG = "hung"


class SeveralLinesError(Exception):
    """A message that is not one line of bearable length."""


def check_line(message: str) -> None:
    if len(message.splitlines()) != 1 or len(message) > LONGEST_MESSAGE:
        raise SeveralLinesError(repr(message[:500]))


def check_result(result: Any) -> None:
    """Check that a command ended as commands do, without a traceback."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    for line in result.stderr.splitlines():
        check_line(line)
    if result.exit_code not in (0, 1, 2, 3) or "Traceback" in result.output:
        raise SeveralLinesError(result.output[:500])
