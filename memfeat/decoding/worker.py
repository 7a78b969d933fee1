"""The decoder process: decodes one video after another into the frame pool, and reports."""

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from memfeat.cache import Status
from memfeat.config import MAX_PIXELS, UNTAGGED_HD
from memfeat.decoding.frame_pool import CHUNK_FRAMES, PoolShape, attach
from memfeat.decoding.sampling import EVERY_FRAME, CoverCounter, Sampling
from memfeat.errors import VideoError
from memfeat.video import (
    PARTIAL,
    Frame,
    files_of,
    frames_by_header,
    open_reader,
    sha256_of_video,
)

HEARTBEAT_SECONDS = 0.5
IDLE_SECONDS = 300.0  # without a job, after which a process ends

Version = tuple[int, ...]


@dataclass(frozen=True)
class DecodeSettings:
    """What is made of each video.

    Attributes:
        size: frames are squashed to (size, size).
        sampling: which frames are handed out.
        max_frames, max_seconds: only each video's beginning.
        max_pixels: a video of larger frames is refused.
        allow_images: whether an image is a video of one frame.
        first_frame: none before this one, counted from 0, is handed out.
        keep_shape: frames keep their shape, and are reduced if a side has more than `size` pixels.
        hashed: whether the result has the file's hash.
        header_only: decode nothing; the result has what the header says.
        untagged_hd, crop, pillow: see `VideoReader`.
        fps: numbers a second of folders of numbered pictures; None where those are refused.
    """

    size: int
    sampling: Sampling = EVERY_FRAME
    max_frames: int | None = None
    max_seconds: float | None = None
    max_pixels: int | None = MAX_PIXELS
    allow_images: bool = False
    first_frame: int = 0
    keep_shape: bool = False
    hashed: bool = True
    header_only: bool = False
    untagged_hd: str = UNTAGGED_HD
    crop: bool = False
    fps: float | None = None
    pillow: bool = False


# Messages from the parent.


class UsePool(NamedTuple):
    """Fill this pool's chunks from now on; its descriptor follows."""

    shape: PoolShape


class Job(NamedTuple):
    """A video to decode; the first `skip` of the frames kept are not sent again."""

    path: Path
    settings: DecodeSettings
    skip: int = 0
    number: int = 0


class ChunkFree(NamedTuple):
    """A chunk of the pool may be filled by this job."""

    chunk: int
    job: int


# Messages to the parent: for each video `Opened`, any number of `ChunkFilled` and `Heartbeat`, and
# a `DecodeResult`; or the `DecodeResult` at once.


class Ready(NamedTuple):
    """The process has started, and waits for videos."""


class Opened(NamedTuple):
    """The video is readable; `version` differs when its file does."""

    version: Version


class ChunkFilled(NamedTuple):
    """Frames at the start of a chunk of the pool: their height and width, and their times."""

    chunk: int
    shape: tuple[int, int]
    pts_seconds: list[float]


class Heartbeat(NamedTuple):
    """The process is at work, without a new frame yet."""


class DecodeResult(NamedTuple):
    """The end of a video: all of its frames were sent, or it cannot be used.

    Attributes:
        status: `ok`, `partial` or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words; for a video that is ok, a warning or nothing.
        source_bytes: size of the file, or -1.
        source_sha256: hash of the file, or empty.
        frames_expected: what the container promises, if it does.
        frames_by_header: an estimate from the header, if that was asked for and says something.
        covers: how many frames each of those sent stands for.
        frame_size: width and height of its frames, upright, as `VideoReader` says; or zeros.
    """

    status: Status = "ok"
    reason: str = ""
    message: str = ""
    source_bytes: int = -1
    source_sha256: str = ""
    frames_expected: int | None = None
    frames_by_header: float | None = None
    covers: Sequence[int] = ()
    frame_size: tuple[int, int] = (0, 0)


DecoderMessage = Ready | Opened | ChunkFilled | Heartbeat | DecodeResult


def serve(pipe: Connection) -> None:
    """Decode the parent's jobs until it ends or sends none for long."""
    torch.set_num_threads(1)  # processes share the cores out already
    worker = Worker(pipe)
    worker.send(Ready())
    while job := worker.next_job():
        worker.send(decode(job, worker))


class Worker:
    """The process's end of the pipe and the pool."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._job: Job | None = None
        self._chunks: NDArray[np.uint8] = np.empty((0, 0, 0, 0, 0), np.uint8)
        self._free: deque[int] = deque()
        self._shape = (0, 0)
        self._pts_seconds: list[float] = []
        self._last_sent = time.monotonic()

    def next_job(self) -> Job | None:
        """Wait for a video; None if the parent is gone, or has been quiet for long."""
        self._job = None
        self._free.clear()  # which the parent takes back once it has the result
        while self._job is None:
            try:
                if not self._pipe.poll(IDLE_SECONDS):
                    return None
                self._receive()
            except (EOFError, OSError):
                return None
        return self._job

    def put(self, frame: Frame) -> None:
        """Copy a frame into the pool, waiting for room, and send a chunk that is full."""
        if frame.pixels.shape[:2] != self._shape:  # the video's, from here on
            self.flush()
            self._shape = frame.pixels.shape[0], frame.pixels.shape[1]
        while not self._free:
            self._receive()
        height, width = self._shape
        self._chunks[self._free[0], len(self._pts_seconds), :height, :width] = frame.pixels
        self._pts_seconds.append(frame.pts_seconds)
        full = len(self._pts_seconds) == CHUNK_FRAMES
        if full or time.monotonic() - self._last_sent > HEARTBEAT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the chunk that is partly filled, if there is one."""
        if self._pts_seconds:
            self.send(ChunkFilled(self._free.popleft(), self._shape, self._pts_seconds))
            self._pts_seconds = []

    def heartbeat(self) -> None:
        """Send a heartbeat if nothing was sent for a while."""
        if time.monotonic() - self._last_sent > HEARTBEAT_SECONDS:
            self.send(Heartbeat())

    def send(self, message: DecoderMessage) -> None:
        """Send a message to the parent."""
        try:
            self._pipe.send(message)
        except OSError:
            os._exit(1)  # the parent is gone
        self._last_sent = time.monotonic()

    def _receive(self) -> None:
        message = self._pipe.recv()
        if isinstance(message, Job):
            self._job = message
        elif isinstance(message, ChunkFree):
            if self._job and message.job == self._job.number:
                self._free.append(message.chunk)
        elif isinstance(message, UsePool):
            descriptor = recv_handle(self._pipe)
            self._chunks = attach(descriptor, message.shape)
            os.close(descriptor)


def decode(job: Job, worker: Worker) -> DecodeResult:
    """Send a video's frames; whatever is wrong with the video becomes its result."""
    cover = CoverCounter(job.settings.sampling.of_pixels())
    try:
        result = _decode(job, cover, worker)
    except VideoError as error:
        result = failure(error.reason, str(error))
    except EOFError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        # Whatever a decoder library throws at one video must not cost the others theirs.
        result = failure("error", f"{str(job.path)!r}: {type(error).__name__}: {error}")
    worker.flush()
    return result._replace(covers=cover.counts)


def failure(reason: str, message: str) -> DecodeResult:
    """Return the end of a video that cannot be used."""
    return DecodeResult("failed", reason, " ".join(message.split()))


def _decode(job: Job, cover: CoverCounter, worker: Worker) -> DecodeResult:
    path, settings = job.path, job.settings
    if settings.header_only:
        return DecodeResult(frames_by_header=frames_by_header(path))
    with open_reader(
        path,
        settings.fps,
        size=settings.size,
        keep_shape=settings.keep_shape,
        first_frame=settings.first_frame,
        max_frames=settings.max_frames,
        max_seconds=settings.max_seconds,
        max_pixels=settings.max_pixels,
        allow_images=settings.allow_images,
        untagged_hd=settings.untagged_hd,
        crop=settings.crop,
        pillow=settings.pillow,
    ) as reader:
        before = _version(path)
        worker.send(Opened(before))
        for frame in reader:
            if (
                cover.keeps(frame.pixels, seconds=frame.pts_seconds)
                and len(cover.counts) > job.skip
            ):
                worker.put(frame)
            else:
                worker.heartbeat()
        result = DecodeResult(
            message=reader.warning or "",
            source_bytes=sum(file.stat().st_size for file in files_of(path)),
            frames_expected=reader.frames_expected,
            frame_size=reader.frame_size,
        )
        if reader.reason is not None:
            what = f"{str(path)!r}: {reader.reason}, {PARTIAL[reader.reason]}"
            message = f"{what}; {reader.warning}" if reader.warning else what
            result = result._replace(status="partial", reason=reader.reason, message=message)
    worker.flush()
    sha256 = sha256_of_video(path, worker.heartbeat) if settings.hashed else ""
    if _version(path) != before:
        return changed(path)
    return result._replace(source_sha256=sha256)


def changed(path: Path) -> DecodeResult:
    """Return the end of a video whose file was written to meanwhile."""
    text = "changed while it was read; extract again once nothing writes to it"
    return failure("changed", f"{str(path)!r} {text}")


def _version(path: Path) -> Version:
    status = path.stat()
    own = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if not path.is_dir():
        return own
    files = [file.stat() for file in files_of(path)]
    return *own, sum(each.st_size for each in files), max(each.st_mtime_ns for each in files)
