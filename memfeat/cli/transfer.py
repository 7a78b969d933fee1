"""`memfeat transfer`: train on one dataset, evaluate on another."""

from pathlib import Path
from typing import Any

import click

from memfeat.cli.options import LOCAL_PATH, given, json_option, print_json, settings_options
from memfeat.config import TransferConfig, build, read_pipeline
from memfeat.errors import ConfigError, ExitCode


@click.command("transfer", epilog="Example: memfeat transfer pipelines/table2.toml --seeds 0-2")
@click.argument("pipeline", type=LOCAL_PATH, metavar="PIPELINE.toml")
@click.option("--device", help="Instead of [train] device.")
@settings_options(TransferConfig)
@json_option
def transfer_command(pipeline: Path, device: str | None, as_json: bool, **flags: Any) -> int:
    """Train on each dataset and evaluate on all.

    PIPELINE.toml names the datasets in its [transfer] table; its [train] table gives the recipe.
    Reports correlations, bias, MSE, and MSE after a linear recalibration fitted on the target's
    training split. Finished models are kept, so the same command resumes. Pairs whose cache is
    missing are listed with the command that makes it. Exit code 1: a pair failed.
    """
    tables = read_pipeline(pipeline)
    if "transfer" not in tables:
        raise ConfigError(f"{pipeline} has no [transfer] table; pipelines/table2.toml has one")
    settings = tables["transfer"] | given(flags)
    config = build(TransferConfig, settings, f"{pipeline} [transfer]")

    from memfeat.ablation.transfer import plan_transfer, run_transfer
    from memfeat.cli.progress import progress_line
    from memfeat.cli.tables import print_transfer
    from memfeat.runs import TRANSFER

    cells = plan_transfer(config, tables.get("train", {}) | given({"device": device}))
    with progress_line("grid") as progress:
        result = run_transfer(config, cells, on_progress=progress.show_grid)
    if as_json:
        print_json(result)
    else:
        print_transfer(result)
    click.echo(f"table: {config.run}/{TRANSFER}", err=True)
    broken = [failed for failed in result["failed"] if not failed["missing_cache"]]
    return ExitCode.DONE if result["rows"] and not broken else ExitCode.ERROR
