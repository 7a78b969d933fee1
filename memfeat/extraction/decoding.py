"""Videos to frames, in order and ahead of whoever consumes them, in bounded memory."""

import os
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

from memfeat.cache import Status
from memfeat.errors import VideoError
from memfeat.extraction.sampling import Cover, Sampling
from memfeat.files import sha256_of_file
from memfeat.manifest import VideoRecord
from memfeat.video import Frame, VideoReader

FRAMES_AHEAD = 64  # per video: some 20 MB at 336 x 336


class DecodedVideo:
    """A video that a worker decodes while its frames are taken off the other end.

    Iterate it once. The attributes below hold from then on.

    Attributes:
        record: which video.
        status: `ok`, `partial` or `failed`.
        reason: stable code of why it is not ok; empty otherwise.
        message: the same in words; or, of a video that is ok, what the user should know of it.
        source_bytes: size of the file, or -1.
        source_sha256: hash of the file, or empty.
        frames_expected: what the container promises, if it does.
    """

    def __init__(self, record: VideoRecord, sampling: Sampling) -> None:
        self.record = record
        self._cover = Cover(sampling.of_pixels())
        self.status: Status = "ok"
        self.reason = ""
        self.message = ""
        self.source_bytes = -1
        self.source_sha256 = ""
        self.frames_expected: int | None = None
        self._frames: queue.Queue[Frame | None] = queue.Queue(FRAMES_AHEAD)

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._frames.get()) is not None:
            yield frame

    @property
    def covers(self) -> list[int]:
        """Return how many frames each of those handed out stands for."""
        return self._cover.counts

    def decode(self, size: int, max_frames: int | None, stop: threading.Event) -> None:
        """Fill the queue; nothing that is wrong with the video leaves this method."""
        path = self.record.path
        try:
            with VideoReader(path, size=size, max_frames=max_frames) as reader:
                before = path.stat()
                for frame in reader:
                    if self._cover.keeps(frame.pixels):
                        self._put(frame, stop)
                    if stop.is_set():
                        return
                self.frames_expected = reader.frames_expected
                self.message = reader.warning or ""
                if reader.reason is not None:
                    self.status, self.reason = "partial", reader.reason
                    self.message = f"{str(path)!r}: {reader.reason}"
            self.source_bytes = before.st_size
            self.source_sha256 = sha256_of_file(path)
            if _version(path.stat()) != _version(before):
                text = "changed while it was read; extract again once nothing writes to it"
                self._fail("changed", f"{str(path)!r} {text}")
        except VideoError as error:
            self._fail(error.reason, str(error))
        except Exception as error:
            # Whatever a decoder library throws at one video must not cost the others theirs.
            self._fail("error", f"{str(path)!r}: {type(error).__name__}: {error}")
        finally:
            self._put(None, stop)

    def _fail(self, reason: str, message: str) -> None:
        self.status, self.reason, self.message = "failed", reason, " ".join(message.split())

    def _put(self, item: Frame | None, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                return self._frames.put(item, timeout=0.2)
            except queue.Full:
                continue
        return None


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def decode_ahead(
    records: Iterable[VideoRecord],
    *,
    size: int,
    max_frames: int | None,
    sampling: Sampling,
    decoders: int,
) -> Iterator[Iterator[DecodedVideo]]:
    """Decode videos in the background; leaving the context stops it.

    Args:
        records: which videos, in order.
        size: frames are squashed to (size, size).
        max_frames: each video's first so many frames only.
        sampling: which frames are handed out.
        decoders: videos decoded at once.

    Yields:
        The videos in the order given. Consume each wholly before asking for the next.
    """
    stop = threading.Event()
    pending = iter(records)
    ahead: deque[DecodedVideo] = deque()
    with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as pool:

        def refill() -> None:
            for record in islice(pending, decoders + 1 - len(ahead)):
                ahead.append(DecodedVideo(record, sampling))
                pool.submit(ahead[-1].decode, size, max_frames, stop)

        def videos() -> Iterator[DecodedVideo]:
            refill()
            while ahead:
                yield ahead.popleft()
                refill()

        try:
            yield videos()
        finally:
            stop.set()
