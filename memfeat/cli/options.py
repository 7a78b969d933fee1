"""Flags made from the settings classes, so that names, types, defaults and help stand once."""

import functools
import json
import types
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import click
from pydantic.fields import FieldInfo

from memfeat.cli.everywhere import is_quiet
from memfeat.config import Settings, read_pipeline, read_settings
from memfeat.config.settings import FLAG_ALONE
from memfeat.errors import CacheError, ConfigError, ManifestError, counted, listed
from memfeat.storage import Location, Url, is_url

if TYPE_CHECKING:
    from memfeat.manifest import Manifest
    from memfeat.runs import Run

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=Settings)


class CommandOfSwitches(click.Command):
    """A command some of whose flags may stand alone; the value of one follows an equals sign.

    Click by itself would take the next argument for the value, such as the pipeline's path.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; see `click.Command.parse_args`."""
        alone = {
            flag: option.flag_value
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for flag in option.opts
            if isinstance(option.flag_value, str)
        }
        return super().parse_args(ctx, [f"{a}={alone[a]}" if a in alone else a for a in args])


class _LocationType(click.ParamType):  # type: ignore[type-arg] # which it takes from 8.4 on
    """A path, or, unless it has to be on this machine, a URL."""

    name = "path"

    def __init__(self, *, local: bool) -> None:
        self._local = local

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | Url:
        if not is_url(str(value)):
            return Path(value)
        if self._local:
            self.fail(f"{value} is a URL; name a file or folder on this machine", param, ctx)
        try:
            return Url.of(str(value))
        except ValueError as error:
            self.fail(f"{value} is not allowed: {error}", param, ctx)


LOCATION = _LocationType(local=False)
LOCAL_PATH = _LocationType(local=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Tell what would be done; do and write nothing."
)


def other_videos_options(command: F) -> F:
    """Add `--manifest` and `--cache`, for other videos than those that a run was trained on."""
    caches = click.option(
        "--cache",
        "caches",
        type=LOCATION,
        multiple=True,
        help="Their embeddings, a folder for each of the run's caches [the run's own].",
    )
    manifest = click.option("--manifest", type=LOCATION, help="Other videos [the run's own].")
    return manifest(caches(command))


def settings_options(
    settings: type[Settings], table: str = "", file: str = ""
) -> Callable[[F], Callable[..., Any]]:
    """Let a command take settings, each by a flag, and give it what they make as `config`.

    Args:
        settings: their class.
        table: of a pipeline file, that may give them too, so that no flag has to be there.
        file: what a command calls such a file that has to be there, and whose tables it gets as
            `tables`; by default it need not.
    """

    def decorate(command: F) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*, pipeline: Path | None = None, **values: Any) -> Any:
            flags = {name: values.pop(name) for name in settings.model_fields if name in values}
            if file and pipeline:
                values["tables"] = tables = read_pipeline(pipeline)
                if table not in tables:
                    raise ConfigError(
                        f"{pipeline} has no [{table}] table; pipelines/table1.toml and table2.toml "
                        "are examples"
                    )
            return command(config=read_settings(settings, table, pipeline, flags), **values)

        for name, field in reversed(settings.model_fields.items()):
            option = _option(name, field, from_file=bool(table))
            if option is not None:
                run = option(run)
        if not table:
            return run
        shown = file or "[PIPELINE.toml]"
        return click.argument("pipeline", required=bool(file), type=LOCAL_PATH, metavar=shown)(run)

    return decorate


def recipe_options(settings: type[Settings], without: Container[str]) -> Callable[[F], F]:
    """Add flags for the settings of a pipeline's other table, which a command gets as `recipe`.

    Those of names in `without` are left out, for the command has such flags of its own.
    """

    def decorate(command: F) -> F:
        names = [name for name in settings.model_fields if name not in without]

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            return command(recipe={name: values.pop(name, None) for name in names}, **values)

        for name in reversed(names):
            option = _option(name, settings.model_fields[name], from_file=True)
            if option is not None:
                run = option(run)
        return cast("F", run)

    return decorate


def manifest_of(run: "Run", manifest: Location | None) -> "Manifest":
    """Read the manifest that was given, or else the one that a run was trained with.

    Raises:
        ManifestError: it cannot be read; of the run's own, which may have been trained elsewhere,
            says how to give another.
    """
    from memfeat.manifest import read_manifest

    try:
        return read_manifest(manifest or run.config.manifest)
    except ManifestError as error:
        if manifest:
            raise
        raise ManifestError(
            f"{error}. {run.name} was trained with it; if it lies elsewhere here, give "
            "--manifest, and --cache for its features"
        ) from error


def caches_of(run: "Run", caches: Sequence[Location]) -> Sequence[Location]:
    """Return the caches that were given, or else those that a run was trained with.

    Raises:
        CacheError: the run's own, which may have been trained elsewhere, is not there.
    """
    if caches:
        return caches
    for folder in run.config.cache:
        if isinstance(folder, Path) and not folder.is_dir():
            raise CacheError(
                f"there is no cache {folder}. {run.name} was trained with it; if the videos' "
                "features lie elsewhere here, give --cache"
            )
    return run.config.cache


def say(line: str) -> None:
    """Print a message on stderr, beside the data on stdout, unless with --quiet."""
    if not is_quiet():
        click.echo(line, err=True)


def print_json(value: Any) -> None:
    """Print `value` on stdout as indented JSON: a summary by its fields, a path or URL as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


UNITS = {  # of figures whose names do not say them
    **dict.fromkeys(("rate", "decode_needed"), "frames/s"),
    **dict.fromkeys(("shortest", "median", "longest"), "frames"),
    **dict.fromkeys(("hours", "gpu_hours"), "h"),
    "frames_error_95": "of the frames",
    "cost": "in the currency of --price",
}


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print figures on stdout, one a line, but for those with nothing to say."""
    for name, value in figures.items():
        if value not in (None, [], {}):
            click.echo(f"{name:<22} {_text(name, value)}")


def _text(name: str, value: Any) -> str:
    from rich.filesize import decimal

    if isinstance(value, list | dict):
        return some([f"{key} ({value[key]})" if isinstance(value, dict) else key for key in value])
    if isinstance(value, str):
        return value
    if "bytes" in name:
        size = decimal(value, precision=2) if value >= 10_000 else f"{value:,} bytes"
        return f"{size}/s" if name.endswith("_per_second") else size
    number = f"{value:,.2f}" if isinstance(value, float) and value >= 1 else f"{value:,}"
    return f"{number} {UNITS.get(name, '')}".rstrip()


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    return vars(value) if is_dataclass(value) and not isinstance(value, Url) else str(value)


def say_notes(notes: Iterable[str]) -> None:
    """Print what the user should know, but need not act on, on stderr."""
    for note in notes:
        say(f"note: {note}")


def some(names: Sequence[str]) -> str:
    """Name the first few videos, and how many there are."""
    return f"{counted(len(names), 'video')}: {listed(names)}"


def _option(name: str, field: FieldInfo, *, from_file: bool) -> Callable[[F], F] | None:
    flag = f"--{name.replace('_', '-')}"
    kind = _click_type(field.annotation)
    text = field.description or name.replace("_", " ")
    if kind is None:
        return None
    if not field.is_required() and field.default not in (None, ()):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else None
        text += f" [{field.default if default is None else default}]"
    extra = field.json_schema_extra
    if isinstance(extra, dict) and FLAG_ALONE in extra:
        alone, shown = extra[FLAG_ALONE], "[=NAME,...]"
        return click.option(flag, name, is_flag=False, flag_value=alone, metavar=shown, help=text)
    if kind is click.BOOL:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    several = get_origin(field.annotation) is tuple and not _of_numbers(field.annotation)
    if field.is_required() and from_file:
        text += " (required, here or in the file)"
    text += "; repeatable" if several else ""
    required = field.is_required() and not from_file
    return click.option(flag, name, type=kind, required=required, multiple=several, help=text)


def _click_type(annotation: Any) -> "click.ParamType[Any] | None":
    """Return the click type of a field's annotation; None for those only a file can carry."""
    if get_origin(annotation) is Annotated:
        return _click_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return LOCATION if Url in parts else _click_type(parts[0])
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) is tuple:
        return click.STRING if _of_numbers(annotation) else _click_type(get_args(annotation)[0])
    known: dict[Any, click.ParamType[Any]] = {
        bool: click.BOOL,
        int: click.INT,
        float: click.FLOAT,
        str: click.STRING,
        Path: LOCAL_PATH,
    }
    return known.get(annotation)


def _of_numbers(annotation: Any) -> bool:
    """Return whether a tuple is of numbers, which one flag gives, such as 0-4."""
    return int in get_args(get_args(annotation)[0])
