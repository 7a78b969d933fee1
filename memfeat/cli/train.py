"""`memfeat train` and `memfeat evaluate`: stage 2, one system."""

from pathlib import Path

import click

from memfeat.cli.names import check_name
from memfeat.cli.options import (
    LOCATION,
    caches_of,
    dry_run_option,
    json_option,
    manifest_of,
    other_videos_options,
    print_figures,
    print_json,
    say,
    say_notes,
    settings_options,
)
from memfeat.cli.tensorboard import epoch_log, tensorboard_option
from memfeat.config import TrainConfig
from memfeat.manifest import Split
from memfeat.storage import Location


@click.command(
    "train",
    epilog="Example: memfeat train pipelines/train.toml --manifest data_manifests/demo.csv "
    "--cache cache/demo/efficientnet-lite0 --aggregator bigru --seeds 0-4 --run runs/mine",
)
@settings_options(TrainConfig, "train")
@click.option(
    "--workers", type=click.IntRange(0), default=0, help="Seeds at once [0: one per CPU core]."
)
@tensorboard_option
@dry_run_option
@json_option
def train_command(
    *, config: TrainConfig, workers: int, tensorboard: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Train an aggregator and a head from a cache.

    Settings come from the [train] table of PIPELINE.toml; flags override it. Several caches are
    parallel streams: each has its own aggregator, and the head takes their vectors concatenated.
    Prints the metrics of each split; the run folder gets model, history, predictions and all
    settings. Seeds that are finished already are kept; several are trained in parallel.
    """
    from memfeat.cache import Cache
    from memfeat.manifest import read_manifest

    for aggregator in config.aggregator:
        check_name("aggregator", aggregator)
    check_name("head", config.head)
    manifest = read_manifest(config.manifest)
    caches = [Cache.open(folder, missing=config.missing) for folder in config.cache]

    from memfeat.ablation import plan_training, train_seeds
    from memfeat.cli.progress import progress_line
    from memfeat.cli.tables import print_metrics
    from memfeat.devices import device_names
    from memfeat.training import select_records, training_device

    together = config.group if config.folds else ""
    selected = select_records(manifest, *caches, together=together)
    say_notes(selected.notes)
    if dry_run:
        plan = plan_training(config, selected.records)
        print_json(plan) if as_json else print_figures(plan)
        return
    device = training_device(config)
    say(f"training {config.system} on {device_names([device])[0]}")
    with (
        progress_line("grid") as progress,
        epoch_log(tensorboard, config.run, progress.show_grid) as on_progress,
    ):
        run = train_seeds(config, workers, on_progress=on_progress)
    say_notes(run.warnings())
    if as_json:
        found = {"run": str(run.folder), "device": str(device)}
        print_json(found | {"sources": run.sources(), "metrics": run.metrics})
        return
    print_metrics(run.metrics, config.system, run.sources())
    say(f"run folder: {run.folder}")


@click.command(
    "evaluate",
    epilog="Example: memfeat evaluate runs/mine --manifest data_manifests/other.csv "
    "--cache cache/other/ViT-L-14-336 --split test",
)
@click.argument("run_folder", type=LOCATION, metavar="RUN")
@other_videos_options
@click.option("--split", type=click.Choice(["train", "dev", "test"]), help="Only this split.")
@json_option
def evaluate_command(
    run_folder: Location,
    manifest: Location | None,
    caches: tuple[Location, ...],
    split: Split | None,
    as_json: bool,
) -> None:
    """Compare a run with the truth.

    Scores cached videos with a trained run. Without options it repeats the run's own figures; with
    another dataset's manifest and cache it evaluates the run on that dataset.
    """
    from memfeat.runs import IN_FOLDS, NO_SOURCE, Run, read_folds

    run = Run.load(run_folder)
    found = manifest_of(run, manifest)

    from memfeat.cli.tables import print_metrics
    from memfeat.training import evaluate_run, read_features

    features = read_features(found, caches_of(run, caches), split=split, missing=run.config.missing)
    say_notes(features.notes)
    evaluated = evaluate_run(run, features.tables, features.records)
    metrics = {name: value.as_dict() for name, value in evaluated.items()}
    if IN_FOLDS in metrics:
        scored = [record.video_id for record in features.records if record.score is not None]
        metrics[IN_FOLDS]["groups"] = read_folds(run.folder).of(scored).held_out.num_groups
    datasets = ", ".join(found.datasets) or NO_SOURCE
    sources = [*run.sources(), f"evaluated on scores: {datasets}"]
    if as_json:
        print_json({"run": str(run_folder), "sources": sources, "metrics": metrics})
    else:
        print_metrics(metrics, str(run_folder), sources)
