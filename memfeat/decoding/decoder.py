"""A decoder process as its parent sees it.

Codec libraries are large and read files from anywhere. In a process of their own a crash, or an
endless loop, costs that process and one video.
"""

import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from pathlib import Path

from memfeat.decoding.frame_pool import CHUNKS_AHEAD, FramePool
from memfeat.decoding.worker import (
    ChunkFilled,
    ChunkFree,
    DecodeResult,
    DecoderMessage,
    Job,
    Ready,
    UsePool,
    serve,
)
from memfeat.workers import start_worker

START_SECONDS = 600.0  # for a process to import what it needs, perhaps over a slow network


class DecoderDiedError(Exception):
    """The process has ended, or sent nothing for too long; `reason` is the video's."""

    def __init__(self, reason: str, how: str) -> None:
        super().__init__(how)
        self.reason = reason


class Decoder:
    """One process, which decodes one video after another.

    Attributes:
        pipe: its messages, to be waited for.
        job: what it is doing, or None.
        jobs: how many it was given.
        chunks: of the pool, that it may fill.
        is_ready: whether it has started.
        false_starts: how many processes in its place ended before they had.
    """

    def __init__(self) -> None:
        self.job: Job | None = None
        self.jobs = 0
        self.chunks: set[int] = set()
        self.is_ready = False
        self.false_starts = 0
        self._pool: FramePool | None = None
        self._folder = Path.cwd()  # which relative paths start from
        self._since = time.monotonic()  # it has been silent
        self._process: BaseProcess
        self.pipe: Connection
        self._process, self.pipe = start_worker(
            serve, name="decoder", daemon=True, import_main=False
        )

    @property
    def is_usable(self) -> bool:
        """Whether it is idle, alive, and in the folder that this process is in."""
        return self.job is None and self._process.is_alive() and self._folder == Path.cwd()

    def submit(self, job: Job, pool: FramePool) -> None:
        """Have it decode a video into a pool, once it has finished the one before."""
        if self._pool is not pool:
            self._send(UsePool(pool.shape))
            with suppress(OSError):
                send_handle(self.pipe, pool.descriptor, None)
            self._pool = pool
        self.jobs += 1
        self.job = job._replace(number=self.jobs)
        self._since = time.monotonic()
        self._send(self.job)

    def grant(self, most: int = CHUNKS_AHEAD) -> None:
        """Let it fill free chunks of the pool until it has `most`, or none is left."""
        while self._pool and self._pool.free and len(self.chunks) < most:
            if not self.chunks:
                self._since = time.monotonic()  # until now it had to wait
            chunk = self._pool.free.pop()
            self.chunks.add(chunk)
            self._send(ChunkFree(chunk, self.jobs))

    def seconds_left(self, time_limit: float | None) -> float | None:
        """Return how long it may still be silent; None if for ever, as without a job or a chunk."""
        if self.job is None or (self.is_ready and not self.chunks):
            return None
        limit = time_limit if self.is_ready else START_SECONDS
        return limit and self._since + limit - time.monotonic()

    def receive(self) -> DecoderMessage:
        """Wait for its next message.

        Raises:
            DecoderDiedError: the process has ended.
        """
        try:
            message: DecoderMessage = self.pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise DecoderDiedError(
                "crash", f"the process that decoded it ended with {how}"
            ) from error
        self._since = time.monotonic()
        if isinstance(message, Ready):
            self.is_ready = True
        elif isinstance(message, ChunkFilled):
            self.chunks.discard(message.chunk)
        elif isinstance(message, DecodeResult):
            self.job = None
            self._free_chunks()
        return message

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()
        self._free_chunks()

    def _free_chunks(self) -> None:
        if self._pool is not None:
            self._pool.free += sorted(self.chunks)
        self.chunks = set()

    def _send(self, message: UsePool | Job | ChunkFree) -> None:
        with suppress(OSError):  # that it died is noticed when its messages are read
            self.pipe.send(message)
