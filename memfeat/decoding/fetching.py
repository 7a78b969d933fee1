"""Remote videos, fetched ahead to this machine's disk, where alone decoders look for them."""

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

from memfeat.decoding.worker import Finished
from memfeat.manifest import VideoRecord
from memfeat.storage import Url, fetch, scratch_folder

FETCHERS = 8  # at once
AHEAD = 2 * FETCHERS  # videos being fetched, or waiting, beside those handed out
LONGEST_SUFFIX = 16


@dataclass(frozen=True)
class Supply:
    """A video that is, or will be, on this machine's disk.

    Attributes:
        record: which one.
        copy: the file to come, of a remote video.
    """

    record: VideoRecord
    copy: "Future[Path] | None" = None

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to wait for."""
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

    def told(self, end: Finished) -> Finished:
        """Return how decoding it ended, in words that name the video and not its copy."""
        if self.copy is None or self.copy.exception() is not None:
            return end
        copy, own = repr(str(self.copy.result())), repr(str(self.record.path))
        return end._replace(message=end.message.replace(copy, own))

    def release(self) -> None:
        """Delete the copy, once nobody needs it any more."""
        if self.copy is not None and self.copy.exception() is None:
            self.copy.result().unlink(missing_ok=True)


class Supplies(Iterator[Supply]):
    """Videos in order, of which the remote ones are being fetched some places ahead.

    Use it as a context; leaving it stops fetching and deletes what there is of copies.

    Attributes:
        waited: seconds spent waiting for videos to be fetched.
    """

    def __init__(self, records: Iterable[VideoRecord]) -> None:
        self.waited = 0.0
        self._records = iter(records)
        self._supplies: deque[Supply] = deque()
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
        self._stop.set()
        self._stack.close()

    def __next__(self) -> Supply:
        self._fill()
        if not self._supplies:
            raise StopIteration
        supply = self._supplies.popleft()
        if supply.copy is not None:
            started = time.perf_counter()
            supply.copy.exception()  # waits for it
            self.waited += time.perf_counter() - started
        self._fill()
        return supply

    @property
    def is_ready(self) -> bool:
        """Whether there is a next one that need not be waited for."""
        self._fill()
        return bool(self._supplies) and self._supplies[0].is_ready

    def _fill(self) -> None:
        for record in islice(self._records, AHEAD - len(self._supplies)):
            copy = self._begin(record.path) if isinstance(record.path, Url) else None
            self._supplies.append(Supply(record, copy))

    def _begin(self, url: Url) -> "Future[Path]":
        if self._pool is None:
            self._folder = self._stack.enter_context(scratch_folder())
            self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
            self._stack.callback(self._pool.shutdown, cancel_futures=True)
        self._count += 1
        target = self._folder / f"{self._count}{url.suffix[:LONGEST_SUFFIX]}"
        return self._pool.submit(self._fetched, url, target)

    def _fetched(self, url: Url, target: Path) -> Path:
        fetch(url, target, stop=self._stop)
        return target
