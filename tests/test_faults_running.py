"""The fault matrix's faults while running: where each is tested, and those tested here.

The long versions are in `tests/soak/`; `make soak` runs them.
"""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bad_videos import noise
from clips import numbered_clip, write_clip
from mutating import mutants
from test_extraction import EXTRACT, clips, config, files, manifest, whole  # noqa: F401

from memfeat.cache import Cache, verify
from memfeat.extraction import extract
from memfeat.manifest import Manifest, VideoRecord

TESTS = Path(__file__).parent
ROWS = {
    "F1": ["test_extraction.py::test_killed_at_any_moment_it_goes_on_to_the_same_bytes"],
    "F2": ["soak/test_soak_extraction.py::"
           "test_extraction_killed_at_random_moments_goes_on_to_the_same_bytes"],
    "F3": ["test_cli.py::test_an_interrupt_ends_extraction_promptly_and_leaves_no_stray",
           "test_faults_running.py::test_f3_a_second_interrupt_ends_it_at_once"],
    "F4": ["test_extraction.py::test_a_killed_worker_costs_its_shard_and_the_job_finishes",
           "test_decoding.py::test_a_decoder_that_crashes_once_costs_nothing",
           "test_ray.py::test_an_actor_that_is_killed_half_way_costs_at_most_its_shard"],
    "F5": ["test_extraction.py::test_a_full_disk_is_told_of_and_finished_shards_are_kept",
           "test_extraction.py::test_a_cache_that_cannot_be_written_to_is_refused_at_once"],
    "F6": ["test_faults_running.py::test_f6_two_processes_on_one_cache_make_what_one_makes"],
    "F8": ["test_training_seeds.py::"
           "test_an_interrupted_run_is_incomplete_and_then_ends_like_an_uninterrupted_one",
           "soak/test_soak_training.py::"
           "test_training_killed_at_any_moment_ends_like_an_uninterrupted_one"],
    "F9": ["test_faults_running.py::test_f9_too_little_memory_is_told_of"],
    "F12": ["test_faults_running.py::test_f12_every_mutant_of_a_video_is_accounted_for"],
    "F13": ["test_fuzz.py::"],
    "F14": ["soak/test_soak_videos.py::test_memory_stays_bounded_over_thousands_of_videos"],
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_every_fault_has_its_test(row):
    for place in ROWS[row]:
        path, _, name = place.partition("::")
        functions = [
            node.name
            for node in ast.walk(ast.parse((TESTS / path).read_text()))
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        assert functions
        assert not name or name in functions, f"{path} has no {name}"


def test_f3_a_second_interrupt_ends_it_at_once(clips, tmp_path):  # noqa: F811
    main = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from memfeat.cli import main
if __name__ == "__main__":
    main(sys.argv[1:])
"""
    numbered_clip(tmp_path / "long.mp4", 1500)  # so that there is time to interrupt it
    rows = [f"v{n},{clips / f'v{n}.mp4'},,test" for n in range(7)] + ["long,long.mp4,,test"]
    (tmp_path / "m.csv").write_text("\n".join(["video_id,path,score,split", *rows]))
    flags = ["--encoder", "timm/test_vit", "--weights", "random", "--device", "cpu"]
    where = ["--manifest", tmp_path / "m.csv", "--cache", tmp_path / "cache"]
    command = [sys.executable, "-c", main, "extract", *where, *flags, "--videos-per-shard", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list((tmp_path / "cache").glob("shard-*")) and process.poll() is None:
            time.sleep(0.01)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in stderr
    assert process.returncode < 0 or not list((tmp_path / "cache").glob(".*.part"))
    assert verify(tmp_path / "cache") == {}


def test_f6_two_processes_on_one_cache_make_what_one_makes(clips, whole, tmp_path):  # noqa: F811
    command = [sys.executable, "-c", EXTRACT, clips, tmp_path]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        stderr = process.communicate()[1]
        assert process.returncode == 0, stderr
    assert files(tmp_path) == files(whole)


@pytest.mark.parametrize("batch_size", [65_536, 4_096])
def test_f9_too_little_memory_is_told_of(clips, tmp_path, batch_size):  # noqa: F811
    """For the batch itself, and for what the encoder makes of it."""
    limited = f"""
{EXTRACT}
    import resource
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
    few = config(Path(sys.argv[2]) / "few", batch_size={batch_size})
    extract(manifest(Path(sys.argv[1])), few)
"""
    command = [sys.executable, "-c", limited, clips, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "EncoderError: there is no memory" in last
    assert "give a smaller --batch-size" in last
    assert not list((tmp_path / "few").glob("*.h5"))


def test_f12_every_mutant_of_a_video_is_accounted_for(tmp_path):
    whole_clip = write_clip(tmp_path / "whole.mp4", noise(6)[:, :32, :48].copy())
    paths = {"whole": whole_clip}
    for number, content in enumerate(mutants(whole_clip.read_bytes(), 40, seed=0)):
        paths[f"m{number}"] = tmp_path / f"m{number}.mp4"
        paths[f"m{number}"].write_bytes(content)
    records = [VideoRecord(video_id=n, path=p, score=None, split="test") for n, p in paths.items()]
    settings = config(tmp_path / "cache", encoder="timm/test_vit", time_limit=20)
    summary = extract(Manifest(tmp_path / "m.csv", tuple(records)), settings)
    assert {outcome.video_id for outcome in summary.outcomes} == set(paths)
    assert set(Cache.open(tmp_path / "cache").entries) == set(paths)
    assert verify(tmp_path / "cache") == {}
    alone = config(tmp_path / "alone", encoder="timm/test_vit")
    extract(Manifest(tmp_path / "m.csv", tuple(records[:1])), alone)
    tables = [Cache.open(tmp_path / name).load(["whole"]) for name in ("cache", "alone")]
    np.testing.assert_array_equal(tables[0].values, tables[1].values)
