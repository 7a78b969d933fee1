"""Decoders that crash at some videos, as a codec library may."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from unittest.mock import patch

from memfeat.decoding import ahead, decoder, worker
from memfeat.workers import prepare_workers


def serve(pipe: Connection) -> None:
    """Decode as a decoder does, but end at any file whose name begins with `crash`."""
    decode = worker.decode

    def crash_or_decode(job: worker.Job, to: worker.Worker) -> worker.DecodeResult:
        if job.path.name.startswith("crash"):
            os._exit(7)
        return decode(job, to)

    worker.decode = crash_or_decode
    worker.serve(pipe)


@contextmanager
def crashing_decoders() -> Iterator[None]:
    """Let all decoders that are started meanwhile be such."""
    close_idle()
    prepare_workers("memfeat.decoding.worker")  # for what a fork server can import itself
    with patch.object(decoder, "serve", serve):
        yield
    close_idle()


def close_idle() -> None:
    while ahead._idle:
        ahead._idle.pop().close()
