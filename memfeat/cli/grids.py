"""`memfeat ablation` and `memfeat transfer`: grids of systems, and of datasets, from caches."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.extract import fill_cache, say_summary
from memfeat.cli.finetune import finetune_weights
from memfeat.cli.options import (
    LOCATION,
    given,
    json_option,
    print_json,
    read_settings,
    say,
    settings_options,
)
from memfeat.config import AblationConfig, FinetuneConfig, TransferConfig
from memfeat.errors import ExitCode, MemfeatError
from memfeat.storage import Location

if TYPE_CHECKING:
    from memfeat.ablation.grid import Cell
    from memfeat.ablation.recipes import CacheRequest


@click.command(
    "ablation",
    epilog="Example: memfeat ablation pipelines/table1.toml --manifest data_manifests/mine.csv "
    "--cache-root cache/mine --run runs/table1-mine",
)
@click.option("--manifest", type=LOCATION, help="Instead of [train] manifest.")
@click.option("--device", help="Of both stages, instead of [extract] and [train] device.")
@click.option("--extract", is_flag=True, help="First make, or complete, the caches of all rows.")
@settings_options(AblationConfig, "ablation", "GRID.toml")
@json_option
def ablation_command(
    *,
    config: AblationConfig,
    tables: dict[str, dict[str, Any]],
    manifest: Location | None,
    device: str | None,
    extract: bool,
    as_json: bool,
) -> int:
    """Train a grid of systems and compare them.

    GRID.toml names the systems in its [ablation] table; its [train] table gives the recipe. Models
    train in parallel; finished ones are kept, so the same command resumes. Rows whose cache is not
    there are listed with the command that makes it; --extract makes those that can be made, with
    the settings of the [extract] table. Exit code 1: a row failed.
    """
    own = given({"manifest": manifest, "device": device})
    recipe, shared = (tables.get(name, {}) | own for name in ("train", "extract"))

    from memfeat.ablation import caches_of, plan_cells, run_ablation
    from memfeat.cli.tables import print_ablation

    cells = plan_cells(config, recipe)
    if extract:
        _make_caches(caches_of(config, cells, shared).values())
    return _run(run_ablation, config, cells, None if as_json else print_ablation, "ablation.json")


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
    from memfeat.cli.tables import print_transfer

    cells = plan_transfer(config, tables.get("train", {}) | given({"device": device}))
    return _run(run_transfer, config, cells, None if as_json else print_transfer, "transfer.json")


def _run(
    work: Callable[..., dict[str, Any]],
    config: AblationConfig | TransferConfig,
    cells: "Sequence[Cell]",
    show: Callable[[dict[str, Any]], None] | None,
    table: str,
) -> int:
    """Run cells, show the result, as JSON by default, and return the exit code."""
    from memfeat.cli.progress import progress_line

    with progress_line("grid") as progress:
        result = work(config, cells, on_progress=progress.show_grid)
    (show or print_json)(result)
    say(f"table: {config.run}/{table}")
    broken = [failed for failed in result["failed"] if not failed["missing_cache"]]
    return ExitCode.DONE if result["rows"] and not broken else ExitCode.ERROR


def _make_caches(requests: Iterable["CacheRequest"]) -> None:
    """Make or complete caches; one that cannot be made is named with the reason, and skipped."""
    for request in requests:
        own = request.extract
        say(f"cache {own.cache}")
        try:
            if request.finetune:
                flags = {"manifest": own.manifest, "device": own.device}
                flags["run"] = request.finetune_run
                finetune_weights(read_settings(FinetuneConfig, "finetune", request.finetune, flags))
            say_summary(fill_cache(own), own)
        except MemfeatError as error:
            say(f"cannot make {own.cache}: {error}")
