"""Texts beside the frames: from manifests, tables and files into the same shards."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from extracting import files
from towers import tiny_text_model

from memfeat.cache import Cache, status_of, verify
from memfeat.cli import main
from memfeat.config import TEXT_PREFIXES, ExtractConfig, build
from memfeat.encoders import TEXT_ENCODERS, create_text_encoder
from memfeat.errors import CacheError, ConfigError, ManifestError, VideoError
from memfeat.extraction import extract
from memfeat.extraction.text_shards import windows
from memfeat.extraction.texts import Cue, Texts, parse_text, read_text
from memfeat.manifest import read_manifest

SENTENCE = "one two three four five six seven eight nine ten eleven twelve thirteen"
WORDS = SENTENCE.split()
MANIFEST = """video_id,path,score,split,caption,title,caption
v0,v0.mp4,0.5,train,a dog on a beach,Dog,a brown dog runs
v1,v1.mp4,0.6,train,two cats | a pair of cats,,
v2,v2.mp4,0.7,dev,,,
v3,v3.mp4,,test,,Coins,some coins
"""
SRT = """1
00:00:01,500 --> 00:00:03,000
<i>one two three</i>
four five

2
00:01:03,250 --> 00:01:05,000
six seven eight nine ten eleven
"""
VTT = """WEBVTT
Kind: captions

NOTE 00 is no time

00:01.500 --> 00:03.000 align:start
one<00:00:02.000><c> two</c> &amp;

00:03.000 --> 00:04.000
one two &amp;
three
"""


@pytest.fixture(scope="module", autouse=True)
def encoder_name(tmp_path_factory):
    with tiny_text_model(tmp_path_factory.mktemp("models")) as name:
        yield name


@pytest.fixture(scope="module")
def encoder(encoder_name):
    return create_text_encoder(encoder_name, "random")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text(MANIFEST)
    return tmp_path


def settings(**changes):
    values = {
        "manifest": "m.csv",
        "cache": "cache",
        "encoder": "text/ViT-tiny-text",
        "weights": "random",
        "batch_size": 4,
        "videos_per_shard": 1,
        "device": "cpu",
        "text": ("caption",),
    }
    return build(ExtractConfig, values | changes, "options")


def extracted(**changes):
    own = settings(**changes)
    summary = extract(read_manifest(own.manifest), own)
    return Cache.open(own.cache), summary


def vectors(encoder, *texts):
    return encoder.encode(texts).numpy().astype(np.float16)


# What is read


def test_a_caption_is_a_row_whether_its_column_repeats_or_its_cell_holds_several(here, encoder):
    cache, summary = extracted(text=("caption", "title"))
    expected = {
        "v0": ["a dog on a beach", "a brown dog runs", "Dog"],
        "v1": ["two cats", "a pair of cats"],
        "v3": ["some coins", "Coins"],
    }
    for video_id, texts in expected.items():
        rows, pts_seconds = cache[video_id]
        np.testing.assert_array_equal(rows, vectors(encoder, *texts))
        assert pts_seconds.tolist() == list(range(len(texts)))
    assert summary.failures == {"v2": "no_text"}
    (missing,) = [each for each in summary.outcomes if each.status == "failed"]
    assert missing.message == "it has no text in caption, title"
    assert cache.spec.sampling == "text: caption, title"
    record = json.dumps(
        {"video_id": "v0", "path": "v0.mp4", "score": 0.5, "split": "train", "caption": ["a", "b"]}
    )
    Path("m.jsonl").write_text(record)
    assert read_manifest(Path("m.jsonl")).records[0].caption == "a | b"


def test_a_long_text_is_cut_into_windows_that_begin_in_the_middle_of_the_one_before(encoder):
    found = windows((Cue(SENTENCE),), encoder)
    assert [cue.text for cue in found] == [" ".join(WORDS[:10]), " ".join(WORDS[5:])]
    assert [cue.text for cue in windows((Cue(" ".join(WORDS[:10])),), encoder)] == [
        " ".join(WORDS[:10])
    ]
    assert windows((Cue(" \n "),), encoder) == []
    rare = "antidisestablishmentarianism"  # of six tokens
    assert encoder.count_tokens(rare) == 6
    uneven = windows((Cue(f"{' '.join(WORDS[:7])} {rare} {rare} one"),), encoder)
    assert [cue.text for cue in uneven] == [
        " ".join(WORDS[:7]),
        f"{' '.join(WORDS[3:7])} {rare}",
        f"{rare} one",
    ]
    pieces = windows((Cue("x" * 95),), encoder)  # writing without spaces
    assert all(encoder.count_tokens(piece.text) <= 40 for piece in pieces)
    assert sum(piece.text.count("x") for piece in pieces) >= 95


def test_subtitles_give_their_times_and_end_where_seconds_do(encoder):
    part = parse_text(SRT)
    assert part == (
        Cue("one two three", 1.5),
        Cue("four five", 1.5),
        Cue("six seven eight nine ten eleven", 63.25),
    )
    first, second = windows(part, encoder)
    assert (first.seconds, first.text) == (1.5, " ".join(WORDS[:10]))
    assert (second.seconds, second.text) == (63.25, " ".join(WORDS[5:11]))
    (short,) = windows(part, encoder, max_seconds=60)
    assert short == Cue("one two three four five", 1.5)
    assert parse_text(VTT) == (Cue("one two &", 1.5), Cue("three", 3.0))


def test_a_folder_has_a_file_a_video_under_any_spelling_of_its_number(here, encoder):
    Path("m.csv").write_text(
        "video_id,path,score,split\n"
        + "".join(f"{name},{name}.mp4,,test\n" for name in ("7", "b", "c", "d", "e"))
    )
    folder = here / "texts/below"
    folder.mkdir(parents=True)
    (folder / "00007.srt").write_text(SRT)
    (folder / "00007.txt").write_text("not this")
    (folder / "b.txt").write_bytes("\ufeffzwei Münzen".encode())
    (folder / "c.txt").write_bytes("zwei Münzen".encode("utf-16"))
    (folder / "d.txt").write_bytes("Münzen".encode("latin-1"))
    cache, summary = extracted(text=("texts",))
    assert cache["7"].pts_seconds.tolist() == [1.5, 63.25]
    np.testing.assert_array_equal(cache["b"].vectors, vectors(encoder, "zwei Münzen"))
    np.testing.assert_array_equal(cache["c"].vectors, cache["b"].vectors)
    assert summary.failures == {"d": "not_utf8", "e": "no_text"}
    assert cache.spec.sampling == "text: texts/"
    short, _ = extracted(text=("texts/",), cache="short", max_seconds=60)
    assert short["7"].pts_seconds.tolist() == [1.5]
    assert short.spec.max_seconds == 60
    (folder / "big.txt").write_bytes(b"")
    os.truncate(folder / "big.txt", (1 << 22) + 1)
    with pytest.raises(VideoError, match="4194305 bytes") as caught:
        read_text(folder / "big.txt")
    assert caught.value.reason == "too_large"


def test_a_table_of_any_layout_is_read_by_the_ids_that_the_manifest_knows(here):
    rows = ["id,video_id,title,views", "xyz,v0.mp4,A dog,5", "abc,v1.mp4,Cats,7", "xyz,v0.mp4,Two,"]
    Path("t.csv").write_text("\n".join(rows))
    texts = Texts.open(["t.csv:title"], ["v0", "v1", "v2"])
    assert texts.label == "t.csv:title"
    assert texts.parts("v0") == [(Cue("A dog"),), (Cue("Two"),)]
    assert texts.parts("v2") == []
    by_other = Texts.open(["t.csv:title,views"], ["abc"])
    assert by_other.parts("abc") == [(Cue("Cats"),), (Cue("7"),)]
    Path("one.tsv").write_text("video\tcaption\tcaption\nv0\ta\tb\n")
    assert Texts.open(["one.tsv"], ["v0"]).parts("v0") == [(Cue("a"),), (Cue("b"),)]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("captoin", ConfigError, "--text captoin names no text: give a column .*caption, title"),
        ("t.csv", ConfigError, r"several columns besides the ids: title, views; .*t\.csv:title"),
        ("t.csv:name", ConfigError, r"no column 'name'; there are title, views"),
        ("none.csv", ManifestError, r"cannot read none\.csv"),
        ("other.csv:a", ConfigError, r"none of the 4 videos: it has 'w0' .*'v0' is the first"),
        ("empty.csv:a", ConfigError, "has the columns none; give one of ids"),
        ("empty", ConfigError, "it has nothing"),
    ],
)
def test_a_source_that_gives_no_text_says_what_would(here, source, error, message):
    Path("t.csv").write_text("id,title,views\nv0,A dog,5\n")
    Path("other.csv").write_text("id,a\nw0,A dog\n")
    Path("empty.csv").write_text("id,a\n")
    Path("empty").mkdir()
    with pytest.raises(error, match=message):
        extracted(text=(source,))


# The cache


def test_texts_and_frames_are_not_mistaken_for_each_other():
    with pytest.raises(ConfigError, match="encoder text/ViT-B-32 takes texts; say which, such as"):
        settings(encoder="text/ViT-B-32", text=())
    with pytest.raises(ConfigError, match="encoder ViT-B-32 takes frames; choose one of texts"):
        settings(encoder="ViT-B-32")
    assert {TEXT_ENCODERS.get(name).prefix for name in TEXT_ENCODERS} == set(TEXT_PREFIXES)


def test_a_cache_of_other_texts_is_not_continued(here):
    cache, _ = extracted(sampler="stride:2", device="cpu,cpu")  # as frames beside them may have
    with pytest.raises(CacheError, match="sampling is 'text: title', not 'text: caption'"):
        extracted(text=("title",))
    assert cache.spec.flags == (
        "--encoder text/ViT-tiny-text --weights random --batch-size 4 --text caption"
    )
    assert cache.spec.describe().endswith("(32-d, of text: caption)")


def test_a_text_that_comes_later_is_taken_when_asked_for(here, encoder):
    extracted()
    Path("m.csv").write_text(MANIFEST.replace("dev,,,", "dev,at last,,"))
    cache, summary = extracted()
    assert (summary.already_done, cache.entries["v2"].reason) == (4, "no_text")
    (task,) = status_of(Path("cache")).tasks()
    assert task.problem.startswith("1 failed (no_text)")
    assert "--text caption" in task.command
    assert task.command.endswith("--retry-failed=no_text")
    cache, summary = extracted(retry_failed="no_text")
    assert summary.failures == {}
    np.testing.assert_array_equal(cache["v2"].vectors, vectors(encoder, "at last"))


def extract_slowly(folder):
    os.chdir(folder)
    own = settings()
    extract(read_manifest(own.manifest), own, on_video=lambda _: time.sleep(0.05))


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(here):
    extracted(cache="whole")
    kills = 0
    for wanted in (0, 1, 3):
        process = multiprocessing.get_context("fork").Process(target=extract_slowly, args=[here])
        process.start()
        while len(list(Path("cache").glob("shard-*"))) < wanted and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills == 3
    extracted()
    assert verify(Path("cache")) == {}
    assert files(Path("cache")) == files(Path("whole"))


def test_the_command_says_what_has_no_text(here):
    arguments = ["extract", "--manifest", "m.csv", "--cache", "c", "--encoder"]
    arguments += ["text/ViT-tiny-text", "--weights", "random", "--text", "caption"]
    plan = CliRunner().invoke(main, [*arguments, "--dry-run", "--json"])
    found = json.loads(plan.stdout)
    assert (found["videos"], found["weights"], found["no_file"]) == (4, "random", [])
    result = CliRunner().invoke(main, [*arguments, "--text", "title"])
    assert result.exit_code == 0
    assert "1 video without a text: left out of training" in result.stderr
    assert "4 videos: 0 cached already, 3 ok, 0 partial, 1 failed; 7 texts in" in result.stderr
    assert "RANDOM WEIGHTS" in result.stderr
    found = json.loads(CliRunner().invoke(main, ["cache", "info", "c", "--json"]).stdout)
    assert found["reasons"] == {"no_text": 1}
    assert found["spec"]["encoder"] == "text/ViT-tiny-text"
    Path("texts").mkdir()
    Path("texts/v0.txt").write_bytes(b"\xff")
    again = [*arguments[:-1], "texts", "--cache", "other"]
    assert CliRunner().invoke(main, again).exit_code == 3
