"""`memfeat predict`: new videos."""

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import LOCAL_PATH, LOCATION, json_option, print_json, say
from memfeat.errors import ExitCode

if TYPE_CHECKING:
    from memfeat.prediction import Predictor, VideoPrediction
    from memfeat.storage import Location


@click.command(
    "predict",
    epilog="Example: memfeat predict runs/demo/cells/bigru+mlp clip.mp4 --timeline clip.png",
)
@click.argument("run_folder", type=LOCAL_PATH, metavar="RUN")
@click.argument("videos", nargs=-1, required=True, type=LOCATION, metavar="VIDEO")
@click.option(
    "--timeline",
    type=LOCAL_PATH,
    help="Draw each frame's weight and effect; for several videos, a folder.",
)
@click.option(
    "--weights",
    multiple=True,
    help="Checkpoint of the encoder, if the run was made with a file; of several, in their order.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@json_option
def predict_command(
    *,
    run_folder: Path,
    videos: "tuple[Location, ...]",
    timeline: Path | None,
    weights: tuple[str, ...],
    device: str,
    as_json: bool,
) -> int:
    """Score new videos with a run and its encoder.

    Prints a line per video: score in [0, 1], path or URL. A video that cannot be used is named on
    stderr, the others are still scored, and the exit code is 3.
    """
    from memfeat.runs import Run
    from memfeat.workers import prepare_workers

    run = Run.load(run_folder)  # before torch is imported, to say soon what is wrong with it
    prepare_workers("memfeat.decoding.worker")

    from memfeat.prediction import Predictor

    predictor = Predictor(run, device=device, weights=weights)
    how = {"device": predictor.device, "precision": predictor.encoders[0].precision}
    say(f"scoring on {how['device']} in {how['precision']}")
    predictions = []
    for video, picture in zip(videos, _pictures(videos, timeline), strict=True):
        predictions.append(predictor.predict(video))
        if not as_json:
            _say(predictions[-1])
        if picture and predictions[-1].score is not None:
            _draw(predictor, video, picture)
            say(f"timeline: {picture}")
    if as_json:
        print_json([prediction.as_dict() | how for prediction in predictions])
    else:
        for line in predictor.sources:
            say(line)
    failed = any(prediction.score is None for prediction in predictions)
    return ExitCode.SOME_VIDEOS_FAILED if failed else ExitCode.DONE


def _pictures(videos: "Sequence[Location]", timeline: Path | None) -> list[Path | None]:
    """Name each video's picture; of several videos of one name, from the second on by a number."""
    if timeline is None or len(videos) == 1:
        return [timeline] * len(videos)
    names: list[str] = []
    for stem in (Path(video.name).stem for video in videos):
        numbered = (f"{stem}-{number}" for number in count(2))
        names.append(next(name for name in chain([stem], numbered) if name not in names))
    return [timeline / f"{name}.png" for name in names]


def _say(prediction: "VideoPrediction") -> None:
    if prediction.message:
        say(f"{prediction.status}: {prediction.message}")
    if prediction.score is not None:
        click.echo(f"{prediction.score:.4f}\t{prediction.path}")


def _draw(predictor: "Predictor", video: "Location", picture: Path) -> None:
    from memfeat.prediction import frames_at
    from memfeat.prediction.strip import strip_indices
    from memfeat.prediction.timeline import draw_timeline

    found = predictor.timeline(video)
    times = {index: float(found.pts_seconds[index]) for index in strip_indices(found)}
    pixels = frames_at(video, times.values())
    frames = {index: pixels[time] for index, time in times.items()}
    draw_timeline(found, frames, picture, title=video.name, sources=found.sources)
