"""`memfeat ablation`: a grid of systems from the cache."""

from collections.abc import Iterable
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
from memfeat.config import AblationConfig, FinetuneConfig
from memfeat.errors import ExitCode, MemfeatError
from memfeat.storage import Location

if TYPE_CHECKING:
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
    from memfeat.cli.progress import progress_line
    from memfeat.cli.tables import print_ablation

    cells = plan_cells(config, recipe)
    if extract:
        _make_caches(caches_of(config, cells, shared).values())
    with progress_line("grid") as progress:
        result = run_ablation(config, cells, on_progress=progress.show_grid)
    if as_json:
        print_json(result)
    else:
        print_ablation(result)
    say(f"table: {config.run}/ablation.json")
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
