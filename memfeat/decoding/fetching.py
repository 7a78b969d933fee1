"""Fetching remote videos to this machine's disk, ahead of the decoders."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from memfeat.decoding.worker import DecodeResult
from memfeat.manifest import VideoRecord
from memfeat.storage import Url, fetch, scratch_folder

FETCHERS = 8  # at once
AHEAD = 2 * FETCHERS  # videos being fetched, or fetched and not yet requested
LONGEST_SUFFIX = 16


@dataclass(frozen=True)
class FetchedVideo:
    """A video that is, or will be, on this machine's disk.

    Attributes:
        record: which one.
        copy: of a remote video, its local file to come.
    """

    record: VideoRecord
    copy: "Future[Path] | None" = None

    @property
    def is_ready(self) -> bool:
        """Whether `path` would not wait."""
        return self.copy is None or self.copy.done()

    def path(self) -> Path:
        """Wait for the file.

        Raises:
            RemoteError: it cannot be fetched.
            OSError: this machine's disk is full.
        """
        if self.copy is not None:
            return self.copy.result()
        return Path(str(self.record.path))

    def with_own_name(self, result: DecodeResult) -> DecodeResult:
        """Return a result whose message names the video in place of its copy."""
        if self.copy is None or self.copy.exception() is not None:
            return result
        copy, own = repr(str(self.copy.result())), repr(str(self.record.path))
        return result._replace(message=result.message.replace(copy, own))

    def release(self) -> None:
        """Delete the copy."""
        if self.copy is not None and self.copy.exception() is None:
            self.copy.result().unlink(missing_ok=True)


class Fetcher(Iterator[FetchedVideo]):
    """Videos in order; remote ones are fetched a bounded number ahead.

    A context manager; leaving it stops fetching and deletes the copies.

    Attributes:
        waited: seconds spent waiting for videos to be fetched.
    """

    def __init__(self, records: Iterable[VideoRecord]) -> None:
        self.waited = 0.0
        self._records = iter(records)
        self._videos: deque[FetchedVideo] = deque()
        self._stack = ExitStack()
        self._stop = Event()
        self._pool: ThreadPoolExecutor | None = None
        self._folder = Path()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._stack.close()

    def stop(self) -> None:
        """Let downloads end; what has not been fetched fails."""
        self._stop.set()

    def __next__(self) -> FetchedVideo:
        self._fill()
        if not self._videos:
            raise StopIteration
        video = self._videos.popleft()
        if video.copy is not None:
            started = time.perf_counter()
            video.copy.exception()  # waits for it
            self.waited += time.perf_counter() - started
        self._fill()
        return video

    @property
    def is_ready(self) -> bool:
        """Whether there is a next video, and it is ready."""
        self._fill()
        return bool(self._videos) and self._videos[0].is_ready

    @property
    def is_busy(self) -> bool:
        """Whether there is a next video, ready or not."""
        self._fill()
        return bool(self._videos)

    def _fill(self) -> None:
        for record in islice(self._records, AHEAD - len(self._videos)):
            copy = self._start(record.path) if isinstance(record.path, Url) else None
            self._videos.append(FetchedVideo(record, copy))

    def _start(self, url: Url) -> "Future[Path]":
        if self._pool is None:
            self._folder = self._stack.enter_context(scratch_folder())
            self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
            self._stack.callback(self._pool.shutdown, cancel_futures=True)
        self._count += 1
        target = self._folder / f"{self._count}{url.suffix[:LONGEST_SUFFIX]}"
        return self._pool.submit(self._fetch, url, target)

    def _fetch(self, url: Url, target: Path) -> Path:
        fetch(url, target, stop=self._stop)
        return target
