"""The one mechanism behind every list of names: encoders, aggregators, heads, converters."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from memfeat.errors import UnknownNameError

T = TypeVar("T")
# What `memfeat list` prints.
LISTED = (
    *("encoders", "text-encoders", "aggregators", "heads", "baselines", "formats"),
    "settings",
)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not among `known`: the nearest, then the choices.

    Of more than a dozen choices that `memfeat list` prints, only the nearest are given.
    """
    choices = sorted(known)
    folded = {choice.lower(): choice for choice in choices}
    nearest = [folded[near] for near in difflib.get_close_matches(name.lower(), folded, n=3)]
    hint = f" Did you mean {' or '.join(repr(near) for near in nearest)}?" if nearest else ""
    listed = f"{kind}s".replace(" ", "-")
    if len(choices) > 12 and listed in LISTED:
        allowed = f"One of {len(choices)} names is allowed; `memfeat list {listed}` prints them."
    else:
        allowed = f"Choose one of: {', '.join(choices)}."
    return UnknownNameError(f"unknown {kind} {name!r}.{hint} {allowed}")


class Registry(Generic[T]):
    """Names to classes. Registering a class makes it a choice everywhere.

    Examples:
        >>> shapes: Registry[type] = Registry("shape")
        >>> @shapes.register("dot")
        ... class Dot: ...
        >>> shapes.get("dot") is Dot
        True
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its class under `name`.

        Raises:
            ValueError: the name is taken.
        """

        def decorate(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return decorate

    def get(self, name: str) -> T:
        """Return the entry called `name`.

        Raises:
            UnknownNameError: no such name; the message lists the choices and the nearest one.
        """
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
