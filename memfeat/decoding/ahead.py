"""Decoding videos ahead of their consumer: in parallel, and in bounded memory."""

import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from socket import socketpair
from threading import RLock, Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memfeat.decoding.decoder import START_SECONDS, Decoder, DecoderDiedError
from memfeat.decoding.fetching import FetchedVideo, Fetcher
from memfeat.decoding.frame_pool import CHUNKS_AHEAD, FramePool, PoolShape
from memfeat.decoding.worker import (
    ChunkFilled,
    DecodeResult,
    DecodeSettings,
    Job,
    Opened,
    Ready,
    Version,
    changed,
    failure,
)
from memfeat.errors import DecoderError, RemoteError
from memfeat.manifest import VideoRecord

TIME_LIMIT = 120.0  # seconds
MOST_TRIES = 2  # of a video, and of starting a process
VIDEOS_PER_PROCESS = 500  # then it is replaced, and with it what codec libraries have leaked
FETCH_POLL_SECONDS = 0.02

_idle: list[Decoder] = []  # of earlier calls, to be used again
_pools: list[FramePool] = []  # likewise, at most one
_taking = RLock()  # held while a thread takes of these, or gives back


class DecodedFrames(NamedTuple):
    """The next frames of a video.

    Attributes:
        number: of the video, counted from 0 in the order given.
        pixels: uint8 (frames, height, width, 3) RGB; valid until the next event is requested.
        pts_seconds: when each is shown.
    """

    number: int
    pixels: NDArray[np.uint8]
    pts_seconds: list[float]


class DecodedVideo(NamedTuple):
    """The end of a video, after all of its frames; `number` counts from 0 in the order given."""

    number: int
    record: VideoRecord
    result: DecodeResult


_Event = tuple[DecodedFrames | DecodedVideo | BaseException, int | None]  # and its chunk


@dataclass
class _OpenVideo:
    """A video that is being decoded; `received` frames of it came, of the file's `version`."""

    number: int
    source: FetchedVideo
    job: Job
    tries: int = 0
    received: int = 0
    version: Version | None = None


class DecodedVideos(Iterator[DecodedFrames | DecodedVideo]):
    """The frames of videos as they come, those of one video in order, and the end of each.

    A decoder that is free takes the next video, so the videos start in the order given, but a
    short one may end before a long one that started earlier. A thread keeps the decoders busy while
    the consumer does something else, such as encode a batch.

    Attributes:
        waited: seconds spent waiting for frames.
        starting: seconds spent waiting for processes to start.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        settings: Callable[[int], DecodeSettings],
        decoders: list[Decoder],
        pool: FramePool,
        *,
        time_limit: float | None,
        most_open: int | None,
    ) -> None:
        self.waited = self.starting = 0.0
        self._fetcher, self._settings, self._pool = fetcher, settings, pool
        self._time_limit, self._most_open = time_limit, most_open
        self._decoders = decoders
        self._retiring: set[Decoder] = set()
        self._open: dict[Decoder, _OpenVideo] = {}
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._chunk: int | None = None  # of the event that the consumer has
        self._returned: deque[int] = deque()  # chunks that the consumer has no more use for
        self._count = 0
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        for decoder in decoders:
            self._selector.register(decoder.pipe, selectors.EVENT_READ, decoder)
        self._thread = Thread(target=self._keep_busy, name="decoders", daemon=True)
        self._thread.start()

    def __next__(self) -> DecodedFrames | DecodedVideo:
        self._give_back()
        started = time.perf_counter()
        was_ready = any(decoder.is_ready for decoder in self._decoders)
        event, self._chunk = self._events.get()
        if was_ready:
            self.waited += time.perf_counter() - started
        else:
            self.starting += time.perf_counter() - started
        if isinstance(event, BaseException):
            self._events.put((event, None))  # for whoever asks again
            raise event
        return event

    @property
    def waited_for_copies(self) -> float:
        """Seconds spent waiting for videos to be fetched from elsewhere."""
        return self._fetcher.waited

    @property
    def fill(self) -> float:
        """The share of the pool that holds frames not yet read, in [0, 1]."""
        return min(1.0, self._events.qsize() / self._pool.shape.chunks)

    def close(self) -> list[Decoder]:
        """End the processes that are still decoding, and return the others."""
        self._closing = True
        self._fetcher.stop()
        self._waker.send(b"!")
        self._thread.join()
        if self._chunk is not None:
            self._pool.free.append(self._chunk)
        self._selector.close()
        self._wake.close()
        self._waker.close()
        self._take_back()
        while not self._events.empty():
            _, chunk = self._events.get()
            if chunk is not None:
                self._pool.free.append(chunk)
        for decoder in self._open:
            decoder.close()
        return [decoder for decoder in self._decoders if decoder not in self._open]

    def _give_back(self) -> None:
        """Return the chunk of the last event to the thread, and wake it."""
        if self._chunk is not None:
            self._returned.append(self._chunk)
            self._chunk = None
            self._waker.send(b"!")

    def _take_back(self) -> None:
        while self._returned:
            self._pool.free.append(self._returned.popleft())

    def _keep_busy(self) -> None:
        """Keep the decoders busy until all videos have ended, or something goes wrong."""
        end: BaseException = StopIteration()
        try:
            self._go_on(0.0)
            while self._open and not self._closing:
                self._go_on(self._patience())
        except BaseException as error:
            end = error
        self._events.put((end, None))

    def _go_on(self, patience: float | None) -> None:
        """Handle what the decoders have sent, waiting for it if need be, and give them work."""
        for key, _ in self._selector.select(patience):
            if key.data is None:
                self._wake.recv(1 << 16)
                self._take_back()
                continue
            decoder: Decoder = key.data
            try:
                self._handle(decoder)
            except DecoderDiedError as died:
                self._retry(decoder, died)
        for decoder in list(self._open):
            left = decoder.seconds_left(self._time_limit)
            if left is not None and left <= 0:
                limit = self._time_limit if decoder.is_ready else START_SECONDS
                how = f"no frame came of it for {limit:g} seconds"
                self._retry(decoder, DecoderDiedError("timeout", how))
        while (free := self._free_decoder()) and (video := self._next_video()):
            self._submit(free, video)
        for most in range(1, CHUNKS_AHEAD + 1):  # first one each
            for decoder in self._open:
                decoder.grant(most)

    def _patience(self) -> float | None:
        """Return how many seconds to wait for a message at most."""
        limits = [decoder.seconds_left(self._time_limit) for decoder in self._open]
        if self._fetcher.is_busy and self._free_decoder():
            limits.append(FETCH_POLL_SECONDS)
        finite = [limit for limit in limits if limit is not None]
        return max(0.0, min(finite)) if finite else None

    def _free_decoder(self) -> Decoder | None:
        if all(decoder.is_ready for decoder in self._decoders):  # the successors too
            for decoder in self._retiring - self._open.keys():
                self._retiring.remove(decoder)
                self._decoders.remove(decoder)
                self._close(decoder)
        free = [decoder for decoder in self._decoders if decoder not in self._open]
        return next((decoder for decoder in free if decoder.is_ready), free[0] if free else None)

    def _next_video(self) -> _OpenVideo | None:
        """Take the next video that is on this machine's disk, or wait if there is nothing else."""
        oldest = min((video.number for video in self._open.values()), default=self._count)
        if self._most_open and self._count - oldest >= self._most_open:
            return None
        while not self._closing and (self._fetcher.is_ready or not self._open):
            source = next(self._fetcher, None)
            if source is None:
                return None
            number = self._count
            self._count += 1
            try:
                return _OpenVideo(number, source, Job(source.path(), self._settings(number)))
            except RemoteError as error:
                if error.reason == "unusable":  # and would be for every other video
                    raise
                self._end(number, source, failure(error.reason, str(error)))
        return None

    def _submit(self, decoder: Decoder, video: _OpenVideo) -> None:
        self._open[decoder] = video
        decoder.submit(video.job._replace(skip=video.received), self._pool)
        if decoder.jobs == VIDEOS_PER_PROCESS:
            self._retiring.add(decoder)
            self._decoders.append(self._started(Decoder()))

    def _handle(self, decoder: Decoder) -> None:
        """Handle a decoder's next message."""
        message = decoder.receive()
        video = self._open.get(decoder)
        if isinstance(message, Ready) or video is None:
            return
        if isinstance(message, ChunkFilled):
            pts_seconds = message.pts_seconds
            video.received += len(pts_seconds)
            pixels = self._pool.frames(message.chunk, len(pts_seconds), message.shape)
            frames = DecodedFrames(video.number, pixels, pts_seconds)
            self._events.put((frames, message.chunk))
        elif isinstance(message, DecodeResult):
            self._end(video.number, video.source, message)
            del self._open[decoder]
        elif isinstance(message, Opened):
            if video.version not in (None, message.version):  # between two tries
                self._end(video.number, video.source, changed(video.job.path))
                del self._open[decoder]
                self._replace(decoder)
            video.version = message.version

    def _end(self, number: int, source: FetchedVideo, result: DecodeResult) -> None:
        event = DecodedVideo(number, source.record, source.with_own_name(result))
        self._events.put((event, None))
        source.release()

    def _retry(self, decoder: Decoder, died: DecoderDiedError) -> None:
        """Start another process, and have it go on with the video unless this was the last try.

        Raises:
            DecoderError: the process did not even start, and not for the first time.
        """
        video = self._open.pop(decoder, None)
        successor = self._replace(decoder)
        if not decoder.is_ready:
            successor.false_starts = decoder.false_starts + 1
            if successor.false_starts == MOST_TRIES:
                raise DecoderError(f"processes that decode videos do not start: {died}")
        if video is None:
            return
        video.tries += decoder.is_ready
        if video.tries < MOST_TRIES:
            self._submit(successor, video)
            return
        times = f"{MOST_TRIES} times over; the other videos go on. Try to play it, or convert it"
        result = failure(died.reason, f"{str(video.job.path)!r}: {died}, {times}")
        self._end(video.number, video.source, result)

    def _replace(self, decoder: Decoder) -> Decoder:
        self._retiring.discard(decoder)
        successor = self._started(Decoder())
        self._decoders[self._decoders.index(decoder)] = successor
        self._close(decoder)
        return successor

    def _started(self, decoder: Decoder) -> Decoder:
        self._selector.register(decoder.pipe, selectors.EVENT_READ, decoder)
        return decoder

    def _close(self, decoder: Decoder) -> None:
        self._selector.unregister(decoder.pipe)
        decoder.close()


def start_decoders(number: int) -> None:
    """Start processes for a later `decode_ahead`, for instance while an encoder loads."""
    with _taking:
        for decoder in [decoder for decoder in _idle if not decoder.is_usable]:
            _idle.remove(decoder)
            decoder.close()
        _idle.extend(Decoder() for _ in range(number - len(_idle)))


@contextmanager
def decode_ahead(
    records: Iterable[VideoRecord],
    settings: DecodeSettings | Sequence[DecodeSettings],
    *,
    decoders: int,
    time_limit: float | None = TIME_LIMIT,
    most_open: int | None = None,
) -> Iterator[DecodedVideos]:
    """Decode videos in worker processes; leaving the context stops them.

    Remote videos are fetched to this machine's disk, a bounded number of them ahead; one that
    cannot be fetched fails as `missing`, `permission` or `unreachable`. A video whose decoder
    crashes, or sends no frame for `time_limit` seconds, is tried twice and then fails as `crash`
    or `timeout`.

    Args:
        records: which videos, in order.
        settings: how all are decoded, or how each is, to frames of one size.
        decoders: processes, each on one codec thread. The frames are the same with any number.
        time_limit: seconds; None for no limit.
        most_open: how many videos are begun at most before the oldest of them has ended, which
            bounds what a consumer keeps who needs them in order; None for any number.

    Raises:
        DecoderError: the processes cannot be had.
        RemoteError: remote videos cannot be had at all: a package or credentials are missing.
        OSError: there is no room on this machine's disk for copies.
    """
    each = (lambda _: settings) if isinstance(settings, DecodeSettings) else settings.__getitem__
    shape = PoolShape.of_frames(each(0).size, decoders)
    with _taking:
        pool = _pools.pop() if _pools else None
        if pool is None or pool.shape != shape:
            pool = FramePool(shape)
        start_decoders(decoders)
        chosen = [_idle.pop() for _ in range(decoders)]
    try:
        with Fetcher(records) as fetcher:
            videos = DecodedVideos(
                fetcher, each, chosen, pool, time_limit=time_limit, most_open=most_open
            )
            try:
                yield videos
            finally:
                chosen = videos.close()
    finally:
        with _taking:
            _idle.extend(chosen)
            _pools[:] = [pool]
