"""What all commands have in common: `-q` and `-v`, and a variable of the environment an option."""

import logging
import os

import click
from click.core import ParameterSource

QUIET = "memfeat.quiet"  # in the meta of a command's context


def prepare(command: click.Command, *names: str) -> None:
    """Give a command, or those of a group, the options and variables that all have.

    Args:
        command: the command; it may have them already.
        names: its own, after those of its groups.
    """
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            prepare(part, *names, name)
    elif not any(option.name == "quiet" for option in command.params):
        command.params += [_quiet(), _verbose()]
        for option in command.params:
            if isinstance(option, click.Option):
                flag = max(option.opts, key=len).lstrip("-")
                option.envvar = [_variable(*names, flag), _variable(flag)]


def variable_of(error: click.ClickException) -> str:
    """Name the variable that a value came from which cannot be taken; empty if from none."""
    if not isinstance(error, click.BadParameter) or not isinstance(error.param, click.Option):
        return ""
    given = error.ctx and error.ctx.get_parameter_source(error.param.name or "")
    found = [name for name in error.param.envvar or () if os.environ.get(name)]
    return found[0] if found and given is ParameterSource.ENVIRONMENT else ""


def is_quiet() -> bool:
    """Return whether the command that runs was told to be quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(QUIET))


def _variable(*words: str) -> str:
    return "_".join(("MEMFEAT", *words)).replace("-", "_").upper()


def _quiet() -> click.Option:
    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        context.meta[QUIET] = value

    text = "Results and errors alone: no progress, notes or summaries."
    return click.Option(
        ["-q", "--quiet"], is_flag=True, expose_value=False, callback=remember, help=text
    )


def _verbose() -> click.Option:
    def log(_: click.Context, __: click.Parameter, value: bool) -> None:
        if value:
            logging.basicConfig(level=logging.INFO, handlers=[_OnStderr()], force=True)

    text = "Also what libraries log, and where in the code an error came from."
    return click.Option(
        ["-v", "--verbose"], is_flag=True, expose_value=False, callback=log, help=text
    )


class _OnStderr(logging.Handler):
    """Writes where stderr is when something is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)
