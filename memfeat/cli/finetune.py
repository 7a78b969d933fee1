"""`memfeat finetune`: I3D trained end to end."""

import shlex
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import json_option, print_json, say, settings_options
from memfeat.config import FinetuneConfig
from memfeat.errors import ExitCode, counted

if TYPE_CHECKING:
    from memfeat.finetuning import FinetuneSummary


@click.command(
    "finetune",
    epilog="Example: memfeat finetune pipelines/finetune.toml --manifest data_manifests/mine.csv "
    "--weights rgb_imagenet.pt --run runs/i3d --device cuda",
)
@settings_options(FinetuneConfig, "finetune")
@json_option
def finetune_command(config: FinetuneConfig, as_json: bool) -> int:
    """Train I3D end to end, from videos and scores.

    Leaves weights that `memfeat extract --encoder i3d --weights RUN/i3d.safetensors` takes.
    Settings come from the [finetune] table of PIPELINE.toml; flags override it. Stop it at any
    time: the same command goes on after the last epoch done. Exit code 3: done, but some videos
    failed.
    """
    summary = finetune_weights(config)
    if as_json:
        print_json(summary.as_dict())
    else:
        _say(summary, config)
    return ExitCode.SOME_VIDEOS_FAILED if summary.failures else ExitCode.DONE


def finetune_weights(config: FinetuneConfig) -> "FinetuneSummary":
    """Finetune as `config` says, unless it is done already, and show the progress."""
    from memfeat.manifest import read_manifest
    from memfeat.workers import prepare_workers

    manifest = read_manifest(config.manifest, config.root)
    prepare_workers("memfeat.decoding.worker")

    from memfeat.cli.progress import progress_line
    from memfeat.finetuning import finetune

    with progress_line("finetune") as progress:
        return finetune(manifest, config, on_progress=progress.show, on_note=progress.say)


def _say(summary: "FinetuneSummary", config: FinetuneConfig) -> None:
    from memfeat.cli.tables import print_metrics

    figures = summary.as_dict()
    print_metrics(summary.metrics, "i3d", [f"trained on: {figures['trained_on']}"])
    say(f"best epoch {figures['best_epoch'] + 1}; stopped because: {figures['stopped_because']}")
    if summary.failures:
        reasons = ", ".join(f"{count} {reason}" for reason, count in figures["reasons"].items())
        say(f"{counted(len(summary.failures), 'video')} failed, left out ({reasons})")
    arguments = f"--manifest {shlex.quote(str(config.manifest))} --encoder i3d"
    say(
        f"next: memfeat extract {arguments} --weights {shlex.quote(str(summary.weights))} "
        "--cache CACHE"
    )
