"""Shards: what loads is what was written, or `verify` finds it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from fuzzed import FOUND, REFUSED, SAME, WRONG, Files, check_line
from memfeat.cache import Cache, CacheSpec, EncodedVideo, verify, write_shard
from memfeat.errors import CacheError, MemfeatError

SPEC = {
    "encoder": "made-up",
    "weights": "random",
    "weights_sha256": "0" * 64,
    "trained_on": "nothing",
    "activation": "none",
    "image_size": 32,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "precision": "float32",
    "batch_size": 4,
}


def shards(folder: Path) -> Files:
    generator = np.random.default_rng(0)

    def video(name: str, frames: int, **how: Any) -> EncodedVideo:
        vectors = generator.standard_normal((frames, 16))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return EncodedVideo(
            name, vectors.astype(np.float16), np.arange(frames) / 25, frame_size=(64, 48), **how
        )

    spec = CacheSpec.model_validate({**SPEC, "dim": 16})
    videos = [
        video("a", 3),
        video("b", 0, status="failed", reason="missing"),
        video("ç @+1", 5),
        video("d", 1, status="partial", reason="truncated", frames_expected=3),
    ]
    path = write_shard(folder, spec, videos)

    def content() -> tuple[Any, ...]:
        cache = Cache.open(folder)
        table = cache.load(cache.usable(partial=True))
        arrays = table.values, table.pts_seconds, table.covers, table.offsets
        return cache.spec, cache.entries, table.video_ids, [array.tobytes() for array in arrays]

    right = content()

    def read(damaged: bytes) -> str:
        found = verify(folder)
        for message in found.values():
            check_line(message)
        try:
            same = content() == right
            return FOUND if found else SAME if same else WRONG
        except MemfeatError as error:
            check_line(str(error))
            with suppress(CacheError):  # it may be of another version
                for aside in Cache.open_whole(folder)[1]:
                    aside.unlink()
            return REFUSED if found else WRONG  # refused, though `verify` sees no fault

    yield path, read
