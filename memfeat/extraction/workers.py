"""Shards shared out to workers on several devices or machines, and finished whatever dies."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from memfeat.config import ExtractConfig
from memfeat.encoders import FrameEncoder
from memfeat.engines import crew_for
from memfeat.errors import EncoderError, MemfeatError
from memfeat.extraction.encoding import OnVideo
from memfeat.extraction.pipeline import OnRates, ShardRecords, build_encoder, make_shards
from memfeat.extraction.places import Places, Station
from memfeat.extraction.rates import Rates
from memfeat.processes import Said, Send

TRIES = 2  # for each shard
MOST_SHARDS = 8  # given to a worker at once, so that its decoders run ahead from one to the next

Task = tuple[tuple[int, ShardRecords], ...]  # numbered shards


class _Placed(NamedTuple):
    """Word of a shard that is in place."""

    number: int


def share_out(
    shards: Sequence[ShardRecords],
    places: Places,
    *,
    on_video: OnVideo,
    on_rates: OnRates,
) -> None:
    """Make shards in a worker at each of the places; one that dies costs the shard it was at.

    Raises:
        MemfeatError, OSError: what a worker met.
        EncoderError: a shard's workers died twice; finished shards are kept.
    """
    arguments = [(places.config, station) for station in places.stations]
    engine = places.config.engine
    book = _Book(shards, len(arguments), on_video, on_rates)
    with crew_for(engine, work, arguments, places.share) as crew:
        while book.pending or crew.busy:
            while book.pending and crew.idle:
                crew.give(book.next_task())
            for task, event in crew.hear():
                if isinstance(event, Said):
                    book.hear(task, event.message)
                elif event.exit_code is not None:
                    book.take_back(task, event.exit_code)


class _Book:
    """Which shards are still to be made, and what is known of the others."""

    def __init__(
        self, shards: Sequence[ShardRecords], workers: int, on_video: OnVideo, on_rates: OnRates
    ) -> None:
        self._workers = workers
        self.pending = deque(enumerate(shards))
        self._left = dict(self.pending)
        self._on_video, self._on_rates = on_video, on_rates
        self._deaths: Counter[int] = Counter()
        self._told: set[str] = set()
        self._rates: dict[int, Rates] = {}

    def next_task(self) -> Task:
        """Take several shards while there are many, and single ones towards the end."""
        count = min(MOST_SHARDS, max(1, len(self.pending) // (2 * self._workers)))
        return tuple(self.pending.popleft() for _ in range(count))

    def hear(self, task: Task, message: Any) -> None:
        """Take in what a worker tells; raise the error that it met."""
        if isinstance(message, Exception):
            raise message
        if isinstance(message, _Placed):
            self._left.pop(message.number, None)
        elif isinstance(message, Rates):
            self._rates[task[0][0]] = message
            total = sum(self._rates.values(), Rates())
            # A worker's tasks follow each other, and only workers are side by side.
            self._on_rates(replace(total, pipelines=min(total.pipelines, self._workers)))
        elif message.video_id not in self._told:  # a shard may be made again
            self._told.add(message.video_id)
            self._on_video(message)

    def take_back(self, task: Task, exit_code: int) -> None:
        """Make what a dead worker left undone again.

        Raises:
            EncoderError: it was not the first to die at a shard.
        """
        again = [each for each in task if each[0] in self._left]
        self.pending.extendleft(reversed(again))
        if not again:
            return
        number = again[0][0]  # shards are made in order, so it is this one
        self._deaths[number] += 1
        if self._deaths[number] == TRIES:
            killed = exit_code < 0
            how = f"killed by signal {-exit_code}" if killed else f"ended by exit code {exit_code}"
            raise EncoderError(
                f"the workers that made one shard were {how}, {TRIES} times over, perhaps for want "
                "of memory; finished shards are kept: run the same command again, with a smaller "
                "--batch-size if they die again"
            )


@lru_cache(maxsize=1)
def _encoder(config: ExtractConfig, device: str) -> FrameEncoder:
    return build_encoder(config, torch.device(device))


def work(task: Task, place: tuple[ExtractConfig, Station], send: Send) -> None:
    """Make shards in a process of its own, and tell the parent about each video and shard."""
    config, (device, workers) = place
    numbers = iter([number for number, _ in task])

    def placed() -> None:
        send(_Placed(next(numbers)))

    try:
        make_shards(
            [records for _, records in task],
            _encoder(config, device),
            config,
            workers=workers,
            on_video=send,
            on_shard=placed,
            on_rates=send,
        )
    except (MemfeatError, OSError) as error:
        send(error)
    except Exception as error:
        send(EncoderError(f"the worker on {device} failed: {type(error).__name__}: {error}"))
