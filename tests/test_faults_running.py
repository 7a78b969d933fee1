"""Faults while an extraction runs, by their number in the fault matrix; tests/soak/ tries more.

F1, F4 and F5 are in test_extraction.py, F3 in test_cli.py too, F8 in test_training_seeds.py, F13 in
test_fuzz.py, F2 and F14 in tests/soak/ alone.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bad_videos import noise
from clips import numbered_clip, write_clip
from extracting import ENCODER, config, extract_into, files, manifest, manifest_of
from locks import lockless, needs_shim
from mutating import mutants
from processes import memfeat, start

from memfeat.cache import Cache, verify
from memfeat.errors import EncoderError
from memfeat.extraction import extract


def test_f3_a_second_interrupt_ends_it_at_once(clips, tmp_path):
    numbered_clip(tmp_path / "long.mp4", 1500)  # so that there is time to interrupt it
    rows = [f"v{n},{clips / f'v{n}.mp4'},,test" for n in range(7)] + ["long,long.mp4,,test"]
    (tmp_path / "m.csv").write_text("\n".join(["video_id,path,score,split", *rows]))
    where = ["--manifest", tmp_path / "m.csv", "--cache", tmp_path / "cache"]
    flags = ["--encoder", ENCODER, "--weights", "random", "--device", "cpu"]
    log = tmp_path / "log"
    process = start(memfeat, "extract", *where, *flags, "--videos-per-shard", "1", log=log)
    while not list((tmp_path / "cache").glob("shard-*")) and process.is_alive():
        time.sleep(0.01)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode in (130, -signal.SIGINT)
    assert "Traceback" not in log.read_text()
    assert process.exitcode < 0 or not list((tmp_path / "cache").glob(".*.part"))
    assert verify(tmp_path / "cache") == {}


def test_f6_two_processes_on_one_cache_make_what_one_makes(clips, whole, tmp_path):
    started = [start(extract_into, clips, tmp_path) for _ in range(2)]
    for process in started:
        process.join()
        assert process.exitcode == 0
    assert files(tmp_path) == files(whole)


def extract_with_little_memory(clips, folder) -> None:
    """Once without memory for the batch itself, and once for what the encoder makes of it."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
    for batch_size in (65_536, 4_096):
        try:
            extract(manifest(clips), config(folder / str(batch_size), batch_size=batch_size))
        except EncoderError as error:
            (folder / f"error-{batch_size}").write_text(str(error))


def test_f9_too_little_memory_is_told_of(clips, tmp_path):
    start(extract_with_little_memory, clips, tmp_path).join()
    for batch_size in (65_536, 4_096):
        error = (tmp_path / f"error-{batch_size}").read_text()
        assert error.startswith("there is no memory")
        assert "give a smaller --batch-size" in error
    assert not list(tmp_path.glob("*/*.h5"))


def test_f12_every_mutant_of_a_video_is_accounted_for(tmp_path):
    whole_clip = write_clip(tmp_path / "whole.mp4", noise(6)[:, :32, :48].copy())
    paths = {"whole": whole_clip}
    for number, content in enumerate(mutants(whole_clip.read_bytes(), 40, seed=0)):
        paths[f"m{number}"] = tmp_path / f"m{number}.mp4"
        paths[f"m{number}"].write_bytes(content)
    settings = config(tmp_path / "cache", time_limit=20)
    summary = extract(manifest_of(paths), settings)
    assert {outcome.video_id for outcome in summary.outcomes} == set(paths)
    assert set(Cache.open(tmp_path / "cache").entries) == set(paths)
    assert verify(tmp_path / "cache") == {}
    alone = config(tmp_path / "alone")
    extract(manifest_of({"whole": whole_clip}), alone)
    tables = [Cache.open(tmp_path / name).load(["whole"]) for name in ("cache", "alone")]
    np.testing.assert_array_equal(tables[0].values, tables[1].values)


PART = "from memfeat.storage.files import part_name; print(part_name('shard-x.h5'), end='')"
EXTRACT = "import sys; from pathlib import Path; from extracting import extract_into; "
EXTRACT += "extract_into(*map(Path, sys.argv[1:]))"


@needs_shim
@pytest.mark.parametrize("error", ["EBADF", "ENOSYS"])
def test_f15_caches_are_filled_by_two_at_once_and_repaired_whatever_locks_there_are(
    tmp_path, error
):
    ids = [f"v{number}" for number in range(5)]
    features = np.random.default_rng(0).standard_normal((5, 3, 8))
    np.savez(tmp_path / "f.npz", video_ids=ids, features=features)
    cache = tmp_path / "cache"
    cache.mkdir()
    part = subprocess.run([sys.executable, "-c", PART], check=True, capture_output=True, text=True)
    (cache / part.stdout).touch()
    command = [sys.executable, "-m", "memfeat", "cache"]
    importing = [*command, "import", tmp_path / "f.npz", "--name", "x", "--cache", cache]
    two = [subprocess.Popen(importing, env=lockless(error)) for _ in range(2)]
    assert [process.wait() for process in two] == [0, 0]
    (shard,) = cache.iterdir()
    assert set(Cache.open(cache).entries) == set(ids)
    (cache / part.stdout).touch()
    subprocess.run([*command, "repair", cache], env=lockless(error), check=True)
    assert list(cache.iterdir()) == [shard]
    assert verify(cache) == {}


@pytest.mark.soak
@needs_shim
def test_f15_two_extractions_at_once_without_locks_make_what_one_makes(clips, whole, tmp_path):
    command = [sys.executable, "-c", EXTRACT, clips, tmp_path]
    two = [subprocess.Popen(command, env=lockless("ENOLCK")) for _ in range(2)]
    assert [process.wait() for process in two] == [0, 0]
    assert files(tmp_path) == files(whole)
