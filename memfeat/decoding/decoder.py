"""A process that decodes videos, seen from its parent: started when needed, and again if it dies.

Codec libraries are large and fed with files from anywhere. So they run where a crash, or a loop
without end, costs a process and one video: that one is tried once more, and then has failed.
"""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import send_handle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memfeat.decoding.ring import RingShape, reserve
from memfeat.decoding.worker import (
    DecodeSettings,
    Emptied,
    Filled,
    Finished,
    Job,
    Opened,
    Retiring,
    Ring,
    Up,
    Version,
    Word,
    changed,
    failure,
    serve,
)
from memfeat.errors import DecoderError
from memfeat.processes import start_apart
from memfeat.video import Frame

TRIES = 2  # for each video
START_SECONDS = 600.0  # for a process to import what it needs, perhaps over a slow network


class _DeathError(Exception):
    """The process has died, or keeps silent for too long; `reason` is that of the video."""

    def __init__(self, reason: str, how: str) -> None:
        super().__init__(how)
        self.reason = reason


class Decoder:
    """One process, which decodes the videos that it is asked for in turn.

    Attributes:
        waited: seconds spent waiting for frames.
        starting: seconds spent waiting for the process to start.
    """

    def __init__(self) -> None:
        self.waited = self.starting = 0.0
        self._process: SpawnProcess | None = None
        self._pipe: Connection
        self._up = False
        self._false_starts = 0
        self._shape = RingShape(0, 0)
        self._descriptor = -1
        self._ring: NDArray[np.uint8]
        self._jobs: deque[Job] = deque()  # not yet finished, the oldest first
        self._words: deque[Word] = deque()  # received, but not yet looked at
        self._renew_video()

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._jobs

    @property
    def fill(self) -> float:
        """The share of its ring that holds frames which nobody has taken yet, in [0, 1]."""
        with suppress(EOFError, OSError):
            while self._process is not None and self._pipe.poll():
                self._words.append(self._hear())
        chunks = sum(isinstance(word, Filled) for word in self._words)
        return chunks / self._shape.chunks if self._shape.chunks else 0.0

    def ask(self, path: Path, settings: DecodeSettings) -> None:
        """Let it decode a video, after those asked for before.

        Raises:
            DecoderError: no process can be started, or there is no memory for frames.
        """
        self.start()
        self._give_ring(RingShape.of_frames(settings.size))
        self._jobs.append(Job(path, settings))
        self._tell(self._jobs[-1])

    def start(self) -> None:
        """Start the process, if there is none or it ended for want of anything to do."""
        if self.is_idle and self._process is not None and not self._process.is_alive():
            self.close()
        if self._process is None:
            self._process = self._start()

    def frames(self, time_limit: float | None) -> Iterator[Frame | Finished]:
        """Yield the frames of the oldest video asked for, and then how it ended.

        A frame's pixels are the ring's, and change once the next one is asked for.

        Args:
            time_limit: seconds without a frame after which the video is given up.

        Raises:
            DecoderError: no process can be started.
        """
        while isinstance(word := self._next_word(time_limit), Filled):
            for pixels, seconds in zip(self._ring[word.chunk], word.pts_seconds, strict=False):
                yield Frame(pixels, seconds)
            self._tell(Emptied(word.chunk))
        self._jobs.popleft()
        self._renew_video()
        yield word

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()
        self._process = None
        self._words.clear()

    def _renew_video(self) -> None:
        self._tries = self._given = 0
        self._version: Version | None = None

    def _next_word(self, time_limit: float | None) -> Filled | Finished:
        """Return what comes next of the oldest video, whatever becomes of the process."""
        while True:
            try:
                word = self._receive(time_limit)
            except _DeathError as death:
                if finished := self._after(death):
                    return finished
                continue
            if isinstance(word, Finished):
                return word
            if isinstance(word, Filled):
                self._given += len(word.pts_seconds)
                return word
            if isinstance(word, Retiring):
                self.close()
            elif isinstance(word, Opened):
                if self._version not in (None, word.version):
                    self.close()
                    return changed(self._jobs[0].path)  # between two tries
                self._version = word.version

    def _receive(self, time_limit: float | None) -> Word:
        if self._words:
            return self._words.popleft()
        if self._process is None:
            self._process = self._start()
        since, was_up = time.perf_counter(), self._up
        try:
            limit = time_limit if self._up else START_SECONDS
            if not self._pipe.poll(limit):
                raise _DeathError("timeout", f"no frame came of it for {limit:g} seconds")
            return self._hear()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise _DeathError("crash", f"the process that decoded it ended with {how}") from error
        finally:
            if was_up:
                self.waited += time.perf_counter() - since
            else:
                self.starting += time.perf_counter() - since

    def _hear(self) -> Word:
        word: Word = self._pipe.recv()
        if isinstance(word, Up):
            self._up, self._false_starts = True, 0
        return word

    def _after(self, death: _DeathError) -> Finished | None:
        """Prepare another try at the oldest video, or return its end if there was one already.

        Raises:
            DecoderError: the process did not even start, and not for the first time.
        """
        self.close()
        if not self._up:
            self._false_starts += 1
            if self._false_starts == TRIES:
                raise DecoderError(f"processes that decode videos do not start: {death}")
            return None
        self._tries += 1
        if self._tries < TRIES:
            return None
        times = f"{TRIES} times over; the other videos go on. Try to play it, or convert it"
        return failure(death.reason, f"{str(self._jobs[0].path)!r}: {death}, {times}")

    def _give_ring(self, shape: RingShape) -> None:
        """Have a ring of this shape, which the process fills from now on."""
        if shape == self._shape:
            return
        descriptor, ring = reserve(shape)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._ring, self._shape = descriptor, ring, shape
        self._tell_ring()

    def _start(self) -> SpawnProcess:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        process = context.Process(target=serve, args=(far_end,), daemon=True, name="decoder")
        start_apart(process)
        far_end.close()  # so that it closes with the process
        self._up = False
        if self._descriptor >= 0:
            self._tell_ring()
        for index, job in enumerate(self._jobs):
            self._tell(job if index else job._replace(skip=self._given))
        return process

    def _tell_ring(self) -> None:
        self._tell(Ring(self._shape))
        with suppress(OSError):
            send_handle(self._pipe, self._descriptor, None)

    def _tell(self, asked: Ring | Job | Emptied) -> None:
        with suppress(OSError):  # a death is met when the process's words are read
            self._pipe.send(asked)
