"""Decoding videos ahead of their consumer: in order, in parallel, in bounded memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

from memfeat.decoding.decoder import Decoder
from memfeat.decoding.fetching import FetchedVideo, Fetcher
from memfeat.decoding.worker import DecodeResult, DecodeSettings, failure
from memfeat.errors import RemoteError
from memfeat.manifest import VideoRecord
from memfeat.video import Frame

TIME_LIMIT = 120.0  # seconds
VIDEOS_PER_DECODER = 2  # submitted to it at a time

_idle: list[Decoder] = []  # of earlier calls, to be used again


class DecodedVideo:
    """The frames of a video while it is being decoded in another process.

    Iterate it once; a frame's pixels are valid until the next frame is requested.

    Attributes:
        record: which video.
        result: how decoding ended, once all frames have been iterated.
    """

    def __init__(self, source: FetchedVideo, frames: Iterable[Frame | DecodeResult]) -> None:
        self.record = source.record
        self.result = DecodeResult()
        self._source = source
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            if isinstance(frame, DecodeResult):
                self.result = self._source.with_own_name(frame)
            else:
                yield frame
        self._source.release()


class DecodedVideos(Iterator[DecodedVideo]):
    """Videos in the order given; iterate each to its end before requesting the next."""

    def __init__(
        self,
        fetcher: Fetcher,
        settings: DecodeSettings,
        decoders: Sequence[Decoder],
        time_limit: float | None,
    ) -> None:
        self._fetcher = fetcher
        self._turns = cycle(decoders)
        self._settings = settings
        self._decoders = decoders
        self._time_limit = time_limit
        self._waited_before, self._starting_before = self._waits()
        self._videos: deque[DecodedVideo] = deque()

    def __next__(self) -> DecodedVideo:
        # Two each, so that none waits for a video while the frames of its last one are read.
        while len(self._videos) < VIDEOS_PER_DECODER * len(self._decoders) and (
            self._fetcher.is_ready or not self._videos
        ):
            source = next(self._fetcher, None)
            if source is None:
                break
            self._videos.append(self._submit(source))
        if not self._videos:
            raise StopIteration
        return self._videos.popleft()

    def _submit(self, source: FetchedVideo) -> DecodedVideo:
        """Submit a video to the next decoder, unless it could not be fetched."""
        try:
            path = source.path()
        except RemoteError as error:
            if error.reason == "unusable":  # and would be for every other video
                raise
            return DecodedVideo(source, [failure(error.reason, str(error))])
        decoder = next(self._turns)
        decoder.submit(path, self._settings)
        return DecodedVideo(source, decoder.frames(self._time_limit))

    @property
    def waited(self) -> float:
        """Seconds spent waiting for frames."""
        return self._waits()[0] - self._waited_before

    @property
    def waited_for_copies(self) -> float:
        """Seconds spent waiting for videos to be fetched from elsewhere."""
        return self._fetcher.waited

    @property
    def starting(self) -> float:
        """Seconds spent waiting for processes to start."""
        return self._waits()[1] - self._starting_before

    @property
    def fill(self) -> float:
        """The share of the ring buffers that holds frames not yet read, in [0, 1]."""
        return sum(decoder.fill for decoder in self._decoders) / len(self._decoders)

    def _waits(self) -> tuple[float, float]:
        waited = sum(decoder.waited for decoder in self._decoders)
        return waited, sum(decoder.starting for decoder in self._decoders)


def start_decoders(number: int) -> None:
    """Start processes for a later `decode_ahead`, for instance while an encoder loads.

    Raises:
        DecoderError: the processes cannot be had.
    """
    _idle.extend(Decoder() for _ in range(number - len(_idle)))
    for decoder in _idle[-number:]:
        decoder.start()


@contextmanager
def decode_ahead(
    records: Iterable[VideoRecord],
    settings: DecodeSettings,
    *,
    decoders: int,
    time_limit: float | None = TIME_LIMIT,
) -> Iterator[DecodedVideos]:
    """Decode videos in worker processes; leaving the context stops them.

    Remote videos are fetched to this machine's disk, a bounded number of them ahead; one that
    cannot be fetched fails as `missing`, `permission` or `unreachable`. A video whose decoder
    crashes, or sends no frame for `time_limit` seconds, is tried twice and then fails as `crash`
    or `timeout`.

    Args:
        records: which videos, in order.
        settings: how each is decoded.
        decoders: processes, each on one codec thread. The frames are the same with any number.
        time_limit: seconds; None for no limit.

    Raises:
        DecoderError: the processes cannot be had.
        RemoteError: remote videos cannot be had at all: a package or credentials are missing.
        OSError: there is no room on this machine's disk for copies.
    """
    chosen = [_idle.pop() if _idle else Decoder() for _ in range(decoders)]
    try:
        with Fetcher(records) as fetcher:
            yield DecodedVideos(fetcher, settings, chosen, time_limit)
    finally:
        for decoder in chosen:
            if not decoder.is_idle:
                decoder.close()
        _idle.extend(decoder for decoder in chosen if decoder.is_idle)
