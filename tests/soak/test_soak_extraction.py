"""Extraction killed at any moment, and by many processes at once (faults F1, F2 and F6)."""

import random
import signal
import time
from pathlib import Path

import pytest
from dying import STEPS, begin, doubled, end, run, unreadable, wait_until_ready
from extracting import files
from trials import Row, trials

pytestmark = [pytest.mark.soak, pytest.mark.timeout(12 * 3600)]
KILLS_A_JOB = 5


def count(row: Row, cache: Path, whole: Path, before: dict[str, bytes], *, uncaught: int) -> None:
    """Count a trial: what was whole `before` is as it was, and no other bytes are ever in place."""
    right, left = files(whole), files(cache)
    lost = sum(left.get(name) != content for name, content in before.items())
    shards = {name: content for name, content in left.items() if name.startswith("shard-")}
    wrong = sum(right.get(name) != content for name, content in shards.items())
    row.count(
        lost=lost + wrong,
        doubled=doubled(cache),
        unreadable=unreadable(cache),
        uncaught=uncaught,
    )


def finish(row: Row, clips: Path, cache: Path, whole: Path) -> None:
    """Let a job end undisturbed, and compare it byte for byte with one that always was."""
    run(clips, cache)
    row.lost += files(cache) != files(whole)


def whole_shards(cache: Path) -> dict[str, bytes]:
    return {name: c for name, c in files(cache).items() if name.startswith("shard-")}


def test_extraction_killed_at_random_moments_goes_on_to_the_same_bytes(
    clips, whole, tmp_path, tally
):
    row = tally.row("extraction killed at random moments")
    process = begin(clips, tmp_path / "timed")
    wait_until_ready(process)
    start = time.perf_counter()
    assert end(process) == 0
    seconds, generator, kills = time.perf_counter() - start, random.Random(0), 0
    for trial in range(trials(row.kind)):
        job, kill = divmod(trial, KILLS_A_JOB)
        cache = tmp_path / f"job-{job}"
        before = whole_shards(cache)
        process = begin(clips, cache)
        wait_until_ready(process)
        time.sleep(generator.uniform(0, seconds / KILLS_A_JOB * 2))
        process.send_signal(signal.SIGKILL)
        code = end(process)
        kills += code == -signal.SIGKILL
        count(row, cache, whole, before, uncaught=code not in (0, -signal.SIGKILL))
        if kill == KILLS_A_JOB - 1 or trial == trials(row.kind) - 1:
            finish(row, clips, cache, whole)
    row.note = f"{kills} killed before they ended, {KILLS_A_JOB} in a job"
    assert kills


def test_extraction_killed_at_each_step_of_writing_goes_on_to_the_same_bytes(
    clips, whole, tmp_path, tally
):
    row = tally.row("extraction killed at steps of writing")
    steps = list(STEPS)
    reached = set()
    for trial in range(max(len(steps), trials(row.kind))):
        step, cache = steps[trial % len(steps)], tmp_path / str(trial)
        process = begin(clips, cache, STEPS[step], 2 + trial // len(steps) % 3)
        code = end(process)
        if code == -signal.SIGKILL:
            reached.add(step)
        count(row, cache, whole, {}, uncaught=code not in (0, -signal.SIGKILL))
        finish(row, clips, cache, whole)
    row.note = f"{len(reached)} of {len(steps)} steps"
    assert reached == set(steps)


@pytest.mark.parametrize("writers", [2, 8])
def test_many_processes_on_one_cache_make_what_one_makes(clips, whole, tmp_path, tally, writers):
    row = tally.row(f"{writers} writers on one cache")
    for trial in range(trials(row.kind)):
        cache = tmp_path / str(trial)
        processes = [begin(clips, cache) for _ in range(writers)]
        codes = [end(process) for process in processes]
        count(row, cache, whole, {}, uncaught=sum(code != 0 for code in codes))
        row.lost += files(cache) != files(whole)
