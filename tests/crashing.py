"""Decoders that crash or hang at some videos, as a codec library may."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from unittest.mock import patch

from memfeat.decoding import ahead, decoder, worker
from memfeat.workers import prepare_workers


def serve(pipe: Connection) -> None:
    """Decode as a decoder does, but end or stand still at a file named `crash*` or `hang*`."""
    decode = worker.decode

    def crash_or_decode(job: worker.Job, to: worker.Worker) -> worker.DecodeResult:
        if job.path.name.startswith("crash"):
            os._exit(7)
        if job.path.name.startswith("hang"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return decode(job, to)

    worker.decode = crash_or_decode
    worker.serve(pipe)


@contextmanager
def crashing_decoders() -> Iterator[None]:
    """Let all decoders that are started meanwhile be such, and wait less for them than usual."""
    close_idle()
    prepare_workers("memfeat.decoding.worker")  # for what a fork server can import itself
    defaults = ahead.decode_ahead.__wrapped__.__kwdefaults__
    with patch.object(decoder, "serve", serve), patch.dict(defaults, time_limit=1.0):
        yield
    close_idle()


def close_idle() -> None:
    while ahead._idle:
        ahead._idle.pop().close()
