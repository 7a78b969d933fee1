"""What many decoders give their consumer: real ones, and ones of a fixed rate."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from memfeat.decoding import DecodedFrames, DecodeSettings, ahead, decode_ahead, decoder
from memfeat.decoding.decoder import Decoder
from memfeat.decoding.frame_pool import CHUNK_FRAMES, PoolShape
from memfeat.decoding.worker import DecodeResult, Opened, Ready, Worker
from memfeat.encoders import FrameEncoder
from memfeat.extraction.encoding import Batches
from memfeat.manifest import VideoRecord
from memfeat.video import Frame, VideoReader
from memfeat.workers import prepare_workers

FAKES = 8
RATE = 200.0  # frames a second of each
SIZE = 336
FILM = 162_000  # frames of ninety minutes
MIXED = 3_600  # clips of 90 frames beside it, which take eight fakes less long than the film


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


def records_of(paths: Sequence[Path]) -> list[VideoRecord]:
    return [
        VideoRecord(video_id=str(n), path=path, score=None, split="test")
        for n, path in enumerate(paths)
    ]


@contextmanager
def fakes() -> Iterator[None]:
    """Let the decoders be fakes."""
    close_idle()
    prepare_workers("memfeat.decoding.worker")  # for what a fork server can import itself
    with patch.object(decoder, "serve", serve):
        yield
    close_idle()


def close_idle() -> None:
    while ahead._idle:
        ahead._idle.pop().close()


def fake_frames_per_second(lengths: Sequence[int], most_seconds: float = 600) -> float:
    """Return how many frames a second come from fakes, for videos of so many frames."""
    records = records_of([Path(f"{length}.mp4") for length in lengths])
    with fakes(), decode_ahead(records, DecodeSettings(SIZE), decoders=FAKES) as videos:
        started, count = time.perf_counter(), 0
        for event in videos:
            if isinstance(event, DecodedFrames):
                count += len(event.pts_seconds)
            if time.perf_counter() - started > most_seconds:
                break
        return count / (time.perf_counter() - started)


def fake_figures(seconds: float) -> dict[str, float]:
    """Measure for about so many seconds each; the film never ends in that time."""
    turns = {length: max(1, round(RATE * seconds / length)) for length in (90, 400, 900)}
    return {
        **{
            f"fake_decoders_{length}": fake_frames_per_second([length] * FAKES * each)
            for length, each in turns.items()
        },
        "fake_decoders_mixed": fake_frames_per_second([90] * 10 + [FILM] + [90] * MIXED, seconds),
    }


def through_encoder(
    records: Sequence[VideoRecord], encoder: FrameEncoder, batch: int, decoders: int
) -> int:
    """Decode and encode videos, and drop the embeddings; return how many frames there were."""
    batches = Batches(encoder, batch, lambda *_: None)
    with decode_ahead(records, DecodeSettings(encoder.image_size), decoders=decoders) as videos:
        for event in videos:
            if isinstance(event, DecodedFrames):
                batches.add(event.pixels, lambda _: None)
    batches.flush()
    return batches.encoded


def longest_pause(records: Sequence[VideoRecord], size: int, decoders: int) -> float:
    """Return the longest time in seconds without a frame, after the first one."""
    longest, last = 0.0, None
    with decode_ahead(records, DecodeSettings(size), decoders=decoders) as videos:
        for _ in videos:
            now = time.perf_counter()
            longest = max(longest, now - last) if last is not None else 0.0
            last = now
    return longest


def start_and_private_mb() -> tuple[float, float]:
    """Start a decoder; return the seconds until it was ready, and the memory of its own."""
    started = time.perf_counter()
    new = Decoder()
    new.receive()
    seconds = time.perf_counter() - started
    lines = Path(f"/proc/{new._process.pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    new.close()
    return seconds, private / 1024


def has_torchcodec() -> bool:
    """Whether the package is here, and the libraries of FFmpeg that it needs."""
    try:
        import torchcodec.decoders  # noqa: F401, PLC0415  it is optional
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def pool_of_one(size: int) -> NDArray[np.uint8]:
    """Memory like that which a single decoder fills."""
    chunks = PoolShape.of_frames(size, 1).chunks
    return np.zeros((chunks * CHUNK_FRAMES, size, size, 3), np.uint8)


def read_into_memory(records: Sequence[VideoRecord], size: int) -> int:
    """Decode and resize as a decoder does, in this process."""
    pool, count = pool_of_one(size), 0
    for record in records:
        with VideoReader(record.path, size=size) as reader:
            for frame in reader:
                pool[count % len(pool)] = frame.pixels
                count += 1
    return count


def torchcodec_decoded(records: Sequence[VideoRecord], size: int) -> int:
    """Decode and resize with torchcodec and torch, into memory like that which ours fills."""
    from torchcodec.decoders import VideoDecoder  # noqa: PLC0415

    pool, count = pool_of_one(size), 0
    for record in records:
        frames = VideoDecoder(
            str(record.path), num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode="exact"
        )
        for frame in frames:
            batch = frame[None].permute(0, 3, 1, 2)
            picture = interpolate(batch, (size, size), mode="bicubic", antialias=True)
            pool[count % len(pool)] = picture[0].permute(1, 2, 0).numpy()
            count += 1
    return count
