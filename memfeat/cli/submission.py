"""`memfeat submission`: a run file for MediaEval."""

from pathlib import Path

import click

from memfeat.cli.options import (
    LOCAL_PATH,
    caches_of,
    json_option,
    manifest_of,
    other_videos_options,
    print_json,
    say,
    say_notes,
)
from memfeat.datasets.submission import LAYOUTS, SOURCES_SUFFIX, Layout, Missing
from memfeat.errors import ConfigError
from memfeat.manifest import Split
from memfeat.storage import Location


@click.command(
    "submission",
    epilog="Example: memfeat submission runs/mine --layout 2021 -o me21mem_team_shortterm_run1.csv",
)
@click.argument("run_folder", type=LOCAL_PATH, metavar="RUN")
@click.option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    required=True,
    help="By the year that had it: 2018 (and 2019) video,score,confidence; 2021 id,score; 2026 a "
    "header, then video,mem_score.",
)
@click.option("-o", "--output", type=LOCAL_PATH, required=True, help="The run file to write.")
@other_videos_options
@click.option(
    "--split",
    type=click.Choice(["train", "dev", "test"]),
    default="test",
    show_default=True,
    help="Which videos.",
)
@click.option(
    "--missing",
    type=click.Choice(["refuse", "mean"]),
    default="refuse",
    show_default=True,
    help="A video that could not be decoded gets the mean of the others, or ends the command.",
)
@json_option
def submission_command(
    *,
    run_folder: Path,
    layout: Layout,
    output: Path,
    manifest: Location | None,
    caches: tuple[Location, ...],
    split: Split,
    missing: Missing,
    as_json: bool,
) -> None:
    """Write a run file as MediaEval takes them.

    Scores a split's cached videos, with or without true scores, and checks that each is there once,
    in [0, 1]. There is no official description of run files: the layouts are those of participants
    in 2018 and 2019, in 2021, and in 2026; the confidence in the first is always 1 (ours).
    """
    from memfeat.runs import Run, mean_over_seeds

    run = Run.load(run_folder)
    found = manifest_of(run, manifest)
    wanted = [record.video_id for record in found.records if record.split == split]
    if not wanted:
        raise ConfigError(f"{found.path} has no video in split {split!r}; give another --split")

    import numpy as np

    from memfeat.datasets.submission import write_submission
    from memfeat.training import predict_run, read_features

    features = read_features(found, caches_of(run, caches), split=split, partial=True)
    say_notes(features.notes)
    scored = mean_over_seeds(predict_run(run, features.tables, features.records))
    clipped = np.clip(scored.prediction, 0, 1)  # a baseline's may lie outside
    if outside := int(np.sum(clipped != scored.prediction)):
        say(f"note: {outside} predictions outside [0, 1] were set to the nearest of these")
    predicted = dict(zip(scored.video_id, clipped.tolist(), strict=True))
    sources = [*run.sources(), *features.notes]
    written = write_submission(output, layout, wanted, predicted, missing=missing, sources=sources)
    if as_json:
        print_json({**vars(written), "notes": features.notes, "sources": run.sources()})
        return
    for line in run.sources():
        say(line)
    if written.filled:
        say(f"note: {len(written.filled)} videos got the mean of the others")
    say(f"{written.videos} videos; what made them: {output}{SOURCES_SUFFIX}")
    click.echo(output)
