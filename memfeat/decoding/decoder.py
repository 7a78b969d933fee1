"""A decoder process as its parent sees it: started when needed, restarted if it dies.

Codec libraries are large and read files from anywhere. In a process of their own a crash, or an
endless loop, costs that process and one video, which is retried once and then fails.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memfeat.decoding.ring import RingShape, reserve
from memfeat.decoding.worker import (
    ChunkFilled,
    ChunkFree,
    DecodeResult,
    DecoderMessage,
    DecodeSettings,
    Job,
    Opened,
    Ready,
    Retiring,
    UseRing,
    Version,
    changed,
    failure,
    serve,
)
from memfeat.errors import DecoderError
from memfeat.video import Frame
from memfeat.workers import start_worker

MOST_TRIES = 2  # of a video
START_SECONDS = 600.0  # for a process to import what it needs, perhaps over a slow network


class _DiedError(Exception):
    """The process has died, or sent nothing for too long; `reason` is the video's."""

    def __init__(self, reason: str, how: str) -> None:
        super().__init__(how)
        self.reason = reason


class Decoder:
    """One process, which decodes the videos submitted to it one after another.

    Attributes:
        waited: seconds spent waiting for frames.
        starting: seconds spent waiting for the process to start.
    """

    def __init__(self) -> None:
        self.waited = self.starting = 0.0
        self._process: BaseProcess | None = None
        self._pipe: Connection
        self._folder = Path()
        self._is_ready = False
        self._false_starts = 0
        self._shape = RingShape(0, 0)
        self._descriptor = -1
        self._ring: NDArray[np.uint8]
        self._jobs: deque[Job] = deque()  # not finished, the oldest first
        self._messages: deque[DecoderMessage] = deque()  # received, but not yet handled
        self._reset_video()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._jobs

    @property
    def fill(self) -> float:
        """The share of its ring that holds frames not yet read, in [0, 1]."""
        with suppress(EOFError, OSError):
            while self._process is not None and self._pipe.poll():
                self._messages.append(self._read())
        chunks = sum(isinstance(message, ChunkFilled) for message in self._messages)
        return chunks / self._shape.chunks if self._shape.chunks else 0.0

    def submit(self, path: Path, settings: DecodeSettings) -> None:
        """Have it decode a video, after those submitted before.

        Raises:
            DecoderError: no process can be started, or there is no memory for frames.
        """
        self.start()
        self._use_ring(RingShape.of_frames(settings.size))
        self._jobs.append(Job(path, settings))
        self._send(self._jobs[-1])

    def start(self) -> None:
        """Start the process; again, if it is idle and has ended or is in another folder than we."""
        usable = self._process is not None and self._process.is_alive()
        if self.is_idle and not (usable and self._folder == Path.cwd()):
            self.close()
        if self._process is None:
            self._process = self._start()

    def frames(self, time_limit: float | None) -> Iterator[Frame | DecodeResult]:
        """Yield the frames of the oldest video submitted, and then its result.

        A frame's pixels are the ring's, and change once the next one is asked for.

        Args:
            time_limit: seconds without a frame after which the video is given up.

        Raises:
            DecoderError: no process can be started.
        """
        while isinstance(message := self._next_message(time_limit), ChunkFilled):
            for pixels, seconds in zip(
                self._ring[message.chunk], message.pts_seconds, strict=False
            ):
                yield Frame(pixels, seconds)
            self._send(ChunkFree(message.chunk))
        self._jobs.popleft()
        self._reset_video()
        yield message

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()
        self._process = None
        self._messages.clear()

    def _reset_video(self) -> None:
        self._tries = self._num_received = 0
        self._version: Version | None = None

    def _next_message(self, time_limit: float | None) -> ChunkFilled | DecodeResult:
        """Return the next message about the oldest video, retrying it if the process dies."""
        while True:
            try:
                message = self._receive(time_limit)
            except _DiedError as died:
                if result := self._retry(died):
                    return result
                continue
            if isinstance(message, DecodeResult):
                return message
            if isinstance(message, ChunkFilled):
                self._num_received += len(message.pts_seconds)
                return message
            if isinstance(message, Retiring):
                self.close()
            elif isinstance(message, Opened):
                if self._version not in (None, message.version):
                    self.close()
                    return changed(self._jobs[0].path)  # between two tries
                self._version = message.version

    def _receive(self, time_limit: float | None) -> DecoderMessage:
        if self._messages:
            return self._messages.popleft()
        if self._process is None:
            self._process = self._start()
        since, was_ready = time.perf_counter(), self._is_ready
        try:
            limit = time_limit if self._is_ready else START_SECONDS
            if not self._pipe.poll(limit):
                raise _DiedError("timeout", f"no frame came of it for {limit:g} seconds")
            return self._read()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise _DiedError("crash", f"the process that decoded it ended with {how}") from error
        finally:
            if was_ready:
                self.waited += time.perf_counter() - since
            else:
                self.starting += time.perf_counter() - since

    def _read(self) -> DecoderMessage:
        message: DecoderMessage = self._pipe.recv()
        if isinstance(message, Ready):
            self._is_ready, self._false_starts = True, 0
        return message

    def _retry(self, died: _DiedError) -> DecodeResult | None:
        """Prepare another try at the oldest video, or return its failure if there was one already.

        Raises:
            DecoderError: the process did not even start, and not for the first time.
        """
        self.close()
        if not self._is_ready:
            self._false_starts += 1
            if self._false_starts == MOST_TRIES:
                raise DecoderError(f"processes that decode videos do not start: {died}")
            return None
        self._tries += 1
        if self._tries < MOST_TRIES:
            return None
        times = f"{MOST_TRIES} times over; the other videos go on. Try to play it, or convert it"
        return failure(died.reason, f"{str(self._jobs[0].path)!r}: {died}, {times}")

    def _use_ring(self, shape: RingShape) -> None:
        """Have the process fill a ring of this shape from now on."""
        if shape == self._shape:
            return
        descriptor, ring = reserve(shape)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._ring, self._shape = descriptor, ring, shape
        self._send_ring()

    def _start(self) -> BaseProcess:
        self._folder = Path.cwd()  # which relative paths start from
        process, self._pipe = start_worker(serve, name="decoder", daemon=True, import_main=False)
        self._is_ready = False
        if self._descriptor >= 0:
            self._send_ring()
        for index, job in enumerate(self._jobs):
            self._send(job if index else job._replace(skip=self._num_received))
        return process

    def _send_ring(self) -> None:
        self._send(UseRing(self._shape))
        with suppress(OSError):
            send_handle(self._pipe, self._descriptor, None)

    def _send(self, message: UseRing | Job | ChunkFree) -> None:
        with suppress(OSError):  # that it died is noticed when its messages are read
            self._pipe.send(message)
