"""The one queue of a server: videos that wait, the one that is scored, and the results."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Literal

from memfeat.config import ServeConfig
from memfeat.errors import MemfeatError, counted
from memfeat.prediction import Input, Predictor, RatingPredictor, VideoPrediction

State = Literal["uploading", "waiting", "scoring", "done", "failed", "cancelled"]
AnyPredictor = Predictor | RatingPredictor
LONGEST_END = 30.0  # seconds that the work on a video, or the loading of a model, may take to end
_LOG = logging.getLogger(__name__)


class QueueFullError(MemfeatError):
    """There are as many videos as may wait at a time."""


class _StoppedError(Exception):
    """Raised within the work on a video, to end it; its text says why."""


@dataclass(eq=False)
class Job:
    """A video that was uploaded, and what became of it.

    Attributes:
        name: as the user's file is called; never that of a file here.
        scorer: what it is scored with, one of the server's scorers.
        path: the upload; deleted as soon as the video is scored.
        id: by which requests name it.
        state: `uploading`, `waiting`, `scoring`, `done`, `failed` or `cancelled`.
        received: bytes.
        seconds: the time of the last frame decoded so far.
        prediction: the result, once it is done or has failed.
        timeline: a PNG of it, once it is done.
        message: why it was cancelled, or has failed.
    """

    name: str
    scorer: str
    path: Path
    id: str
    state: State = "uploading"
    received: int = 0
    seconds: float = 0.0
    prediction: VideoPrediction | None = None
    timeline: bytes = field(default=b"", repr=False)
    message: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.state in ("done", "failed", "cancelled")


class ScoringQueue:
    """Scores uploaded videos one after another, in a thread of its own.

    A context manager; leaving it ends the work and deletes the uploads.

    Args:
        folder: for the uploads; emptied in the end by whoever made it.
        scorers: how to load each predictor, by its name; loaded when first needed.
        config: the limits.
    """

    def __init__(
        self, folder: Path, scorers: Mapping[str, Callable[[], AnyPredictor]], config: ServeConfig
    ) -> None:
        self._folder, self._config = folder, config
        self._scorers, self._loaded = dict(scorers), dict[str, AnyPredictor]()
        self._jobs: dict[str, Job] = {}  # in the order of their uploads
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)

    def __enter__(self) -> "ScoringQueue":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(LONGEST_END)

    @property
    def scorers(self) -> tuple[str, ...]:
        """The names of the scorers; the first is the usual one."""
        return tuple(self._scorers)

    def jobs(self) -> list[Job]:
        """Return copies of all jobs, in the order of their uploads."""
        with self._changed:
            return [replace(job) for job in self._jobs.values()]

    def job(self, job_id: str) -> Job:
        """Return a copy of one job; raises KeyError."""
        with self._changed:
            return replace(self._jobs[job_id])

    def predictions(self) -> list[tuple[VideoPrediction, str]]:
        """Return all predictions, and what scored each, in the order of the uploads."""
        jobs = self.jobs()
        return [(job.prediction, job.scorer) for job in jobs if job.prediction is not None]

    @contextmanager
    def upload(self, name: str, scorer: str) -> Iterator[Job]:
        """Take a place in the queue for a video, whose file is written within the `with` block.

        Then it waits for its turn, unless it was cancelled meanwhile; it is forgotten if the block
        raises something.

        Raises:
            QueueFullError: as many videos wait as may.
        """
        job = self._begin(name, scorer)
        try:
            yield job
        except BaseException:
            with self._changed:
                self._jobs.pop(job.id, None)
            job.path.unlink(missing_ok=True)
            raise
        with self._changed:
            if job.state == "uploading":
                job.state = "waiting"
            self._changed.notify_all()

    def _begin(self, name: str, scorer: str) -> Job:
        job_id = secrets.token_urlsafe(9)
        job = Job(name, scorer, self._folder / job_id, job_id)
        with self._changed:
            waiting = sum(not each.has_ended for each in self._jobs.values())
            if waiting >= self._config.most_waiting:
                raise QueueFullError(
                    f"{counted(waiting, 'video waits', 'videos wait')} already, as many as may; "
                    "send this one again when one is done"
                )
            for each in [each for each in self._jobs.values() if each.has_ended]:
                if len(self._jobs) < self._config.most_kept:
                    break
                del self._jobs[each.id]  # the oldest result
            self._jobs[job.id] = job
        return job

    def remove(self, job_id: str) -> Job:
        """Cancel a video, or forget its result if it has ended; raises KeyError."""
        with self._changed:
            job = self._jobs[job_id]
            if job.has_ended:
                del self._jobs[job_id]
            else:
                job.state, job.message = "cancelled", "cancelled"
                job.path.unlink(missing_ok=True)  # whoever has it open stops soon
            return replace(job)

    def margin(self, scorer: str) -> float | None:
        """Return how far the difference of two scores may be off; see `Comparison.of`."""
        return self._predictor(scorer).calibration.difference_margin

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._score(job)
            except _StoppedError as stopped:
                self._end(job, "cancelled", str(stopped))
            except MemfeatError as error:
                self._end(job, "failed", _without_path(str(error), job))
            except Exception:  # one video's fault must not end the server
                _LOG.exception("scoring an upload failed")
                self._end(job, "failed", "an error inside memfeat; the server's log has it")

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closing:
                for job in self._jobs.values():
                    if job.state == "waiting":
                        job.state = "scoring"
                        return job
                self._changed.wait()
            return None

    def _score(self, job: Job) -> None:
        started = time.monotonic()

        def watch(_: int, seconds: float) -> None:
            job.seconds = max(job.seconds, seconds)
            if self._closing or job.state == "cancelled":
                raise _StoppedError("cancelled")
            if time.monotonic() - started > 60 * self._config.most_minutes:
                raise _StoppedError(
                    f"cancelled: it took more than {self._config.most_minutes:g} minutes, the most "
                    "that this server gives a video (--most-minutes)"
                )

        video = Input(job.path, job.name)
        (found,) = self._predictor(job.scorer).predict_each(
            [video], allow_images=True, on_frames=watch
        )
        picture = BytesIO()
        if found.score is not None:
            found.draw(picture, title=job.name)
        state: State = "failed" if found.score is None else "done"
        kept = _without_video(found, job)
        self._end(job, state, kept.message, kept, picture.getvalue())

    def _end(
        self,
        job: Job,
        state: State,
        message: str,
        prediction: VideoPrediction | None = None,
        timeline: bytes = b"",
    ) -> None:
        """Delete an upload; then note what became of it, all at once, unless it was cancelled."""
        job.path.unlink(missing_ok=True)
        with self._changed:
            if job.state != "cancelled":
                job.state, job.message = state, message
                job.prediction, job.timeline = prediction, timeline

    def _predictor(self, scorer: str) -> AnyPredictor:
        if scorer not in self._loaded:
            self._loaded[scorer] = self._scorers[scorer]()
        return self._loaded[scorer]


def _without_video(found: VideoPrediction, job: Job) -> VideoPrediction:
    """Return a prediction that keeps effects, but neither embeddings nor where the upload was."""
    effects = None if found.score is None else found.timeline
    return replace(
        found,
        path=None,
        message=_without_path(found.message, job),
        find_effects=None if effects is None else lambda: effects,
    )


def _without_path(message: str, job: Job) -> str:
    return message.replace(str(job.path), job.name)
