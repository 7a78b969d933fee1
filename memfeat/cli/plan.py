"""`memfeat plan`: what an extraction will take."""

from typing import Any

import click

from memfeat.cli.names import check_name
from memfeat.cli.options import json_option, print_json, say, settings_options, some
from memfeat.config import PlanConfig


@click.command(
    "plan",
    epilog="Example: memfeat plan --videos 10000 --seconds 3 --rate 1300 --gpus 4 --price 2.5",
)
@settings_options(PlanConfig)
@json_option
def plan_command(config: PlanConfig, as_json: bool) -> None:
    """Estimate what extraction will take.

    Frames, bytes, shards, and with a rate hours and cost: for a manifest, or for --videos of
    --seconds each. Nothing is decoded and no weights are loaded. A manifest's files are looked
    for, and the headers of a random few tell how long they are, which is an estimate. A rate is
    given, or measured by `memfeat extract --limit 8 --json` into a new cache. Starting, failures
    and waiting for machines are not in the hours.
    """
    check_name("encoder", config.encoder)

    from memfeat.planning import make_plan

    plan = make_plan(config)
    if as_json:
        print_json(plan)
        return
    headers = plan.pop("headers", {})
    for name, value in (plan | headers).items():
        if value not in (None, [], {}):
            click.echo(f"{name:<22} {_text(name, value)}")
    if "rate" not in plan:
        say("note: without --rate or --rate-from no hours can be told")


def _text(name: str, value: Any) -> str:
    from rich.filesize import decimal

    if isinstance(value, list | dict):
        return some([f"{key} ({value[key]})" if isinstance(value, dict) else key for key in value])
    if "bytes" in name and value >= 10_000:
        return decimal(value, precision=2)
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if isinstance(value, float) and value >= 1 else f"{value:,}"
