"""What a decoder's process does: one video after another into the ring, and word of it."""

import os
import signal
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
from memfeat.config import MAX_PIXELS
from memfeat.decoding.ring import CHUNK_FRAMES, RingShape, attach
from memfeat.decoding.sampling import EVERY_FRAME, Cover, Sampling
from memfeat.errors import VideoError
from memfeat.processes import end_with_parent
from memfeat.storage import sha256_of_file
from memfeat.video import Frame, VideoReader

BEAT_SECONDS = 0.5  # between signs of life
IDLE_SECONDS = 300.0  # after which a process that nobody asks for anything ends
VIDEOS_A_PROCESS = 500  # then it ends, and with it whatever a codec library has leaked

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
    """

    size: int
    sampling: Sampling = EVERY_FRAME
    max_frames: int | None = None
    max_seconds: float | None = None
    max_pixels: int | None = MAX_PIXELS
    allow_images: bool = False


# What the parent asks for.


class Ring(NamedTuple):
    """The ring to fill from now on; its descriptor follows."""

    shape: RingShape


class Job(NamedTuple):
    """A video to decode; the first `skip` of the frames kept are not handed over again."""

    path: Path
    settings: DecodeSettings
    skip: int = 0


class Emptied(NamedTuple):
    """A chunk that may be filled again."""

    chunk: int


# What the process tells; of each video it is `Opened`, any number of `Filled` and `Alive`, and
# `Finished`, or `Finished` at once.


class Up(NamedTuple):
    """It has started, and waits for videos."""


class Opened(NamedTuple):
    """The video is readable; `version` differs when its file does."""

    version: Version


class Filled(NamedTuple):
    """Frames in a chunk of the ring, from its first on, and when each is shown."""

    chunk: int
    pts_seconds: list[float]


class Alive(NamedTuple):
    """It is at work, with nothing to show for it yet."""


class Finished(NamedTuple):
    """All of a video's frames are handed over, or it cannot be used.

    Attributes:
        status: `ok`, `partial` or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words; or, of a video that is ok, what the user should know of it.
        source_bytes: size of the file, or -1.
        source_sha256: hash of the file, or empty.
        frames_expected: what the container promises, if it does.
        covers: how many frames each of those handed out stands for.
    """

    status: Status = "ok"
    reason: str = ""
    message: str = ""
    source_bytes: int = -1
    source_sha256: str = ""
    frames_expected: int | None = None
    covers: Sequence[int] = ()


class Retiring(NamedTuple):
    """It ends after so many videos; what it was asked for since is for another process."""


Word = Up | Opened | Filled | Alive | Finished | Retiring


def serve(pipe: Connection) -> None:
    """Decode what the parent asks for until it, or its questions, end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)  # processes share the cores out already
    worker = _Worker(pipe)
    worker.tell(Up())
    for _ in range(VIDEOS_A_PROCESS):
        job = worker.next_job()
        if job is None:
            return
        worker.tell(decode(job, worker))
    worker.tell(Retiring())


class _Worker:
    """The process's end of pipe and ring."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._jobs: deque[Job] = deque()
        self._ring: NDArray[np.uint8] = np.empty((0, 0, 0, 0, 0), np.uint8)
        self._free: deque[int] = deque()
        self._pts_seconds: list[float] = []
        self._told = time.monotonic()

    def next_job(self) -> Job | None:
        """Wait for a video; None if the parent is gone, or has been quiet for long."""
        while not self._jobs:
            try:
                if not self._pipe.poll(IDLE_SECONDS):
                    return None
                self._listen()
            except (EOFError, OSError):
                return None
        return self._jobs.popleft()

    def put(self, frame: Frame) -> None:
        """Copy a frame into the ring, once there is room, and hand over chunks that are full."""
        while not self._free:
            self._listen()
        self._ring[self._free[0], len(self._pts_seconds)] = frame.pixels
        self._pts_seconds.append(frame.pts_seconds)
        full = len(self._pts_seconds) == CHUNK_FRAMES
        if full or time.monotonic() - self._told > BEAT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        if self._pts_seconds:
            self.tell(Filled(self._free.popleft(), self._pts_seconds))
            self._pts_seconds = []

    def beat(self) -> None:
        """Give a sign of life now and then."""
        if time.monotonic() - self._told > BEAT_SECONDS:
            self.tell(Alive())

    def tell(self, word: Word) -> None:
        """Send a word to the parent."""
        try:
            self._pipe.send(word)
        except OSError:
            os._exit(1)  # the parent is gone, so that there is nobody left to work for
        self._told = time.monotonic()

    def _listen(self) -> None:
        asked = self._pipe.recv()
        if isinstance(asked, Job):
            self._jobs.append(asked)
        elif isinstance(asked, Emptied):
            self._free.append(asked.chunk)
        elif isinstance(asked, Ring):
            descriptor = recv_handle(self._pipe)
            self._ring = attach(descriptor, asked.shape)
            os.close(descriptor)
            self._free = deque(range(asked.shape.chunks))


def decode(job: Job, worker: _Worker) -> Finished:
    """Hand a video's frames over; nothing that is wrong with the video leaves this function."""
    cover = Cover(job.settings.sampling.of_pixels())
    try:
        finished = _decode(job, cover, worker)
    except VideoError as error:
        finished = failure(error.reason, str(error))
    except EOFError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        # Whatever a decoder library throws at one video must not cost the others theirs.
        finished = failure("error", f"{str(job.path)!r}: {type(error).__name__}: {error}")
    worker.flush()
    return finished._replace(covers=cover.counts)


def failure(reason: str, message: str) -> Finished:
    """Return the end of a video that cannot be used."""
    return Finished("failed", reason, " ".join(message.split()))


def _decode(job: Job, cover: Cover, worker: _Worker) -> Finished:
    path, settings = job.path, job.settings
    with VideoReader(
        path,
        size=settings.size,
        max_frames=settings.max_frames,
        max_seconds=settings.max_seconds,
        max_pixels=settings.max_pixels,
        allow_images=settings.allow_images,
    ) as reader:
        before = path.stat()
        worker.tell(Opened(_version(before)))
        for frame in reader:
            if cover.keeps(frame.pixels) and len(cover.counts) > job.skip:
                worker.put(frame)
            else:
                worker.beat()
        finished = Finished(
            message=reader.warning or "",
            source_bytes=before.st_size,
            frames_expected=reader.frames_expected,
        )
        if reader.reason is not None:
            message = f"{str(path)!r}: {reader.reason}"
            finished = finished._replace(status="partial", reason=reader.reason, message=message)
    worker.flush()
    sha256 = sha256_of_file(path, worker.beat)
    if _version(path.stat()) != _version(before):
        return changed(path)
    return finished._replace(source_sha256=sha256)


def changed(path: Path) -> Finished:
    """Return the end of a video whose file was written to meanwhile."""
    text = "changed while it was read; extract again once nothing writes to it"
    return failure("changed", f"{str(path)!r} {text}")


def _version(status: os.stat_result) -> Version:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
