"""The web page of `memfeat serve`, and the JSON API that it uses."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from memfeat.config import ServeConfig
from memfeat.figures.style import is_warning
from memfeat.prediction import Comparison, VideoPrediction
from memfeat.prediction.inputs import IMAGE_SUFFIXES
from memfeat.prediction.tables import SCORES, score_row
from memfeat.prediction.timeline import TimeAxis
from memfeat.serving.queue import Job, QueueFullError, ScoringQueue, State
from memfeat.storage import format_rows
from memfeat.storage.names import VIDEO_SUFFIXES

PAGE = Path(__file__).with_name("page")
COLOURS = PAGE.parents[1] / "templates/colours.css"  # those of the report
MOST_COMPARED = 6
LONGEST_NAME = 255  # characters
Name = Annotated[str, Query(min_length=1, max_length=LONGEST_NAME, description="of the file")]


class ScorerFacts(BaseModel):
    """A run, or a ready scorer, and what to know of it."""

    name: str
    notes: list[str] = Field(description="such as its licence; to be shown with each score")
    warnings: list[str] = Field(description="those of the notes that are not to be overlooked")


class Server(BaseModel):
    """What the server can do, and what it takes."""

    scorers: list[ScorerFacts]
    suffixes: list[str]
    most_bytes: int
    most_waiting: int


class Axis(BaseModel):
    """Where time runs in the picture of a timeline."""

    left: float = Field(description="where it begins, as a share of the picture's width")
    right: float = Field(description="where it ends")
    from_seconds: float
    to_seconds: float


class Video(BaseModel):
    """A video that was sent here. Its file is deleted as soon as it is scored."""

    id: str
    name: str
    scorer: str
    state: State
    received_bytes: int
    decoded_seconds: float = Field(description="time of the last frame decoded so far")
    message: str = Field(description="why it failed, was cancelled, or is scored in part")
    prediction: dict[str, Any] | None = Field(description="as `memfeat predict --json` prints it")
    timeline: Axis | None = Field(description="of the picture timeline.png")


class Compared(BaseModel):
    """Which videos to compare."""

    videos: list[str] = Field(min_length=2, max_length=MOST_COMPARED, description="their ids")


class Problem(BaseModel):
    """What was wrong with a request."""

    detail: str


def create_app(
    queue: ScoringQueue, config: ServeConfig, notes: Callable[[str], list[str]], secret: str = ""
) -> FastAPI:
    """Return the application, for any ASGI server; `Guard` belongs around it.

    Args:
        queue: scores the videos.
        config: the limits.
        notes: says of a scorer what is to be shown with its scores.
        secret: what all URLs begin with, if not everybody who reaches the server may use it.
    """
    start = f"/{secret}" if secret else ""
    app: FastAPI = FastAPIOffline(
        title="memfeat",
        docs_url=f"{start}/docs",
        redoc_url=None,
        openapi_url=f"{start}/openapi.json",
        static_url=f"{start}/docs-files",
        favicon_url=f"{start}/icon.svg",
    )
    app.include_router(_pages(), prefix=start, include_in_schema=False)
    app.include_router(_videos(queue, config), prefix=f"{start}/api")
    app.include_router(_results(queue, config, notes), prefix=f"{start}/api")
    return app


def _pages() -> APIRouter:
    router = APIRouter()
    for path in (
        PAGE / "page.html",
        PAGE / "page.js",
        PAGE / "page.css",
        PAGE / "icon.svg",
        COLOURS,
    ):
        name = "" if path.suffix == ".html" else path.name
        router.add_api_route(f"/{name}", lambda path=path: FileResponse(path), methods=["GET"])
    return router


def _videos(queue: ScoringQueue, config: ServeConfig) -> APIRouter:
    """Sending videos, watching them, and taking them back."""
    router = APIRouter(tags=["videos"])

    @router.get("/videos")
    def list_videos() -> list[Video]:
        """List all videos in the order in which they were sent, without their predictions."""
        return [_video(job, whole=False) for job in queue.jobs()]

    @router.post(
        "/videos",
        status_code=202,
        responses=_problems(400, 404, 408, 409, 413, 415, 429, 507),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
                },
            }
        },
    )
    async def add_video(request: Request, name: Name, scorer: str | None = None) -> Video:
        """Send a video, as the request's body; it waits for its turn to be scored."""
        return _video(await _take(request, queue, config, name, scorer), whole=False)

    @router.get("/videos/{video_id}", responses=_problems(404))
    def get_video(video_id: str) -> Video:
        """Show one video, with its prediction once it is done."""
        return _video(_found(queue.job, video_id), whole=True)

    @router.get(
        "/videos/{video_id}/timeline.png",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **_problems(404, 409)},
    )
    def get_timeline(video_id: str) -> Response:
        """Draw a video's frames, and what each does to its score."""
        job, _ = _scored(queue, video_id)
        return Response(job.timeline, media_type="image/png")

    @router.delete("/videos/{video_id}", responses=_problems(404))
    def delete_video(video_id: str) -> Video:
        """Cancel a video, or forget its result if it has ended."""
        return _video(_found(queue.remove, video_id), whole=False)

    return router


def _results(
    queue: ScoringQueue, config: ServeConfig, notes: Callable[[str], list[str]]
) -> APIRouter:
    """What the server can do, and what is made of several videos' scores."""
    router = APIRouter(tags=["results"])

    @router.get("/server")
    def get_server() -> Server:
        """Tell what videos can be scored with, and which are taken."""
        return Server(
            scorers=[_facts(name, notes(name)) for name in queue.scorers],
            suffixes=sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES),
            most_bytes=config.most_bytes,
            most_waiting=config.most_waiting,
        )

    @router.post("/comparison", responses=_problems(404, 409))
    def compare(compared: Compared) -> dict[str, Any]:
        """Tell which of several videos is more memorable, as `memfeat compare --json` does."""
        scored = [_scored(queue, video_id) for video_id in dict.fromkeys(compared.videos)]
        first, *others = {job.scorer for job, _ in scored}
        if others or len(scored) < 2:
            raise HTTPException(409, "name two videos or more that one scorer scored")
        found = Comparison.of((prediction for _, prediction in scored), queue.margin(first))
        lines = [*found.lines(), *found.frame_lines()]
        return found.as_dict() | {"lines": lines}

    @router.get("/scores.json")
    def get_scores() -> list[dict[str, Any]]:
        """Give all predictions, as `memfeat predict --json` prints them."""
        return [prediction.as_dict() for prediction, _ in queue.predictions()]

    @router.get(
        "/scores.csv",
        response_class=Response,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    def get_table() -> Response:
        """Give all scores as a table, as `memfeat predict --output` writes it."""
        rows = [score_row(*each) for each in queue.predictions()]
        content = format_rows(Path("scores.csv"), SCORES, rows)
        return Response(content, media_type="text/csv; charset=utf-8")

    return router


async def _take(
    request: Request, queue: ScoringQueue, config: ServeConfig, name: str, scorer: str | None
) -> Job:
    """Put the video that a request's body is into the queue."""
    suffixes = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    if Path(name).suffix.lower() not in suffixes:
        raise HTTPException(415, f"the name ends in none of {', '.join(sorted(suffixes))}")
    size = request.headers.get("content-length", "")
    if size.isdecimal() and int(size) > config.most_bytes:
        raise HTTPException(413, _too_large(config))
    if scorer is None:
        scorer = queue.scorers[0]
    if scorer not in queue.scorers:
        raise HTTPException(404, f"no such scorer; there are {', '.join(queue.scorers)}")
    try:
        with queue.upload(name, scorer) as job:
            async with asyncio.timeout(60 * config.most_minutes):
                await _receive(request, job, config)
    except QueueFullError as error:
        raise HTTPException(429, str(error), {"Retry-After": "10"}) from None
    except ClientDisconnect as error:
        raise HTTPException(400, "the upload broke off") from error
    except TimeoutError as error:
        raise HTTPException(408, "the upload took too long") from error
    return job


async def _receive(request: Request, job: Job, config: ServeConfig) -> None:
    """Write a request's body to a job's file."""
    try:
        with job.path.open("xb") as file:
            async for block in request.stream():
                if job.received + len(block) > config.most_bytes:
                    raise HTTPException(413, _too_large(config))
                if job.state == "cancelled":
                    raise HTTPException(409, "the video was cancelled")
                await run_in_threadpool(file.write, block)
                job.received += len(block)
    except OSError as error:
        why = f"the server cannot keep the video: {error.strerror}"
        raise HTTPException(507, why) from error
    if not job.received:
        raise HTTPException(400, "the video is empty; send its bytes as the request's body")


def _video(job: Job, *, whole: bool) -> Video:
    found = job.prediction if whole else None
    is_drawn = found is not None and found.score is not None
    return Video(
        id=job.id,
        name=job.name,
        scorer=job.scorer,
        state=job.state,
        received_bytes=job.received,
        decoded_seconds=job.seconds,
        message=job.message,
        prediction=None if found is None else found.as_dict(),
        timeline=Axis(**TimeAxis.of(found.timeline)._asdict()) if found and is_drawn else None,
    )


def _facts(name: str, notes: list[str]) -> ScorerFacts:
    return ScorerFacts(name=name, notes=notes, warnings=list(filter(is_warning, notes)))


def _found(find: Callable[[str], Job], video_id: str) -> Job:
    try:
        return find(video_id)
    except KeyError:
        raise HTTPException(404, "no such video; it may have been forgotten") from None


def _scored(queue: ScoringQueue, video_id: str) -> tuple[Job, VideoPrediction]:
    job = _found(queue.job, video_id)
    if job.state != "done" or job.prediction is None:
        raise HTTPException(409, f"{job.name} has no score: it is {job.state}")
    return job, job.prediction


def _too_large(config: ServeConfig) -> str:
    return f"the video has more than {config.most_megabytes} MB, the most that this server takes"


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in codes}
