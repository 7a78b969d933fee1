"""`memfeat completion`: commands and flags completed by the shell."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    "completion",
    epilog="Example: memfeat completion bash > ~/.local/share/bash-completion/completions/memfeat",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and flags.

    Source it in the shell's start-up file, or put it where the shell looks for completions.
    """
    kind = get_completion_class(shell)
    if kind is not None:
        main = context.find_root().command
        click.echo(kind(main, {}, "memfeat", "_MEMFEAT_COMPLETE").source())
