"""Looking through a cache's folder, and putting right what is wrong in it."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from commands import run, told
from test_cache import failed, spec, video

from memfeat.cache import Cache, repair, same_sources, status_of, verify, write_shard
from memfeat.cli.extract import extract_command
from memfeat.config import ExtractConfig
from memfeat.errors import ConfigError
from memfeat.extraction.extracting import _done
from memfeat.storage import Url, list_files, upload

SHA = "ab" * 32


@pytest.fixture
def folder(tmp_path):
    cache = tmp_path / "cache"
    first, twin = (replace(video(name, 3), source_sha256=SHA) for name in ("a", "twin"))
    write_shard(cache, spec(), [first, failed("b"), failed("late")])
    write_shard(cache, spec(), [twin, video("cut", 2, status="partial", reason="truncated")])
    (tmp_path / "m.csv").write_text(
        "video_id,path,score,split\na,a.mp4,.5,train\ntwin,t.mp4,.5,test\nnew,n.mp4,.5,test\n"
    )
    return cache


def break_one(folder, name: str = "a") -> None:
    """Flip one bit of a video's embeddings."""
    entry = Cache.open(folder).entries[name]
    content = bytearray(entry.shard.read_bytes())
    row = video(name, 3).embeddings[0].tobytes()
    content[content.index(row)] ^= 1
    entry.shard.write_bytes(content)


def test_status_counts_by_reason_and_names_the_commands(folder):
    manifest = folder.parent / "m.csv"
    result = run("status", folder, "--manifest", manifest)
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert lines[0] == f"{folder}: 2 ok, 1 partial, 2 failed"
    flags = "--encoder toy --weights random --batch-size 4"
    again = f"memfeat extract --manifest {manifest} {flags} --cache {folder}"
    when = "when their files are mended"
    assert f"  2 failed (missing), {when}: {again} --retry-failed=missing" in lines
    out = "which training leaves out"
    assert f"  1 partial (truncated), {out}, {when}: {again} --retry-failed=truncated" in lines
    assert f"  1 video of the manifest not done yet: {again}" in lines
    assert "  warning: 'a', 'twin' are the same file, in different splits: a leak" in lines
    assert "memfeat extract --manifest MANIFEST --encoder toy" in run("status", folder).stdout


def test_status_as_json(folder):
    found = told("status", folder, code=3)
    assert found["videos"] == {"ok": 2, "partial": 1, "failed": 2}
    assert found["reasons"] == {"failed": {"missing": 2}, "partial": {"truncated": 1}}
    assert found["same_content"] == [["a", "twin"]]
    assert found["damaged"] == {}


def test_status_of_a_cache_without_trouble_is_one_line(tmp_path):
    write_shard(tmp_path, spec(), [video("a"), video("b")])
    result = run("status", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}: 2 ok, 0 partial, 0 failed\n")


def test_status_tells_of_damage_leavings_and_what_was_set_aside(folder):
    (folder / ".shard-x.h5.1.part").touch()
    (folder / "shard-y.h5.damaged").touch()
    path = Cache.open(folder).entries["a"].shard
    path.write_bytes(path.read_bytes()[:300])
    result = run("status", folder)
    assert result.exit_code == 1
    for words in (f"memfeat cache repair {folder}", "1 unfinished file", "1 shard set aside"):
        assert words in result.stdout
    assert status_of(folder).damaged.keys() == {path}
    for shard in folder.glob("shard-*.h5"):
        shard.write_bytes(b"")
    assert run("status", folder).exit_code == 1


def test_status_tells_of_shards_of_another_making_and_counts_the_others(folder):
    other = write_shard(folder.parent / "other", spec(encoder="other"), [video("z")])
    moved = other.replace(folder / "shard-zz.h5")
    result = run("status", folder, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert found["videos"] == {"ok": 2, "partial": 1, "failed": 2}
    assert list(found["other"]) == [str(moved)]
    assert "encoder is 'other', not 'toy'" in found["other"][str(moved)]
    assert f"mv {moved} " in found["tasks"][0]["command"]


def test_status_of_what_is_left_when_every_shard_was_set_aside(folder):
    for path in list(folder.glob("shard-*.h5")):
        path.write_bytes(b"")
    assert run("cache", "repair", folder).exit_code == 0
    result = run("status", folder)
    assert result.exit_code == 0
    extract = f"memfeat extract --manifest MANIFEST --encoder ENCODER --cache {folder}"
    again = f"{extract} && rm {folder}/shard-*.damaged"
    assert f"2 shards set aside earlier, to be made again and deleted: {again}" in result.stdout


def test_a_leak_across_splits_is_told_only_where_the_manifest_shows_one(folder):
    manifest = folder.parent / "m.csv"
    found = told("status", folder, "--manifest", manifest, code=3)
    assert found["leaks"] == [["a", "twin"]]
    manifest.write_text(manifest.read_text().replace("test", "train"))
    found = told("status", folder, "--manifest", manifest, code=3)
    assert (found["leaks"], found["same_content"]) == ([], [["a", "twin"]])


def test_failed_videos_and_features_made_elsewhere_are_no_twins(tmp_path):
    twins = [replace(video(name), source_sha256=SHA) for name in "ab"]
    given = write_shard(tmp_path / "given", spec(weights="imported"), twins).parent
    broken = [replace(failed(name), source_sha256=SHA) for name in "ab"]
    failing = write_shard(tmp_path / "failing", spec(), broken).parent
    assert same_sources(Cache.open(given)) == same_sources(Cache.open(failing)) == []


def test_repair_sets_bad_shards_aside_and_leaves_good_ones(folder):
    (folder / ".shard-x.h5.1.part").touch()
    good = Cache.open(folder).entries["twin"].shard
    content = good.read_bytes()
    break_one(folder)
    assert len(verify(folder)) == 1
    result = run("cache", "repair", folder)
    assert result.exit_code == 0
    assert "checksum" in result.stdout
    assert "1 bad shard set aside, 1 unfinished file removed" in result.stderr
    assert verify(folder) == {}
    assert good.read_bytes() == content
    assert [path.suffix for path in folder.iterdir() if path != good] == [".damaged"]


def test_repair_leaves_alone_what_was_made_differently(folder):
    other = write_shard(folder.parent / "other", spec(encoder="other"), [video("z")])
    other.replace(folder / "shard-zz.h5")
    done = repair(folder)
    assert (done.set_aside, list(done.left_alone)) == ({}, [folder / "shard-zz.h5"])
    assert run("cache", "repair", folder).exit_code == 1


def superseding(folder) -> None:
    """Add a later attempt of `cut`, and another one that failed of `b`, which does not count."""
    write_shard(folder, spec(), [video("cut", 4, status="partial", reason="truncated", attempt=1)])
    write_shard(folder, spec(), [failed("b"), video("new", 2)])


def test_repair_drops_entries_that_do_not_count_here_and_in_remote_storage(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    superseding(folder)
    url = Url("memory://superseded/cache")
    for path in folder.glob("shard-*.h5"):
        upload(path, url / path.name)
    before = content(folder)
    for where in (folder, url):
        assert repair(where).superseded == 2
        assert content(where) == before
        assert repair(where).superseded == 0
        assert verify(where) == {}
    assert sorted(list_files(url)) == sorted(path.name for path in folder.iterdir())
    remaining = [each for path in folder.iterdir() for each in read_ids(path)]
    assert sorted(remaining) == ["a", "b", "cut", "late", "new", "twin"]


def content(where) -> tuple:
    cache = Cache.open(where)
    entries = [(e.video_id, e.status, e.reason, e.attempt) for e in cache.entries.values()]
    table = cache.load(sorted(cache.usable(partial=True)))
    return sorted(entries), table.values.tobytes(), table.pts_seconds.tobytes()


def read_ids(path) -> list[str]:
    with h5py.File(path) as shard:
        return shard["video_ids"].asstr()[:].tolist()


def test_a_reason_without_videos_is_refused_with_those_there_are(folder):
    config = ExtractConfig(manifest="m.csv", cache=folder, retry_failed="nope")
    with pytest.raises(ConfigError, match="for 'nope'; there are: missing"):
        _done(Cache.open(config.cache), config, spec())
    retried = ExtractConfig(manifest="m.csv", cache=folder, retry_failed="truncated")
    assert set(_done(Cache.open(folder), retried, spec())) == {"a", "b", "late", "twin"}
    every = ExtractConfig(manifest="m.csv", cache=folder, retry_failed=True)
    assert set(_done(Cache.open(folder), every, spec())) == {"a", "twin", "cut"}


def test_a_retry_that_found_nothing_left_to_do_may_run_again(tmp_path):
    write_shard(tmp_path, spec(), [video("a")])
    config = ExtractConfig(manifest="m.csv", cache=tmp_path, retry_failed="missing")
    assert _done(Cache.open(config.cache), config, spec()) == {"a": ""}


def test_a_retry_takes_up_what_failed_in_a_shard_that_is_superseded(folder):
    write_shard(folder, spec(), [video("b"), video("late")])
    config = ExtractConfig(manifest="m.csv", cache=folder, retry_failed="missing")
    assert set(_done(Cache.open(config.cache), config, spec())) == {"a", "b", "cut", "late", "twin"}


@pytest.mark.parametrize(
    ("flag", "value", "reasons"),
    [
        ("--retry-failed", "all", ("all",)),
        ("--retry-failed=missing,timeout", "missing,timeout", ("missing", "timeout")),
        ("--retry-failed=none", "none", ()),
    ],
)
def test_the_flag_takes_reasons_after_an_equals_sign_and_never_the_next_argument(
    flag, value, reasons
):
    found = extract_command.make_context("extract", [flag, "p.toml"]).params
    assert (found["retry_failed"], found["pipeline"]) == (value, Path("p.toml"))
    assert ExtractConfig(manifest="m", cache="c", retry_failed=value).retry_failed == reasons


def test_what_is_no_reason_is_a_usage_error(tmp_path):
    result = run("extract", "--manifest", "m.csv", "--cache", tmp_path, "--retry-failed=a b")
    assert result.exit_code == 2
    assert "retry_failed = 'a b' is not allowed: write reasons with commas" in result.stderr
