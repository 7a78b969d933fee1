"""The `memfeat` command: parse, call the library, print. Data on stdout, messages on stderr."""

import ast
import io
import logging
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

import memfeat
from memfeat.cli.everywhere import prepare, variable_of
from memfeat.errors import ConfigError, ExitCode, MemfeatError

COMMANDS = {  # to the module of each
    "plan": "extract",
    "extract": "extract",
    "train": "train",
    "evaluate": "train",
    "finetune": "finetune",
    "ablation": "grids",
    "transfer": "grids",
    "predict": "predict",
    "compare": "compare",
    "serve": "serve",
    "submission": "submission",
    "report": "report",
    "run": "runs",
    "cache": "cache",
    "status": "cache",
    "manifest": "manifest",
    "list": "names",
    "doctor": "doctor",
    "demo": "demo",
    "completion": "completion",
}


class _Commands(click.Group):
    """Import a command when it is called; end with one line and an exit code on an error."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"memfeat.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            return None
        prepare(command, cmd_name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(name)) for name in COMMANDS])

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a file's name may be any bytes
                stream.reconfigure(errors="backslashreplace")
        try:
            _require_current_folder()
            outcome = super().main(*args, **{**kwargs, "standalone_mode": False})
            sys.exit(outcome if isinstance(outcome, int) else ExitCode.DONE)
        except click.ClickException as error:
            error.show()
            if variable := variable_of(error):
                click.echo(f"The value comes from the environment: {variable}", err=True)
            sys.exit(error.exit_code)
        except MemfeatError as error:
            click.echo(f"Error: {error}", err=True)
            logging.getLogger(__name__).info("It came from:", exc_info=True)  # with --verbose
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C need not be graceful
            click.echo(
                "Interrupted. What was finished is kept; the same command goes on.", err=True
            )
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:
            # The reader of our stdout went away, as `head` does; a second flush must not complain.
            sys.stderr.close()
            sys.exit(ExitCode.ERROR)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            click.echo(f"Error: {error.strerror or error}{where}", err=True)
            sys.exit(ExitCode.ERROR)


def _require_current_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:  # which some libraries say in words that mislead
        raise ConfigError("the current folder is gone; change to one that is there") from error


def _first_sentence(command: str) -> str:
    """Return the first sentence of a command's help, read from its source without importing it."""
    source = Path(__file__).with_name(f"{COMMANDS[command]}.py").read_text(encoding="utf-8")
    functions = {
        node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)
    }
    text = ast.get_docstring(functions[f"{command}_command"]) or ""
    return " ".join(text.partition("\n\n")[0].split())


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: memfeat predict runs/demo/cells/bigru+mlp clip.mp4 --timeline clip.png",
)
@click.version_option(memfeat.__version__, prog_name="memfeat")
def main() -> None:
    """Predict how memorable a video is.

    Stage 1, `extract`, encodes every frame with a frozen image encoder and caches the embeddings.
    Stage 2, `train` and `ablation`, fits temporal models from the cache alone. `predict` scores
    new videos. Settings come from a TOML file in pipelines/; flags override it.
    """
