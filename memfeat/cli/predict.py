"""`memfeat predict`: new videos, one or many."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memfeat.cli.options import (
    LOCAL_PATH,
    LOCATION,
    dry_run_option,
    json_option,
    print_figures,
    print_json,
    say,
    say_notes,
    settings_options,
)
from memfeat.config import PredictConfig, ScoringConfig, is_ready
from memfeat.errors import ConfigError, ExitCode, VideoError, counted

if TYPE_CHECKING:
    from memfeat.cli.progress import ProgressLine
    from memfeat.prediction import Input, Predictor, RatingPredictor, VideoPrediction
    from memfeat.prediction.tables import EffectsTable, ScoresTable
    from memfeat.runs import Run
    from memfeat.storage import Location

STATUSES = ("ok", "partial", "failed")
PICTURES = (".png", ".svg", ".pdf")


@click.command(
    "predict",
    epilog="Example: memfeat predict runs/demo/cells/bigru+mlp clip.mp4 --timeline clip.png",
)
@click.argument("run_folder", type=LOCATION, metavar="RUN")
@click.argument("videos", nargs=-1, type=LOCATION, metavar="[VIDEO]...")
@click.option(
    "-o",
    "--output",
    type=LOCAL_PATH,
    help="Write a row a video, .csv, .tsv, .jsonl or .parquet; what is there already is not done "
    "again.",
)
@settings_options(PredictConfig)
@dry_run_option
@json_option
def predict_command(
    run_folder: "Location",
    videos: "tuple[Location, ...]",
    output: Path | None,
    config: PredictConfig,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Score new videos with a run or a ready scorer.

    RUN is a run's folder or packed file, or the URL of either; or `resmem` or `vitmem`, which were
    published by others: they rate each frame as an image, by people's memory for images, and the
    score is the mean.

    VIDEO is a path or URL; a folder; a pattern such as 'clips/*.mp4'; a table with a column `path`,
    such as a manifest; or a list in a .txt file, or on standard input for -.

    Prints a line per video: score in [0, 1], path or URL. With --output it writes rows instead,
    and goes on where it was interrupted. A video that cannot be used is named on stderr, the others
    are still scored, and the exit code is 3.

    How far to trust a score is said beside it: an interval that holds the true score with a
    probability of 90 %, the percentile among the scores that the run learned from, and familiarity,
    the share of known videos that are less like what the run was trained on.

    A frame's effect is the score minus the score without the frame. Its attention weight is the
    model's own number: it may be negative, and the weights sum to anything. The effect is the one
    to read.
    """
    runs = runs_of(run_folder, config)
    _require_fitting(runs, videos, output, config)
    if videos:
        from memfeat.workers import prepare_workers

        prepare_workers("memfeat.decoding.worker")

    from memfeat.prediction import Predictor, find_videos, load_predictor
    from memfeat.prediction.parquet import scores_table
    from memfeat.prediction.pending import plan_prediction
    from memfeat.prediction.tables import EffectsTable

    predictor = load_predictor(runs, device=config.device, weights=config.weights)
    cached = None
    if isinstance(predictor, Predictor) and config.cache:
        cached = predictor.cached_videos(*config.cache)
    found: Sequence[Input] = cached.videos if cached else ()
    if not cached:
        found = find_videos(videos, allow_images=config.allow_images)
        found = predictor.with_texts(found, config.text)
    if dry_run:
        plan = plan_prediction(predictor, found, output, config)
        print_json(plan) if as_json else print_figures(plan)
        return ExitCode.DONE
    pictures = _pictures(found, config.timeline)
    how = {"device": predictor.device, "precision": predictor.precision}
    with ExitStack() as stack:
        scores = frames = None
        if output:
            table = scores_table(output, predictor.model_id, retry_failed=config.retry_failed)
            scores = stack.enter_context(table)
        done = scores.done if scores else set()
        if config.effects:
            frames = stack.enter_context(EffectsTable(config.effects))
            frames.keep(lambda row: row["video"] in done)
        todo = [video for video in found if video.name not in done]
        say(f"scoring on {how['device']} in {how['precision']}")
        say_notes(predictor.notes())
        progress = stack.enter_context(_progress(len(todo)))
        results = _Results(how, progress, scores, frames, as_json=as_json)
        for prediction in (
            predictor.predict_cached(cached, todo)
            if isinstance(predictor, Predictor) and cached
            else predictor.predict_each(todo, allow_images=config.allow_images)
        ):
            results.take(prediction, pictures[prediction.name])
    return results.finish(predictor)


def score_manifest(name: str, manifest: "Location", output: Path, device: str) -> None:
    """Score a manifest's videos with a ready scorer, those that a table does not hold yet."""
    from memfeat.manifest import read_manifest
    from memfeat.prediction import Input, RatingPredictor
    from memfeat.prediction.tables import ScoresTable

    predictor = RatingPredictor(name, device=device)
    say_notes(predictor.notes())
    videos = [Input(record.path, record.video_id) for record in read_manifest(manifest).records]
    with ScoresTable(output, predictor.model_id) as table:
        todo = [video for video in videos if video.name not in table.done]
        with _progress(len(todo)) as progress:
            for prediction in predictor.predict_each(todo):
                table.add(prediction)
                if progress:
                    progress.advance()


def _require_fitting(
    runs: "list[Run] | str",
    videos: "tuple[Location, ...]",
    output: Path | None,
    config: PredictConfig,
) -> None:
    """Refuse settings that do not go together."""
    if isinstance(runs, str) and config.cache:
        raise ConfigError(f"{runs} rates frames, which a cache does not hold; leave --cache out")
    if bool(videos) == bool(config.cache):
        raise ConfigError("name videos to score, or a cache of their features with --cache")
    if config.cache and config.text:
        raise ConfigError("the texts of cached videos are in a cache, too; leave --text out")
    if config.retry_failed and not output:
        raise ConfigError("--retry-failed is for the rows of an --output; give one")


def runs_of(run: "Location", config: ScoringConfig) -> "list[Run] | str":
    """Load the runs, which needs no torch, to say soon what is wrong; or name a ready scorer."""
    from memfeat.runs import Run

    if not is_ready(run):
        return [Run.load(folder) for folder in (run, *config.run)]
    if config.run:
        raise ConfigError(f"{run} cannot be averaged with runs; leave --run out")
    return str(run)


def _progress(videos: int) -> "AbstractContextManager[ProgressLine | None]":
    """Show a bar, unless there is a single video."""
    if videos < 2:
        return nullcontext()
    from memfeat.cli.progress import progress_line

    return progress_line("videos", videos)


class _Results:
    """Prints, writes and draws predictions as they come, and sums them up."""

    def __init__(
        self,
        how: dict[str, str | None],
        progress: "ProgressLine | None",
        scores: "ScoresTable | None",
        frames: "EffectsTable | None",
        *,
        as_json: bool,
    ) -> None:
        self._how, self._progress = how, progress
        self._scores, self._frames = scores, frames
        self._as_json = as_json
        self._listed: list[dict[str, Any]] = []
        self._statuses: Counter[str] = Counter()
        self._cautions: Counter[str] = Counter()

    def take(self, prediction: "VideoPrediction", picture: Path | None) -> None:
        """Take in the next prediction."""
        say_it = self._progress.say if self._progress else say
        if prediction.message:
            say_it(f"{prediction.status}: {prediction.message}")
        if self._frames:
            self._frames.add(prediction)
        if picture and prediction.score is not None:
            try:
                prediction.draw(picture)
                say_it(f"timeline: {picture}")
            except VideoError as error:  # it was there a moment ago
                say_it(f"no timeline: {error}")
        if self._scores:  # last, for then the video is done
            self._scores.add(prediction)
        elif self._as_json:
            self._listed.append(prediction.as_dict() | self._how)
        elif prediction.score is not None:
            line = f"{prediction.score:.4f}\t{prediction.name}"
            self._progress.show_data(line) if self._progress else click.echo(line)
            for own in prediction.lines():
                say_it(own)
        self._statuses[prediction.status] += 1
        self._cautions.update(list(prediction.cautions))
        if self._progress:
            self._progress.advance()

    def finish(self, predictor: "Predictor | RatingPredictor") -> int:
        """Say what made the scores and what became of the videos; return the exit code."""
        before = Counter(row["status"] for row in self._scores.rows) if self._scores else Counter()
        every = self._statuses + before
        failed = every["failed"] > 0
        if self._scores and self._as_json:
            output = {"output": str(self._scores.output), "already_done": before.total()}
            counts = {"statuses": dict(self._statuses), "cautions": dict(self._cautions)}
            print_json(output | counts | self._how | {"sources": predictor.sources})
        elif self._as_json:
            print_json(self._listed)
        else:
            self._sum_up(predictor, before)
        return ExitCode.SOME_VIDEOS_FAILED if failed else ExitCode.DONE

    def _sum_up(self, predictor: "Predictor | RatingPredictor", before: Counter[str]) -> None:
        scored = self._statuses.total() - self._statuses["failed"]
        least = predictor.calibration.difference_margin
        if scored > 1 and least is not None:
            say(f"two videos whose scores differ by less than {least:.3f} cannot be told apart")
        for line in predictor.sources:
            say(line)
        if self._scores:
            counts = ", ".join(f"{self._statuses[status]} {status}" for status in STATUSES)
            say(f"{counted(before.total(), 'video')} scored already; of the others {counts}")
            for code, videos in self._cautions.items():
                say(f"{code}: {counted(videos, 'video')}; see the column `cautions`")
            click.echo(self._scores.output)


def _pictures(videos: "Sequence[Input]", timeline: Path | None) -> dict[str, Path | None]:
    """Name each video's picture; of several videos of one name, from the second on by a number.

    Raises:
        ConfigError: the pictures cannot go there.
    """
    if timeline is None:
        return dict.fromkeys((video.name for video in videos), None)
    if timeline.suffix.lower() in PICTURES or (timeline.suffix and not timeline.is_dir()):
        from memfeat.figures.style import require_picture

        require_picture(timeline)
        if len(videos) > 1:
            raise ConfigError(
                f"--timeline {timeline} names one picture, and there are {len(videos)} videos; "
                "name a folder, without a suffix"
            )
        return {video.name: timeline for video in videos}
    if timeline.exists() and not timeline.is_dir():
        raise ConfigError(
            f"--timeline {timeline} is a file; name a folder, or a picture like x.png"
        )
    timeline.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for video in videos:
        stem = video.video_id if video.path is None else Path(video.path.name).stem
        numbered = (f"{stem}-{number}" for number in count(2))
        names[video.name] = next(name for name in chain([stem], numbered) if name not in taken)
        taken.add(names[video.name])
    return {name: timeline / f"{stem}.png" for name, stem in names.items()}
