"""The `memfeat` command: parse, call the library, print. Data on stdout, messages on stderr."""

import io
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

import memfeat
from memfeat.errors import ExitCode, MemfeatError

# By name: the module that defines it, and the first sentence of its help. It stands here too, so
# that `memfeat --help` imports none of the modules.
COMMANDS = {
    "plan": ("plan", "Reckon what extraction will take."),
    "extract": ("extract", "Encode videos into a cache of embeddings."),
    "train": ("train", "Train an aggregator and a head from a cache."),
    "evaluate": ("train", "Compare a run with the truth."),
    "finetune": ("finetune", "Train I3D end to end, from videos and scores."),
    "ablation": ("ablation", "Train a grid of systems and compare them."),
    "transfer": ("transfer", "Carry models over between datasets."),
    "predict": ("predict", "Score new videos with a run and its encoder."),
    "submission": ("submission", "Write a run file as MediaEval takes them."),
    "report": ("report", "Write a page of tables and plots."),
    "cache": ("cache", "Look into a cache, or move features in or out."),
    "status": ("status", "Say what became of a cache's videos, and what to do about it."),
    "manifest": ("manifest", "Make a manifest of videos, or check one."),
    "list": ("names", "Name encoders, aggregators, heads, and formats of labels."),
    "doctor": ("doctor", "Check versions, devices and weights."),
    "demo": ("demo", "Render the demo clips and write their manifest."),
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
        module = import_module(f"memfeat.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        return command if isinstance(command, click.Command) else None

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])

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
