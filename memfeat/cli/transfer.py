"""`memfeat transfer`: train on one dataset, evaluate on another."""

from typing import Any

import click

from memfeat.cli.options import given, json_option, print_json, say, settings_options
from memfeat.config import TransferConfig
from memfeat.errors import ExitCode


@click.command("transfer", epilog="Example: memfeat transfer pipelines/table2.toml --seeds 0-2")
@click.option("--device", help="Instead of [train] device.")
@settings_options(TransferConfig, "transfer", "PIPELINE.toml")
@json_option
def transfer_command(
    *,
    config: TransferConfig,
    tables: dict[str, dict[str, Any]],
    device: str | None,
    as_json: bool,
) -> int:
    """Train on each dataset and evaluate on all.

    PIPELINE.toml names the datasets in its [transfer] table; its [train] table gives the recipe.
    Reports correlations, bias, MSE, and MSE after a linear recalibration fitted on the target's
    training split. Finished models are kept, so the same command resumes. Pairs whose cache is
    missing are listed with the command that makes it. Exit code 1: a pair failed.
    """
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
    say(f"table: {config.run}/{TRANSFER}")
    broken = [failed for failed in result["failed"] if not failed["missing_cache"]]
    return ExitCode.DONE if result["rows"] and not broken else ExitCode.ERROR
