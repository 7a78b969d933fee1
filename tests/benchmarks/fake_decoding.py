"""Decoders of a fixed rate: how many frames pass from many of them to their consumer."""

import time
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import numpy as np

from memfeat.decoding import DecodedFrames, DecodeSettings, decode_ahead, decoder
from memfeat.decoding.worker import DecodeResult, Opened, Ready, Worker
from memfeat.manifest import VideoRecord
from memfeat.video import Frame
from memfeat.workers import prepare_workers

RATE = 200.0  # frames a second
SIZE = 336


def serve(pipe: Connection) -> None:
    """Do as a decoder does, at its rate, with black frames; a path's stem is their number."""
    worker = Worker(pipe)
    worker.send(Ready())
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    while job := worker.next_job():
        worker.send(Opened((0,)))
        due = time.perf_counter()
        for number in range(int(job.path.stem)):
            due = max(due + 1 / RATE, time.perf_counter())  # time spent waiting is lost
            time.sleep(max(0.0, due - time.perf_counter()))
            worker.put(Frame(pixels, number / 30))
        worker.flush()
        worker.send(DecodeResult())


def frames_per_second(lengths: list[int], decoders: int) -> float:
    """Return how many frames pass, for videos of so many frames."""
    records = [
        VideoRecord(video_id=str(n), path=Path(f"{length}.mp4"), score=None, split="test")
        for n, length in enumerate(lengths)
    ]
    settings = DecodeSettings(SIZE)
    prepare_workers("memfeat.decoding.worker")  # for what a fork server can import itself
    with (
        patch.object(decoder, "serve", serve),
        decode_ahead(records, settings, decoders=decoders, time_limit=30) as videos,
    ):
        first = next(videos)
        started, count = time.perf_counter(), len(first.pts_seconds)
        for event in videos:
            if isinstance(event, DecodedFrames):
                count += len(event.pts_seconds)
        return count / (time.perf_counter() - started)
