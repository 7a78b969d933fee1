"""Videos to frames, in order and ahead of whoever consumes them, in bounded memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice

from memfeat.decoding.decoder import Decoder
from memfeat.decoding.worker import DecodeSettings, Finished
from memfeat.manifest import VideoRecord
from memfeat.video import Frame

TIME_LIMIT = 120.0  # seconds

_resting: list[Decoder] = []  # left by earlier calls: a process takes seconds to start


class DecodedVideo:
    """A video that is decoded elsewhere while its frames are taken off here.

    Iterate it once; a frame's pixels are its own only until the next one is asked for. The
    attributes below hold from the end of that on.

    Attributes:
        record: which video.
        end: how it ended; see `Finished`.
    """

    def __init__(self, record: VideoRecord, decoder: Decoder, time_limit: float | None) -> None:
        self.record = record
        self.end = Finished()
        self._frames = decoder.frames(time_limit)

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            if isinstance(frame, Finished):
                self.end = frame
            else:
                yield frame


class Ahead(Iterator[DecodedVideo]):
    """Videos in the order asked for; consume each wholly before asking for the next."""

    def __init__(
        self,
        records: Iterable[VideoRecord],
        settings: DecodeSettings,
        decoders: Sequence[Decoder],
        time_limit: float | None,
    ) -> None:
        self._records = zip(records, cycle(decoders), strict=False)
        self._settings = settings
        self._decoders = decoders
        self._time_limit = time_limit
        self._waited_before, self._starting_before = self._waits()
        self._videos: deque[DecodedVideo] = deque()

    def __next__(self) -> DecodedVideo:
        # Two each, so that none waits for a video while the frames of its last one are taken.
        for record, decoder in islice(self._records, 2 * len(self._decoders) - len(self._videos)):
            decoder.ask(record.path, self._settings)
            self._videos.append(DecodedVideo(record, decoder, self._time_limit))
        if not self._videos:
            raise StopIteration
        return self._videos.popleft()

    @property
    def waited(self) -> float:
        """Seconds spent waiting for frames."""
        return self._waits()[0] - self._waited_before

    @property
    def starting(self) -> float:
        """Seconds spent waiting for processes to start."""
        return self._waits()[1] - self._starting_before

    @property
    def fill(self) -> float:
        """The share of the rings that holds frames which nobody has taken yet, in [0, 1]."""
        return sum(decoder.fill for decoder in self._decoders) / len(self._decoders)

    def _waits(self) -> tuple[float, float]:
        waited = sum(decoder.waited for decoder in self._decoders)
        return waited, sum(decoder.starting for decoder in self._decoders)


def start_decoders(number: int) -> None:
    """Start processes for a `decode_ahead` that comes later, while other things are got ready.

    Raises:
        DecoderError: the processes cannot be had.
    """
    _resting.extend(Decoder() for _ in range(number - len(_resting)))
    for decoder in _resting[-number:]:
        decoder.start()


@contextmanager
def decode_ahead(
    records: Iterable[VideoRecord],
    settings: DecodeSettings,
    *,
    decoders: int,
    time_limit: float | None = TIME_LIMIT,
) -> Iterator[Ahead]:
    """Decode videos in processes of their own; leaving the context stops it.

    A video whose decoder crashes, or gives no frame for `time_limit` seconds, is tried twice and
    then failed, as `crash` or `timeout`.

    Args:
        records: which videos, in order.
        settings: what is made of each.
        decoders: processes, each on one codec thread. The frames are the same with any number.
        time_limit: seconds; None for no limit.

    Raises:
        DecoderError: the processes cannot be had.
    """
    crew = [_resting.pop() if _resting else Decoder() for _ in range(decoders)]
    try:
        yield Ahead(records, settings, crew, time_limit)
    finally:
        for decoder in crew:
            if not decoder.is_idle:
                decoder.close()
        _resting.extend(decoder for decoder in crew if decoder.is_idle)
