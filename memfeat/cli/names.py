"""`memfeat list`: the names that there are to choose from."""

import click

from memfeat.cli.options import json_option, print_json

PAPER_WIDTH = 1024


@click.command("list", epilog="Example: memfeat list aggregators")
@click.argument(
    "what",
    required=False,
    type=click.Choice(["encoders", "aggregators", "heads", "baselines", "formats"]),
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    default=PAPER_WIDTH,
    show_default=True,
    help="Embedding width that parameters are counted at.",
)
@json_option
def list_command(what: str | None, width: int, as_json: bool) -> None:
    """Name encoders, aggregators, heads, and formats of labels.

    Without WHAT, also counts the parameters of each aggregator with each head.
    """
    from memfeat.baselines import BASELINES
    from memfeat.datasets import FORMATS
    from memfeat.encoders import encoder_names
    from memfeat.models import AGGREGATORS, HEADS, build_regressor, parameter_count

    names = {
        "encoders": list(encoder_names()),
        "aggregators": list(AGGREGATORS),
        "heads": list(HEADS),
        "baselines": list(BASELINES),
        "formats": list(FORMATS),
    }
    if what:
        listed = names[what]
        print_json(listed) if as_json else click.echo("\n".join(listed))
        return
    parameters = {
        f"{aggregator}+{head}": parameter_count(build_regressor(width, aggregator, head))
        for aggregator in AGGREGATORS
        for head in HEADS
    }
    if as_json:
        print_json({**names, "parameters": parameters, "width": width})
        return
    for kind, listed in names.items():
        shown = f"{len(listed)} names: memfeat list encoders" if len(listed) > 12 else None
        click.echo(f"{kind:<12} {shown or ', '.join(listed)}")
    click.echo(f"\nparameters at {width}-d")
    for system, count in parameters.items():
        click.echo(f"  {system:<20} {count:>12,}")
