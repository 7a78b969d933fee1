"""`memfeat compare`: which of several videos is more memorable."""

from typing import TYPE_CHECKING

import click

from memfeat.cli.options import (
    LOCATION,
    json_option,
    print_json,
    say,
    say_notes,
    settings_options,
)
from memfeat.cli.predict import runs_of
from memfeat.config import CompareConfig
from memfeat.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from memfeat.prediction.comparison import Comparison
    from memfeat.storage import Location


@click.command("compare", epilog="Example: memfeat compare runs/mine a.mp4 b.mp4 --html both.html")
@click.argument("run_folder", type=LOCATION, metavar="RUN")
@click.argument("videos", nargs=-1, required=True, type=LOCATION, metavar="VIDEO...")
@settings_options(CompareConfig)
@json_option
def compare_command(
    run_folder: "Location", videos: "tuple[Location, ...]", config: CompareConfig, as_json: bool
) -> int:
    """Tell which of several videos is more memorable.

    Prints a line per video, the most memorable first: score in [0, 1], path or URL. Then come the
    difference between the first one and each of the others, with an interval that holds the true
    difference with a probability of 90 %, and the frames that raise or lower each score most.
    Folders, patterns, tables and lists are taken as by `memfeat predict`.
    """
    from memfeat.workers import prepare_workers

    runs = runs_of(run_folder, config)
    prepare_workers("memfeat.decoding.worker")

    from memfeat.prediction import find_videos, load_predictor

    found = find_videos(videos, allow_images=config.allow_images)
    if len(found) < 2:
        alone = found[0].name
        raise ConfigError(f"there is nothing to compare {alone} with; name two videos or more")
    if config.picture:
        from memfeat.figures.style import require_picture

        require_picture(config.picture)
    predictor = load_predictor(runs, device=config.device, weights=config.weights)
    found = tuple(predictor.with_texts(found, config.text))
    say_notes(predictor.notes())

    from memfeat.cli.progress import progress_line

    with progress_line("videos", len(found)) as progress:
        comparison = predictor.compare(
            found,
            allow_images=config.allow_images,
            on_video=lambda prediction: progress.advance(prediction.name),
        )
    for failed in comparison.failed:
        say(f"failed: {failed.message}")
    if as_json:
        print_json(comparison.as_dict())
    else:
        for each in comparison.ranking:
            click.echo(f"{each.score:.4f}\t{each.name}")
        for line in (*comparison.lines(), *comparison.frame_lines(), *predictor.sources):
            say(line)
    if config.picture and comparison.ranking:
        from memfeat.prediction.side_by_side import draw_comparison

        draw_comparison(comparison, config.picture)
        say(f"picture: {config.picture}")
    if config.html and comparison.ranking:
        _write_page(config.html, comparison)
        say(f"page: {config.html}")
    return ExitCode.SOME_VIDEOS_FAILED if comparison.failed else ExitCode.DONE


def _write_page(output: "Path", comparison: "Comparison") -> None:
    from memfeat.prediction.effects import frames_that_matter
    from memfeat.prediction.timeline import timeline_svg
    from memfeat.report.comparison import ComparedVideo, write_comparison

    videos = [
        ComparedVideo(
            name=each.name,
            score=each.score or 0.0,
            interval=each.interval,
            percentile=each.percentile,
            lines=[*each.lines(), *frames_that_matter(each.timeline)],
            timeline=timeline_svg(each.timeline, str(number)),
            frames={
                float(each.pts_seconds[index]): pixels
                for index, pixels in each.thumbnails().items()
            },
        )
        for number, each in enumerate(comparison.ranking)
    ]
    write_comparison(
        output,
        videos,
        findings=comparison.lines(),
        failed=[each.message for each in comparison.failed],
        sources=comparison.ranking[0].sources,
    )
