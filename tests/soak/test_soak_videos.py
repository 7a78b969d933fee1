"""Thousands of damaged videos, and thousands of whole ones in one process (faults F12 and F14)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import numbered_clip
from dying import doubled, unreadable
from extracting import config, manifest_of
from mutating import mutants
from processes import descendants, resident
from trials import trials

from memfeat.cache import Cache
from memfeat.errors import MemfeatError
from memfeat.extraction import extract

pytestmark = [pytest.mark.soak, pytest.mark.timeout(24 * 3600)]
BATCH = 100
FRAMES = 6
CONTAINERS = {
    "mp4": (".mp4", "libx264"),
    "mkv": (".mkv", "libx264"),
    "webm": (".webm", "libvpx-vp9"),
    "avi": (".avi", "mpeg4"),
    "mpegts": (".ts", "mpeg2video"),
}
GROWTH = 50 << 20  # bytes
SECONDS = 20  # without a frame


def clip(folder: Path, container: str) -> Path:
    suffix, codec = CONTAINERS[container]
    return numbered_clip(folder / f"whole{suffix}", FRAMES, codec=codec, ticks=25)


def batches(whole: Path, count: int, folder: Path) -> Iterator[list[Path]]:
    """Write mutants of a clip, `BATCH` at a time, and the clip itself as the last of each."""
    made = mutants(whole.read_bytes(), count)
    for start in range(0, count, BATCH):
        paths = []
        for number in range(start, min(count, start + BATCH)):
            paths.append(folder / f"m{number}{whole.suffix}")
            paths[-1].write_bytes(next(made))
        yield [*paths, whole]
        for path in paths:
            path.unlink()


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_mutant_is_accounted_for_and_a_whole_video_beside_it_stays_as_it_is(
    container, tmp_path, tally
):
    row = tally.row(f"video mutants, {container}")
    whole = clip(tmp_path, container)
    (tmp_path / "mutants").mkdir()
    extract(manifest_of({whole.name: whole}), config(tmp_path / "alone"))
    right = Cache.open(tmp_path / "alone").load([whole.name]).values
    ways: Counter[str] = Counter()
    for number, paths in enumerate(batches(whole, trials(row.kind), tmp_path / "mutants")):
        cache = tmp_path / f"cache-{number}"
        settings = config(cache, videos_per_shard=32, time_limit=SECONDS, decoders=2)
        try:
            extract(manifest_of({path.name: path for path in paths}), settings)
            entries = Cache.open(cache).entries
        except MemfeatError as error:
            row.uncaught += 1
            row.note = str(error)
            continue
        for path in paths[:-1]:
            entry = entries.get(path.name)
            told = entry is not None and (entry.status == "ok" or bool(entry.reason))
            row.count(lost=not told)
            if entry is not None:
                ways[entry.reason or entry.status] += 1
        unchanged = np.array_equal(Cache.open(cache).load([whole.name]).values, right)
        row.lost += not unchanged
        row.doubled += doubled(cache)
        row.unreadable += unreadable(cache)
    row.note = ", ".join(f"{n} {way}" for way, n in ways.most_common())


def test_memory_stays_bounded_over_thousands_of_videos(tmp_path, tally):
    row = tally.row("videos in one process")
    whole = clip(tmp_path, "mp4")
    sizes, count = [], trials(row.kind)
    batch = min(BATCH, -(-count // 3))
    for start in range(0, max(3 * batch, count), batch):
        folder = tmp_path / f"videos-{start}"
        folder.mkdir()
        paths = [folder / f"v{start + number}.mp4" for number in range(batch)]
        for path in paths:
            path.hardlink_to(whole)
        summary = extract(
            manifest_of({path.name: path for path in paths}),
            config(tmp_path / f"cache-{start}", videos_per_shard=64),
        )
        for outcome in summary.outcomes:
            row.count(lost=outcome.status != "ok")
        sizes.append(sum(map(resident, [None, *descendants()])))
    # What the first hundreds load stays; only what comes after them is growth.
    growth = sizes[-1] - sizes[1]
    row.uncaught += growth > GROWTH
    row.note = f"memory grew by {growth / 2**20:.1f} MiB after the first {2 * batch} videos"
