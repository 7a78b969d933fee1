"""The base of all settings, and how they are read from a pipeline file."""

import tomllib
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from memfeat.errors import ConfigError, short_repr
from memfeat.registry import unknown_name
from memfeat.storage import Url, is_url, parse_location

TABLES = ("extract", "train", "ablation", "finetune", "transfer")
EXTENDS = "extends"
_PACKAGE = Path(__file__).parents[1]
SHIPPED = _PACKAGE.parent / "pipelines", _PACKAGE / "pipelines"  # in a checkout, and installed
FLAG_ALONE = "flag_alone"  # key in a field's extras: the value of its flag given alone
MOST_SEEDS = 10_000


def _read_local_path(value: Any) -> Any:
    if isinstance(value, Url) or (isinstance(value, str) and is_url(value)):
        raise ValueError("it is a URL; name a file or folder on this machine")
    return parse_location(str(value)) if isinstance(value, str | Path) else value


LocalPath = Annotated[Path, BeforeValidator(_read_local_path)]


def _check_printable(value: str) -> str:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("it holds a control character; it is printed, so write plain text")
    return value


Printed = Annotated[str, AfterValidator(_check_printable)]


class Settings(BaseModel):
    """Base of all settings: frozen, typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def parse_seeds(value: Any) -> tuple[int, ...]:
    """Parse seeds: `3`, `"0-4"`, `"0,2,7"`, or a list of numbers.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, list | tuple):
        return tuple(value)
    seeds: list[int] = []
    for part in str(value).split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"seeds {value!r} are not numbers or ranges; write 0, 0-4 or 0,2,7")
        found = range(int(first), int(last if dash else first) + 1)
        if len(seeds) + len(found[:MOST_SEEDS]) >= MOST_SEEDS:
            raise ValueError(f"these are {MOST_SEEDS} seeds or more; each is a model, give fewer")
        seeds.extend(found)
    return tuple(seeds)


def _parse_written(value: Any) -> Any:
    return parse_seeds(value) if isinstance(value, str | int) else value


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**31)], ...],
    Field(min_length=1),
    BeforeValidator(_parse_written),
]

S = TypeVar("S", bound=Settings)
Missing = Literal["drop", "zero"]  # what becomes of a video without a text


def read_pipeline(path: Path, *, extended_by: tuple[Path, ...] = ()) -> dict[str, dict[str, Any]]:
    """Read the tables of a pipeline file as plain dictionaries; `build` validates them.

    With `extends = "other.toml"` a file overrides single values of another one beside it. Those
    that memfeat brings are found wherever it runs: as `table1`, or `pipelines/table1.toml`.

    Raises:
        ConfigError: no such file, not TOML, a table that no command knows, or files that extend
            each other.
    """
    shipped = {found.stem: found for folder in SHIPPED for found in folder.glob("*.toml")}
    if not path.exists() and path.parent in {Path(), Path("pipelines")}:
        path = shipped.get(path.stem, path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        names = ", ".join(sorted(shipped))
        raise ConfigError(
            f"cannot read pipeline {path}: {error.strerror}; name a file, or one of {names}"
        ) from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and for year 0 or 5,000 digits
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    base = tables.pop(EXTENDS, None)
    for name, table in tables.items():
        if name not in TABLES:
            raise ConfigError(f"{path}: {unknown_name('table', name, (*TABLES, EXTENDS))}")
        if not isinstance(table, dict):
            raise ConfigError(
                f"{path}: {name!r} is {short_repr(table)}, not a table; write [{name}]"
            )
    if base is None:
        return tables
    if not isinstance(base, str) or not base or "\0" in base:
        raise ConfigError(f"{path}: {EXTENDS} = {base!r} is not allowed; name a pipeline file")
    older = (*extended_by, path.resolve())
    if (path.parent / base).resolve() in older:
        raise ConfigError(f"{path}: {EXTENDS} = {base!r} comes back to itself; end the circle")
    return _merged(read_pipeline(path.parent / base, extended_by=older), tables)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `changes`, merging tables; a list replaces another as a whole."""
    inner = {
        name: _merged(values[name], change)
        for name, change in changes.items()
        if isinstance(change, dict) and isinstance(values.get(name), dict)
    }
    return {**values, **changes, **inner}


def build(settings: type[S], values: dict[str, Any], source: str) -> S:
    """Validate `values` as `settings`.

    Args:
        settings: the class to build.
        values: field names to values, as TOML or the command line gives them.
        source: where the values come from, for messages.

    Raises:
        ConfigError: an unknown field, a missing one, or a value that is not allowed; the message
            has the field, the value and the rule.
    """
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt setting explains a missing one, so it is reported first.
        problem = min(problems, key=lambda each: each["type"] != "extra_forbidden")
        field = ".".join(map(_name_of, problem["loc"])) or settings.__name__
        if problem["type"] == "extra_forbidden":
            message = str(unknown_name("setting", field, settings.model_fields))
        elif problem["type"] == "missing":
            message = f"{field} is missing; set it there or give --{field.replace('_', '-')}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            message = f"{field} = {short_repr(problem['input'])} is not allowed: {reason}"
        raise ConfigError(f"{source}: {message}") from error


def _name_of(part: str | int) -> str:
    """Return a part of a field's name, fit for a message of one line."""
    text = str(part)
    return text if text.isprintable() else repr(text)


def read_settings(
    settings: type[S], table: str, pipeline: str | Path | None, values: dict[str, Any]
) -> S:
    """Merge a pipeline's table with values that override it, and validate.

    Raises:
        ConfigError: as for `read_pipeline` and `build`.
    """
    found = dict(read_pipeline(Path(pipeline)).get(table, {})) if pipeline else {}
    source = f"{pipeline} [{table}]" if pipeline else "options"
    return build(settings, found | given(values), source=source)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that were given; a flag that can be repeated is empty if it was not."""
    return {name: value for name, value in values.items() if value not in (None, ())}
