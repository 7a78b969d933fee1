"""`memfeat ablation` and `memfeat transfer`: grids of systems, and of datasets, from caches."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.extract import fill_cache, say_summary, would_extract
from memfeat.cli.finetune import finetune_weights
from memfeat.cli.options import (
    LOCATION,
    dry_run_option,
    json_option,
    print_figures,
    print_json,
    recipe_options,
    say,
    settings_options,
)
from memfeat.cli.predict import score_manifest
from memfeat.cli.tensorboard import epoch_log, tensorboard_option
from memfeat.config import (
    AblationConfig,
    FinetuneConfig,
    TrainConfig,
    TransferConfig,
    given,
    read_settings,
)
from memfeat.errors import ExitCode, MemfeatError, counted
from memfeat.storage import Location

if TYPE_CHECKING:
    from memfeat.ablation.grid import Cell
    from memfeat.ablation.recipes import CacheRequest


# Settings of a system that the grid's own flags and rows decide.
OWN_FLAGS = {"manifest", "cache", "aggregator", "head", "seeds", "run", "device"}


@click.command(
    "ablation",
    epilog="Example: memfeat ablation pipelines/table1.toml --manifest data_manifests/mine.csv "
    "--cache-root cache/mine --run runs/table1-mine",
)
@click.option("--manifest", type=LOCATION, help="Instead of [train] manifest.")
@click.option("--device", help="Of both stages, instead of [extract] and [train] device.")
@click.option("--extract", is_flag=True, help="First make, or complete, the caches of all rows.")
@settings_options(AblationConfig, "ablation", "GRID.toml")
@recipe_options(TrainConfig, OWN_FLAGS)
@tensorboard_option
@dry_run_option
@json_option
def ablation_command(
    *,
    config: AblationConfig,
    tables: dict[str, dict[str, Any]],
    recipe: dict[str, Any],
    manifest: Location | None,
    device: str | None,
    extract: bool,
    tensorboard: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Train a grid of systems and compare them.

    GRID.toml names the systems in its [ablation] table; its [train] table, and flags such as
    --max-epochs, give the recipe of all. Models
    train in parallel; finished ones are kept, so the same command resumes. Rows whose cache is not
    there are listed with the command that makes it; --extract makes those that can be made, with
    the settings of the [extract] table. Exit code 1: a row failed.
    """
    own = given({"manifest": manifest, "device": device})
    settings = tables.get("train", {}) | own | given(recipe)
    shared = tables.get("extract", {}) | own

    from memfeat.ablation import caches_of, plan_cells, plan_grid, run_ablation
    from memfeat.cli.tables import print_ablation
    from memfeat.runs import ABLATION

    cells = plan_cells(config, settings)
    requests = caches_of(config, cells, shared).values() if extract else ()
    if dry_run:
        caches = [would_extract(request.extract) for request in requests]
        _print_plan(plan_grid(config, cells) | {"extract": caches}, as_json)
        return ExitCode.DONE
    broken = _make_caches(requests)
    if extract:
        _make_scores(config, cells[0].config)
    work = partial(run_ablation, broken=broken)
    show = None if as_json else print_ablation
    return _run(work, config, cells, show, ABLATION, tensorboard=tensorboard)


@click.command("transfer", epilog="Example: memfeat transfer pipelines/table2.toml --seeds 0-2")
@click.option("--device", help="Instead of [train] device.")
@settings_options(TransferConfig, "transfer", "PIPELINE.toml")
@recipe_options(TrainConfig, OWN_FLAGS | {"folds", "group", "fold_seed"})
@json_option
def transfer_command(
    *,
    config: TransferConfig,
    tables: dict[str, dict[str, Any]],
    recipe: dict[str, Any],
    device: str | None,
    as_json: bool,
) -> int:
    """Train on each dataset and evaluate on all.

    PIPELINE.toml names the datasets in its [transfer] table; its [train] table, and flags such as
    --max-epochs, give the recipe.
    Reports correlations, bias, MSE, and MSE after a linear recalibration fitted on the target's
    training split. Finished models are kept, so the same command resumes. Pairs whose cache is
    missing are listed with the command that makes it. Exit code 1: a pair failed.
    """
    from memfeat.ablation.transfer import plan_transfer, run_transfer
    from memfeat.cli.tables import print_transfer
    from memfeat.runs import TRANSFER

    flags = given({"device": device, **recipe})
    cells = plan_transfer(config, tables.get("train", {}) | flags)
    return _run(run_transfer, config, cells, None if as_json else print_transfer, TRANSFER)


def _run(
    work: Callable[..., dict[str, Any]],
    config: AblationConfig | TransferConfig,
    cells: "Sequence[Cell]",
    show: Callable[[dict[str, Any]], None] | None,
    name: str,
    *,
    tensorboard: Path | None = None,
) -> int:
    """Run cells, show the result, as JSON by default, and return the exit code."""
    from memfeat.cli.progress import progress_line
    from memfeat.runs.files import path_for_table, table_path

    with (
        progress_line("grid") as progress,
        epoch_log(tensorboard, config.run, progress.show_grid) as on_progress,
    ):
        result = work(config, cells, on_progress=on_progress)
    (show or print_json)(result)
    path, whole = path_for_table(config.run, name, result), table_path(config.run, name)
    kept = "" if path == whole else f" ({whole} is kept as it was)"
    say(f"table: {path}{kept}")
    broken = [failed for failed in result["failed"] if not failed["missing_cache"]]
    return ExitCode.DONE if result["rows"] and not broken else ExitCode.ERROR


def _make_scores(config: AblationConfig, own: TrainConfig) -> None:
    """Make or complete the tables of ready scorers; what cannot be made is said."""
    from memfeat.ablation import scores_path

    for name in config.scorers:
        path = scores_path(config, name)
        say(f"scores {path}")
        try:
            score_manifest(name, own.manifest, path, own.device)
        except (MemfeatError, OSError, RuntimeError) as error:  # CUDA's are RuntimeErrors
            say(f"cannot make {path}: {error}")


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    for cache in plan["extract"]:
        print_figures(cache)
        click.echo()
    click.echo(f"{'table':<22} {plan['table']}")
    for row in plan["rows"]:
        missing = ", ".join(row["missing_caches"])
        left = counted(row["models_to_train"], "model")
        left += f" to train, {row['models_finished']} finished"
        click.echo(f"{row['name']:<22} {left}" + (f"; there is no {missing}" if missing else ""))
    for name, why in plan["missing_scores"].items():
        click.echo(f"{name:<22} {why}")


def _make_caches(requests: Iterable["CacheRequest"]) -> dict[Location, str]:
    """Make or complete caches; return why, for those that could not be and lack videos."""
    broken: dict[Location, str] = {}
    for request in requests:
        own = request.extract
        say(f"cache {own.cache}")
        try:
            if request.finetune:
                flags = {"manifest": own.manifest, "device": own.device}
                flags["run"] = request.finetune_run
                finetune_weights(read_settings(FinetuneConfig, "finetune", request.finetune, flags))
            say_summary(fill_cache(own), own)
        except (MemfeatError, OSError, RuntimeError) as error:  # CUDA's are RuntimeErrors
            say(f"cannot make {own.cache}: {error}")
            if request.exists and not request.is_whole:
                broken[own.cache] = str(error)
    return broken
