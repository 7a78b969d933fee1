"""Videos to frames, in order and ahead of whoever consumes them, in bounded memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

from memfeat.decoding.decoder import Decoder
from memfeat.decoding.fetching import Supplies, Supply
from memfeat.decoding.worker import DecodeSettings, Finished, failure
from memfeat.errors import RemoteError
from memfeat.manifest import VideoRecord
from memfeat.video import Frame

TIME_LIMIT = 120.0  # seconds
EACH = 2  # videos that a decoder is asked for at a time

_resting: list[Decoder] = []  # left by earlier calls: a process takes seconds to start


class DecodedVideo:
    """A video that is decoded elsewhere while its frames are taken off here.

    Iterate it once; a frame's pixels are its own only until the next one is asked for. The
    attributes below hold from the end of that on.

    Attributes:
        record: which video.
        end: how it ended; see `Finished`.
    """

    def __init__(self, supply: Supply, frames: Iterable[Frame | Finished]) -> None:
        self.record = supply.record
        self.end = Finished()
        self._supply = supply
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            if isinstance(frame, Finished):
                self.end = self._supply.told(frame)
            else:
                yield frame
        self._supply.release()


class Ahead(Iterator[DecodedVideo]):
    """Videos in the order asked for; consume each wholly before asking for the next."""

    def __init__(
        self,
        supplies: Supplies,
        settings: DecodeSettings,
        decoders: Sequence[Decoder],
        time_limit: float | None,
    ) -> None:
        self._supplies = supplies
        self._turns = cycle(decoders)
        self._settings = settings
        self._decoders = decoders
        self._time_limit = time_limit
        self._waited_before, self._starting_before = self._waits()
        self._videos: deque[DecodedVideo] = deque()

    def __next__(self) -> DecodedVideo:
        # Two each, so that none waits for a video while the frames of its last one are taken.
        while len(self._videos) < EACH * len(self._decoders) and (
            self._supplies.is_ready or not self._videos
        ):
            supply = next(self._supplies, None)
            if supply is None:
                break
            self._videos.append(self._ask(supply))
        if not self._videos:
            raise StopIteration
        return self._videos.popleft()

    def _ask(self, supply: Supply) -> DecodedVideo:
        """Have a video decoded, unless it could not be fetched."""
        try:
            path = supply.path()
        except RemoteError as error:
            if error.reason == "unusable":  # which no other video would be spared
                raise
            return DecodedVideo(supply, [failure(error.reason, str(error))])
        decoder = next(self._turns)
        decoder.ask(path, self._settings)
        return DecodedVideo(supply, decoder.frames(self._time_limit))

    @property
    def waited(self) -> float:
        """Seconds spent waiting for frames."""
        return self._waits()[0] - self._waited_before

    @property
    def waited_for_copies(self) -> float:
        """Seconds spent waiting for videos to be fetched from elsewhere."""
        return self._supplies.waited

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

    Remote videos are fetched to this machine's disk, a bounded number of them ahead; one that
    cannot be fetched fails as `missing`, `permission` or `unreachable`. A video whose decoder
    crashes, or gives no frame for `time_limit` seconds, is tried twice and
    then failed, as `crash` or `timeout`.

    Args:
        records: which videos, in order.
        settings: what is made of each.
        decoders: processes, each on one codec thread. The frames are the same with any number.
        time_limit: seconds; None for no limit.

    Raises:
        DecoderError: the processes cannot be had.
        RemoteError: remote videos cannot be had at all: a package or credentials are missing.
        OSError: there is no room on this machine's disk for copies.
    """
    crew = [_resting.pop() if _resting else Decoder() for _ in range(decoders)]
    try:
        with Supplies(records) as supplies:
            yield Ahead(supplies, settings, crew, time_limit)
    finally:
        for decoder in crew:
            if not decoder.is_idle:
                decoder.close()
        _resting.extend(decoder for decoder in crew if decoder.is_idle)
