"""`memfeat submission`: a run file for MediaEval."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import (
    LOCAL_PATH,
    LOCATION,
    caches_of,
    json_option,
    manifest_of,
    other_videos_options,
    print_json,
    say,
    say_notes,
    some,
)
from memfeat.datasets.submission import LAYOUTS, SOURCES_SUFFIX, Layout, Missing
from memfeat.errors import ConfigError, counted
from memfeat.manifest import Split
from memfeat.storage import Location

if TYPE_CHECKING:
    from memfeat.manifest import Manifest
    from memfeat.runs import Run


@click.command(
    "submission",
    epilog="Example: memfeat submission runs/mine --layout 2021 -o me21mem_team_shortterm_run1.csv",
)
@click.argument("run_folder", type=LOCATION, metavar="RUN")
@click.option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    required=True,
    help="By the year that had it: 2018 (and 2019) video,score,confidence; 2021 id,score; 2026 a "
    "header, then video,mem_score; videm, of 2026's adverts, a header, then video_id,id and two "
    "scores.",
)
@click.option("-o", "--output", type=LOCAL_PATH, required=True, help="The run file to write.")
@click.option("--brand", type=LOCAL_PATH, help="Of videm: the run that predicts brands' scores.")
@click.option(
    "--ids", type=LOCAL_PATH, help="Of videm: the organisers' list of the test set (id, video_id)."
)
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
def submission_command(  # noqa: PLR0913  one for each flag
    *,
    run_folder: Location,
    layout: Layout,
    output: Path,
    brand: Path | None,
    ids: Path | None,
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
    if (layout == "videm") != (brand is not None and ids is not None):
        raise ConfigError(
            "the layout videm, and no other, has the scores of brands and the organisers' numbers: "
            "give --layout videm, --brand RUN and --ids FILE together"
        )
    from memfeat.runs import Run

    runs = [Run.load(folder) for folder in (run_folder, brand) if folder]
    manifests = [manifest_of(run, manifest) for run in runs]
    for found in manifests:
        if not found.of_split(split):
            raise ConfigError(f"{found.path} has no video in split {split!r}; give another --split")

    from memfeat.datasets.submission import read_numbers, write_adverts, write_submission

    numbers = read_numbers(ids) if ids else {}
    scored = [_scores(run, each, caches, split) for run, each in zip(runs, manifests, strict=True)]
    lines = dict.fromkeys(line for run in runs for line in run.sources())
    notes = tuple(dict.fromkeys(note for _, own in scored for note in own))
    predicted = [scores for scores, _ in scored]
    wanted = [record.video_id for record in manifests[0].of_split(split)]
    if unlisted := [each for each in wanted if numbers and each not in numbers]:
        notes += (f"not in {ids}, and so not in the run file: {some(unlisted)}",)
    say_notes(notes)
    sources = [*lines, *notes]
    if layout == "videm":
        written = write_adverts(output, numbers, *predicted, missing=missing, sources=sources)
    else:
        written = write_submission(
            output, layout, wanted, predicted[0], missing=missing, sources=sources
        )
    if as_json:
        print_json({**vars(written), "notes": notes, "sources": list(lines)})
        return
    for line in lines:
        say(line)
    if written.filled:
        say(f"note: {counted(len(written.filled), 'video')} got the mean of the others")
    say(f"{counted(written.videos, 'video')}; what made them: {output}{SOURCES_SUFFIX}")
    click.echo(output)


def _scores(
    run: "Run", manifest: "Manifest", caches: Sequence[Location], split: Split
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Score a split's videos with a run; return the scores by id, and notes."""
    import numpy as np

    from memfeat.runs import mean_over_seeds
    from memfeat.training import predict_run, read_features

    features = read_features(
        manifest, caches_of(run, caches), split=split, partial=True, missing=run.config.missing
    )
    scored = mean_over_seeds(predict_run(run, features.tables, features.records))
    clipped = np.clip(scored.prediction, 0, 1)  # a baseline's may lie outside
    notes = features.notes
    if outside := int(np.sum(clipped != scored.prediction)):
        notes += (f"{outside} predictions outside [0, 1] were set to the nearest of these",)
    return dict(zip(scored.video_id, clipped.tolist(), strict=True)), notes
