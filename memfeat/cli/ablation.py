"""`memfeat ablation`: a grid of systems from the cache."""

from pathlib import Path
from typing import Any

import click

from memfeat.cli.caches import make_caches
from memfeat.cli.options import (
    LOCAL_PATH,
    LOCATION,
    given,
    json_option,
    print_json,
    settings_options,
)
from memfeat.config import AblationConfig, build, read_pipeline
from memfeat.errors import ConfigError, ExitCode
from memfeat.storage import Location


@click.command(
    "ablation",
    epilog="Example: memfeat ablation pipelines/table1.toml --manifest data_manifests/mine.csv "
    "--cache-root cache/mine --run runs/table1-mine",
)
@click.argument("grid", type=LOCAL_PATH, metavar="GRID.toml")
@click.option("--manifest", type=LOCATION, help="Instead of [train] manifest.")
@click.option("--device", help="Of both stages, instead of [extract] and [train] device.")
@click.option("--extract", is_flag=True, help="First make, or complete, the caches of all rows.")
@settings_options(AblationConfig)
@json_option
def ablation_command(
    grid: Path,
    *,
    manifest: Location | None,
    device: str | None,
    extract: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Train a grid of systems and compare them.

    GRID.toml names the systems in its [ablation] table; its [train] table gives the recipe. Models
    train in parallel; finished ones are kept, so the same command resumes. Rows whose cache is not
    there are listed with the command that makes it; --extract makes those that can be made, with
    the settings of the [extract] table. Exit code 1: a row failed.
    """
    tables = read_pipeline(grid)
    if "ablation" not in tables:
        raise ConfigError(f"{grid} has no [ablation] table; pipelines/table1.toml is an example")
    settings = tables["ablation"] | given(flags)
    config = build(AblationConfig, settings, f"{grid} [ablation]")
    own = given({"manifest": manifest, "device": device})
    recipe, shared = (tables.get(name, {}) | own for name in ("train", "extract"))

    from memfeat.ablation import caches_of, plan_cells, run_ablation
    from memfeat.cli.progress import grid_progress
    from memfeat.cli.tables import print_ablation

    cells = plan_cells(config, recipe)
    if extract:
        make_caches(caches_of(config, cells, shared).values())
    with grid_progress() as show:
        result = run_ablation(config, cells, on_progress=show)
    if as_json:
        print_json(result)
    else:
        print_ablation(result)
    click.echo(f"table: {config.run}/ablation.json", err=True)
    broken = [failed for failed in result["failed"] if not failed["missing_cache"]]
    return ExitCode.DONE if result["rows"] and not broken else ExitCode.ERROR
