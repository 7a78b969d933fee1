"""Stage 1 on Ray actors: what one machine makes, whatever becomes of an actor."""

import os
import signal
from pathlib import Path

import pytest
from extracting import FRAMES, config, files, manifest
from test_ray import cluster  # noqa: F401

from memfeat.cache import verify
from memfeat.extraction import extract

pytestmark = pytest.mark.usefixtures("cluster")
ON_RAY = {"engine": "ray", "device": "cpu,cpu"}


def actors() -> list[int]:
    """The processes of Ray actors that are at work."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            title = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::RaySeat"):
            found.append(int(process.name))
    return found


def test_two_actors_make_the_cache_that_this_process_makes(clips, whole, tmp_path):
    seen = []
    summary = extract(manifest(clips), config(tmp_path, **ON_RAY), on_video=seen.append)
    assert files(tmp_path) == files(whole)
    assert sorted(outcome.video_id for outcome in seen) == [f"v{n}" for n in range(len(FRAMES))]
    assert summary.rates.decoded == sum(FRAMES)


def test_an_actor_that_is_killed_half_way_costs_at_most_its_shard(clips, whole, tmp_path):
    killed: list[int] = []

    def kill(outcome) -> None:
        if not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    summary = extract(manifest(clips), config(tmp_path, **ON_RAY), on_video=kill)
    assert killed
    assert len(summary.outcomes) == len(FRAMES)
    assert files(tmp_path) == files(whole)
    assert verify(tmp_path) == {}
