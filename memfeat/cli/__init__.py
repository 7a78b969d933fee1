"""The `memfeat` command: parse, call the library, print; stdout is data, stderr is talk."""

import io
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

import memfeat
from memfeat.errors import ExitCode, MemfeatError

COMMANDS = {
    "plan": "plan",
    "extract": "extract",
    "train": "train",
    "evaluate": "train",
    "finetune": "finetune",
    "ablation": "ablation",
    "transfer": "transfer",
    "predict": "predict",
    "submission": "submission",
    "report": "report",
    "cache": "cache",
    "status": "status",
    "manifest": "manifest",
    "list": "names",
    "doctor": "doctor",
    "demo": "demo",
}


class _Commands(click.Group):
    """Commands found by name, and library errors as one line and an exit code."""

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
        return command if isinstance(command, click.Command) else None

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a file's name may be any bytes
                stream.reconfigure(errors="backslashreplace")
        try:
            outcome = super().main(*args, **{**kwargs, "standalone_mode": False})
            sys.exit(outcome if isinstance(outcome, int) else ExitCode.DONE)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except MemfeatError as error:
            click.echo(f"Error: {error}", err=True)
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
