"""Bad videos through extraction: what reaches the shard, the summary and --json."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from bad_videos import KINDS
from clips import numbered_clip, refusal
from commands import run
from extracting import config as small_config
from extracting import files, manifest_of
from processes import reading, struck

from memfeat.cache import Cache, verify
from memfeat.config import ExtractConfig
from memfeat.extraction import extract

PLAIN = [kind for kind in KINDS if not kind.settings]
WITH_SETTINGS = [kind for kind in KINDS if kind.settings]
GOOD = {"good-a": 9, "good-b": 4, "good-c": 17}


def config(cache: Path, **changes) -> ExtractConfig:
    return small_config(cache, **{"videos_per_shard": 64} | changes)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return {name: numbered_clip(folder / f"{name}.mp4", n) for name, n in GOOD.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    found = {}
    for kind in KINDS:
        path = folder / kind.name
        kind.make(path)
        found[kind.video_id] = path
    return found


@pytest.fixture(scope="module")
def alone(good, tmp_path_factory):
    cache = tmp_path_factory.mktemp("alone")
    extract(manifest_of(good), config(cache))
    return cache


@pytest.fixture(scope="module")
def together(good, corpus, tmp_path_factory):
    """All kinds in one run, with good videos before, between and after them."""
    names = [kind.video_id for kind in PLAIN]
    half = len(names) // 2
    order = ["good-a", *names[:half], "good-b", *names[half:], "good-c"]
    cache = tmp_path_factory.mktemp("together")
    paths = {name: (good | corpus)[name] for name in order}
    return extract(manifest_of(paths), config(cache)), cache


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.video_id)
def test_each_kind_ends_with_its_status_and_reason(kind, together):
    summary, cache = together
    entry = Cache.open(cache).entries[kind.video_id]
    outcome = {each.video_id: each for each in summary.outcomes}[kind.video_id]
    for found in (entry, outcome):
        assert (found.status, found.reason) == (kind.status, kind.reason)
    assert entry.num_frames == outcome.num_frames
    assert kind.frames in (None, entry.num_frames)
    assert "\n" not in outcome.message
    failed = kind.status == "failed"
    assert summary.failures.get(kind.video_id) == (kind.reason if failed else None)
    assert (entry.num_frames == 0) is failed
    assert outcome.message or not failed


@pytest.mark.parametrize("kind", WITH_SETTINGS, ids=lambda kind: kind.video_id)
def test_a_setting_decides_what_becomes_of_it(kind, corpus, tmp_path):
    paths = {kind.video_id: corpus[kind.video_id]}
    extract(manifest_of(paths), config(tmp_path, **kind.settings))
    entry = Cache.open(tmp_path).entries[kind.video_id]
    assert (entry.status, entry.reason) == (kind.status, kind.reason)
    assert kind.frames in (None, entry.num_frames)


def test_good_videos_get_the_same_bytes_among_bad_ones(alone, together):
    mixed, clean = Cache.open(together[1]).load(list(GOOD)), Cache.open(alone).load(list(GOOD))
    np.testing.assert_array_equal(mixed.values, clean.values)
    np.testing.assert_array_equal(mixed.pts_seconds, clean.pts_seconds)
    assert mixed.lengths.tolist() == list(GOOD.values())
    assert verify(together[1]) == {}


def test_the_command_counts_them_by_reason_and_shows_no_traceback(corpus, good, tmp_path):
    chosen = ["empty.mp4", "cut.mp4", "cut.mkv", "sound.wav", "missing.mp4"]
    paths = {name: corpus[name] for name in chosen} | good
    rows = [f"{name},{path},,test" for name, path in paths.items()]
    (tmp_path / "m.csv").write_text("\n".join(["video_id,path,score,split", *rows]))
    flags = ["--encoder=timm/test_vit", "--weights=random", "--batch-size=4", "--device=cpu"]
    where = [f"--manifest={tmp_path / 'm.csv'}", f"--cache={tmp_path / 'cache'}"]
    result = run("extract", *where, *flags, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["reasons"] == {"missing": 1, "no_video": 1, "unreadable": 1}
    assert (found["ok"], found["partial"], found["failed"]) == (3, 2, 3)


def test_damage_gives_the_same_bytes_every_time(corpus, tmp_path):
    paths = {"damaged": corpus["damaged.mp4"]}
    for cache in ("one", "two"):
        extract(manifest_of(paths), config(tmp_path / cache))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert 30 < Cache.open(tmp_path / "one").entries["damaged"].num_frames < 60
    assert Cache.open(tmp_path / "one").usable() == ()


def test_a_file_that_may_not_be_read(good, tmp_path):
    """With the reader itself: what is not root cannot start a decoder where Python is root's."""
    path = shutil.copy(good["good-a"], tmp_path / "mine.mp4")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        assert refusal(path).reason == "permission"
    finally:
        os.seteuid(user)


def test_the_same_content_under_two_ids_is_warned_of(good, tmp_path):
    shutil.copy(good["good-b"], tmp_path / "copy.mp4")
    twice = manifest_of(good | {"copy": tmp_path / "copy.mp4"})
    summary = extract(twice, config(tmp_path / "cache"))
    assert summary.same == (("copy", "good-b"),)
    assert summary.as_dict()["same_content"] == [["copy", "good-b"]]


def test_a_file_that_changes_while_it_is_read_is_not_cached(good, tmp_path):
    clip = numbered_clip(tmp_path / "changing.mp4", 900)

    def touch(outcome) -> None:
        if outcome.video_id == "good-a":
            while not reading(clip):  # until it is being decoded, ahead of the encoder
                time.sleep(0.005)
            with clip.open("ab") as file:
                file.write(b"more")

    paths = {"good-a": good["good-a"], "changing": clip, "good-b": good["good-b"]}
    summary = extract(manifest_of(paths), config(tmp_path / "cache", decoders=2), on_video=touch)
    assert summary.failures == {"changing": "changed"}
    assert Cache.open(tmp_path / "cache").usable() == ("good-a", "good-b")


@pytest.mark.extras
def test_a_decoder_that_crashes_or_hangs_twice_costs_its_video_alone(good, alone, tmp_path):
    deadly, endless = (numbered_clip(tmp_path / f"{name}.mp4", 900) for name in ("dead", "hang"))
    paths = {"good-a": good["good-a"], "deadly": deadly, "endless": endless, **good}
    with struck(deadly, 9, signal.SIGSEGV) as killed, struck(endless, 9, signal.SIGSTOP) as stopped:
        settings = config(tmp_path / "cache", time_limit=3, decoders=2)
        summary = extract(manifest_of(paths), settings)
    assert (len(killed), len(stopped)) == (2, 2)
    assert summary.failures == {"deadly": "crash", "endless": "timeout"}
    told = {each.video_id: each.message for each in summary.outcomes}
    assert repr(str(deadly)) in told["deadly"]
    assert "ended with signal 11, 2 times over; the other videos go on" in told["deadly"]
    assert repr(str(endless)) in told["endless"]
    assert "no frame came of it for 3 seconds, 2 times over" in told["endless"]
    mixed, clean = (Cache.open(each).load(list(GOOD)) for each in (tmp_path / "cache", alone))
    np.testing.assert_array_equal(mixed.values, clean.values)


def test_shards_whose_videos_all_failed_are_in_the_cache_too(good, tmp_path):
    """The last ones, which hold no rows for the writer to wait for."""
    one = dict([next(iter(good.items()))])
    paths = one | {f"gone-{number}": tmp_path / f"{number}.mp4" for number in range(8)}
    extract(manifest_of(paths), config(tmp_path / "cache", videos_per_shard=1))
    assert Cache.open(tmp_path / "cache").entries.keys() == paths.keys()
