"""`memfeat predict` for many videos, and `memfeat compare`, as a user meets them."""

import csv
import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from commands import ok, run, told
from pages import Page
from PIL import Image
from predicting import ENCODER, frames
from processes import memfeat, start
from safetensors.numpy import load_file, save_file

from memfeat import Cache, extract
from memfeat.cli import main
from memfeat.cli.predict import _pictures
from memfeat.errors import ConfigError, ExitCode
from memfeat.prediction import Input, find_videos
from memfeat.prediction.tables import ScoresTable
from memfeat.video import write_video


@pytest.fixture
def home(studied) -> Path:
    return studied


@pytest.fixture(scope="module")
def some(studied, tmp_path_factory) -> Path:
    """A folder with three clips, one of them below it, and what is no video."""
    folder = tmp_path_factory.mktemp("some")
    (folder / "below").mkdir()
    for name, own in (("a", "v0"), ("b", "v1"), ("below/c", "v2")):
        shutil.copy(studied / f"{own}.mp4", folder / f"{name}.mp4")
    (folder / "notes.md").write_text("none")
    return folder


@pytest.fixture(scope="module")
def few(studied) -> Path:
    """A manifest of every fourth clip."""
    header, *rows = (studied / "m.csv").read_text().splitlines()
    path = studied / "few.csv"
    path.write_text("\n".join([header, *rows[::4]]) + "\n")
    return path


def names(result):
    return [line.split("\t")[1] for line in result.stdout.splitlines()]


def rows_of(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refusal(*arguments):
    result = run(*arguments)
    assert result.exit_code in (1, 2), result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_folders_patterns_tables_and_lists_name_videos_each_once(home, some, tmp_path):
    a, b, c = (some / name for name in ("a.mp4", "b.mp4", "below/c.mp4"))
    (some / "list.txt").write_text(f"{b}\r\n\n{a}\n")
    (some / "t.csv").write_text("title,path,video_id\nC,below/c.mp4,third\nA,a.mp4,\n")
    paths = lambda *given: [str(each.path) for each in find_videos(map(str, given))]  # noqa: E731
    assert paths(some) == [str(a), str(b), str(c)]
    assert paths(some / "*.mp4") == [str(a), str(b)]
    assert paths(some / "**/*.mp4") == [str(a), str(b), str(c)]
    assert paths(some / "list.txt") == [str(b), str(a)]
    assert paths(some / "t.csv") == [str(c), str(a)]
    assert [each.video_id for each in find_videos([some / "t.csv"])] == ["third", "a"]
    assert paths(a, some, b, a) == [str(a), str(b), str(c)]
    assert paths("s3://bucket/x.mp4", a) == ["s3://bucket/x.mp4", str(a)]
    assert names(ok("predict", home / "avg", some / "list.txt", some)) == [str(b), str(a), str(c)]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(some, tmp_path):
    odd = tmp_path / "clip[1]*.mp4"
    shutil.copy(some / "a.mp4", odd)
    assert find_videos([odd]) == (Input(odd, "clip[1]*"),)
    missing = tmp_path / "no-such-*.mp4"
    assert find_videos([missing]) == (Input(missing, "no-such-*"),)  # fails as missing, alone


def test_a_list_comes_through_standard_input(home, some, monkeypatch, tmp_path):
    words = ["predict", str(home / "avg"), "-"]
    result = CliRunner().invoke(main, words, input=f"{some}/b.mp4\n{some}/a.mp4\n")
    assert result.exit_code == 0, result.output
    assert names(result) == [f"{some}/b.mp4", f"{some}/a.mp4"]


@pytest.mark.parametrize("content", [{"x.md": ""}, {"list.txt": "\n"}, {"t.csv": "path\n"}])
def test_what_names_no_video_is_refused(content, tmp_path):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    named = tmp_path if "x.md" in content else tmp_path / next(iter(content))
    with pytest.raises(ConfigError, match=rf"{named.name} names no video; .*\.mp4"):
        find_videos([named])


def test_images_are_scored_where_they_are_allowed_and_the_message_that_says_so_is_true(
    home, tmp_path
):
    Image.fromarray(frames(0, 1)[0]).save(tmp_path / "a.png")
    refused = run("predict", home / "avg", tmp_path / "a.png")
    assert refused.exit_code == 3
    assert "--allow-images takes it as a video of one frame" in refused.stderr
    drawn = tmp_path / "drawn"
    scored = ok(
        *("predict", home / "avg", tmp_path, "--allow-images", "--timeline", drawn, "--json")
    )
    (found,) = json.loads(scored.stdout)
    assert (found["num_frames"], found["effects"]) == (1, None)
    assert "one frame" in found["effects_undefined"]
    assert (drawn / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_each_row_says_the_score_how_far_to_trust_it_and_what_became_of_the_video(
    home, some, tmp_path, suffix
):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    output = tmp_path / "new" / f"scores{suffix}"
    result = run("predict", home / "run", some / "a.mp4", tmp_path / "bad.mp4", "-o", output)
    assert result.exit_code == 3
    assert result.stdout.split() == [str(output)]
    (found, _) = told("predict", home / "run", some / "a.mp4", tmp_path / "bad.mp4", code=3)
    if suffix == ".tsv":
        output = output.rename(output.with_suffix(".csv"))
        output.write_text(output.read_text().replace("\t", ","))
    good, bad = rows_of(output)
    assert (good["video"], good["video_id"], good["status"]) == (str(some / "a.mp4"), "a", "ok")
    low, high = found["interval"]
    expected = {name: found[name] for name in ("score", "score_std", "percentile", "familiarity")}
    for name, value in (expected | {"low": low, "high": high}).items():
        assert float(good[name]) == pytest.approx(value, abs=1e-6), name
    assert 0 <= low < found["score"] < high <= 1
    assert (bad["status"], bad["reason"], bad["score"] or None) == ("failed", "unreadable", None)
    assert good["model"] == bad["model"]


def test_a_prediction_says_in_words_how_far_to_trust_it(home, some):
    said = ok("predict", home / "run", some / "a.mp4").stderr
    assert "90 % interval 0." in said
    assert "% of the scores learned from; familiarity " in said


def wait_for_rows(path: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.is_file() and path.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} did not grow to {count} rows")


@pytest.mark.parametrize("many", [40, pytest.param(500, marks=pytest.mark.soak)])
def test_killed_three_times_and_repeated_it_gives_each_clip_once(home, tmp_path, many):
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(many):
        os.link(home / f"v{number % 28}.mp4", clips / f"{number:03}.mp4")
    output, effects = tmp_path / "scores.csv", tmp_path / "effects.csv"
    command = ["predict", home / "avg", clips, "-o", output, "--effects", effects]
    for rows in (1, many // 4, many // 2):
        process = start(memfeat, *command, "--device", "cpu", log=tmp_path / "log")
        wait_for_rows(output, rows)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    before = len(rows_of(output))
    assert before < many
    said = ok(*command, "--device", "cpu").stderr
    assert f"{before} videos scored already; of the others {many - before} ok" in said
    found = rows_of(output)
    assert [Path(row["video"]).stem for row in found] == [f"{n:03}" for n in range(many)]
    assert len({row["score"] for row in found}) == 28  # as many as there are different clips
    frames_of = Counter(row["video"] for row in rows_of(effects))
    assert [frames_of[row["video"]] for row in found] == [2 + n % 28 % 3 for n in range(many)]
    content = output.read_bytes()
    ok(*command)
    assert output.read_bytes() == content


def test_frames_of_a_video_whose_row_was_not_written_yet_are_written_once(home, some, tmp_path):
    output, effects = tmp_path / "scores.csv", tmp_path / "effects.csv"
    command = ["predict", home / "avg", some, "-o", output, "--effects", effects]
    ok(*command)
    whole = output.read_bytes(), effects.read_bytes()
    output.write_bytes(b"".join(whole[0].splitlines(keepends=True)[:-1]))
    ok(*command)
    assert (output.read_bytes(), effects.read_bytes()) == whole


def test_parquet_holds_what_the_other_tables_do_and_goes_on_likewise(home, some, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pip install 'memfeat[parquet]'")
    output, lines = tmp_path / "scores.parquet", tmp_path / "scores.jsonl"
    command = ["predict", home / "run", some]
    ok(*command, "-o", lines)
    assert ok(*command, "-o", output).stdout == f"{output}\n"
    table = parquet.read_table(output)
    assert table.to_pylist() == rows_of(lines)
    assert {str(table.schema.field(name).type) for name in ("score", "low")} == {"double"}
    assert [path.name for path in tmp_path.iterdir() if "parquet" in path.name] == [output.name]
    whole = output.read_bytes()
    assert "3 videos scored already" in ok(*command, "-o", output).stderr
    assert output.read_bytes() == whole
    output.unlink()
    (tmp_path / "scores.parquet.jsonl").write_text(lines.read_text().splitlines()[0] + "\n")
    assert "1 video scored already" in ok(*command, "-o", output).stderr  # as after a kill
    assert output.read_bytes() == whole
    assert told(*command, "-o", output, "--dry-run")["already_done"] == 3
    assert "holds the scores of another model" in refusal(
        "predict", home / "avg", some, "-o", output
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [lines.name, output.name]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_that_a_full_disk_cut_is_done_again(home, some, tmp_path, suffix):
    output = tmp_path / f"scores{suffix}"
    ok("predict", home / "avg", some, "-o", output)
    whole = output.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 30, 5, 0):
        output.write_bytes(whole[:cut])
        ok("predict", home / "avg", some, "-o", output)
        assert output.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("scores.csv", "a,b\n1,2\n", "does not begin with 'video,score,"),
        ("scores.jsonl", '{"a": 1}\n', "does not begin with"),
        ("scores.csv", "no newline", "does not begin with"),
        ("scores.xlsx", None, r"end its name in .csv, .tsv, .jsonl"),
        ("scores.parquet", "a,b\n1,2\n", "cannot be read as Parquet"),
    ],
)
def test_another_file_is_not_overwritten(home, some, tmp_path, name, content, why):
    output = tmp_path / name
    if content:
        output.write_text(content)
    assert why in refusal("predict", home / "avg", some, "-o", output)
    assert (output.read_text() if output.exists() else None) == content


def test_two_processes_do_not_write_the_same_file(home, some, tmp_path):
    output = tmp_path / "scores.csv"
    ok("predict", home / "avg", some / "a.mp4", "-o", output)
    (row,) = rows_of(output)
    before = output.read_bytes()
    with ScoresTable(output, row["model"]):
        assert "another process is writing" in refusal("predict", home / "avg", some, "-o", output)
    assert output.read_bytes() == before
    ok("predict", home / "avg", some, "-o", output)
    assert len(rows_of(output)) == 3


def test_scores_of_another_run_are_not_mixed_in(home, some, tmp_path):
    output = tmp_path / "scores.csv"
    ok("predict", home / "avg", some / "a.mp4", "-o", output)
    before = output.read_bytes()
    assert "holds the scores of another model" in refusal(
        "predict", home / "run", some, "-o", output
    )
    assert output.read_bytes() == before


def test_failed_videos_are_done_until_they_are_to_be_tried_again(home, some, tmp_path):
    late, output = tmp_path / "late.mp4", tmp_path / "scores.csv"
    command = ["predict", home / "avg", some / "a.mp4", late, some / "b.mp4", "-o", output]
    assert run(*command).exit_code == 3
    shutil.copy(some / "a.mp4", late)
    assert run(*command).exit_code == 3
    ok(*command, "--retry-failed")
    found = {Path(row["video"]).stem: row["score"] for row in rows_of(output)}
    assert list(found) == ["a", "b", "late"]
    assert found["late"] == found["a"]
    assert "give one" in refusal(*command[:-2], "--retry-failed")


def test_cached_features_give_the_scores_of_the_videos_to_the_last_digit(home, few, tmp_path):
    decoded, cached = tmp_path / "videos.jsonl", tmp_path / "cache.jsonl"
    ok("predict", home / "run", few, "-o", decoded)
    ok("predict", home / "run", "--cache", home / "cache", "-o", cached)
    one, other = (
        {row["video_id"]: row | {"video": ""} for row in rows_of(path)}
        for path in (decoded, cached)
    )
    assert (len(one), len(other)) == (7, 28)
    assert one.items() <= other.items()
    printed = ok("predict", home / "avg", "--cache", home / "cache").stdout.splitlines()
    scores = {line.split("\t")[1]: line.split("\t")[0] for line in printed}
    for line in ok("predict", home / "avg", few).stdout.splitlines():
        score, path = line.split("\t")
        assert scores[Path(path).stem] == score


def test_a_cache_is_scored_without_an_encoder_and_what_failed_there_is_named(
    home, tmp_path, monkeypatch
):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    (tmp_path / "m.csv").write_text(
        f"video_id,path,score,split\nx,{home}/v3.mp4,,test\nbad,bad.mp4,,test\n"
    )
    data = {"manifest": tmp_path / "m.csv", "cache": tmp_path / "cache"}
    extract(**data, **ENCODER)
    monkeypatch.setattr("memfeat.prediction.predictor.build_encoders", None)
    result = run("predict", home / "avg", "--cache", tmp_path / "cache")
    assert result.exit_code == 3
    assert names(result) == ["x"]
    assert "failed: 'bad' failed when it was extracted" in result.stderr
    other = tmp_path / "other"
    extract(**(data | {"cache": other}), **ENCODER, max_frames=2)
    assert "max_frames is 2, not None" in refusal("predict", home / "avg", "--cache", other)
    assert "name videos to score, or a cache" in refusal("predict", home / "avg")


def test_a_damaged_shard_is_not_scored(home, tmp_path):
    shutil.copytree(home / "cache", tmp_path / "cache")
    (shard,) = (tmp_path / "cache").glob("shard-*.h5")
    content = bytearray(shard.read_bytes())
    at = content.index(Cache.open(home / "cache")["v5"].vectors.tobytes())
    content[at + 100] ^= 1
    shard.write_bytes(content)
    assert "is damaged" in refusal("predict", home / "avg", "--cache", tmp_path / "cache")


def test_a_cache_is_read_a_shard_at_a_time(home, few, tmp_path, monkeypatch):
    extract(manifest=few, cache=tmp_path / "cache", videos_per_shard=3, **ENCODER)
    sizes = []
    load = Cache.load
    monkeypatch.setattr(Cache, "load", lambda self, ids: sizes.append(len(ids)) or load(self, ids))
    ok("predict", home / "avg", "--cache", tmp_path / "cache")
    assert sorted(sizes) == [1, 3, 3]


def test_several_runs_are_averaged_their_spread_is_told_and_the_least_familiar_counts(
    home, some, tmp_path
):
    alone = [told("predict", home / name, some / "a.mp4")[0] for name in ("run", "avg")]
    (both,) = told("predict", home / "run", some / "a.mp4", "--run", home / "avg")
    scores = [each["score"] for each in alone]
    assert both["score"] == pytest.approx(np.mean(scores))
    assert both["score_std"] == pytest.approx(np.std(scores, ddof=1))
    assert both["run_scores"] == {
        str(home / "run"): pytest.approx(scores[0]),
        str(home / "avg"): pytest.approx(scores[1]),
    }
    effects = [each["effects"] for each in alone]
    assert both["effects"] == pytest.approx(np.mean(effects, axis=0))
    assert both["weights"] is None
    shutil.copytree(home / "avg", tmp_path / "strict")
    path = tmp_path / "strict" / "familiar.safetensors"
    known = load_file(path)
    save_file(known | {"distances": known["distances"] * np.float32(1e-3)}, path)
    (strict,) = told("predict", home / "run", some / "a.mp4", "--run", tmp_path / "strict")
    assert (strict["familiarity"], next(iter(strict["cautions"]))) == (0, "unfamiliar")


def test_effects_are_written_with_a_line_a_frame_and_stand_in_the_json(home, some, tmp_path):
    effects = tmp_path / "effects.csv"
    found = json.loads(ok("predict", home / "run", some, "--effects", effects, "--json").stdout)
    written = rows_of(effects)
    assert [row["video"] for row in written] == [
        each["path"] for each in found for _ in each["pts_seconds"]
    ]
    for column, name in (("effect", "effects"), ("weight", "weights"), ("pts_seconds",) * 2):
        values = [value for each in found for value in each[name]]
        assert [float(row[column]) for row in written] == pytest.approx(values)
    assert "may be negative" in found[0]["about_weights"]
    assert "may be negative" in " ".join(ok("predict", "--help").stdout.split())


def test_pictures_paths_are_checked_before_the_work(home, some, tmp_path):
    (tmp_path / "taken").write_text("")
    (tmp_path / "folder.png").mkdir()
    a, b = some / "a.mp4", some / "b.mp4"
    for videos, path, why in [
        ([a], "x.bmp", "end its name in one of .png, .svg, .pdf"),
        ([a, b], "two.png", "names one picture, and there are 2 videos"),
        ([a], "folder.png", "it is a folder"),
        ([a], "taken", "is a file; name a folder"),
    ]:
        result = run("predict", home / "avg", *videos, "--timeline", tmp_path / path)
        assert result.exit_code == 2
        assert why in result.stderr
        assert result.stdout == ""
    assert "scoring on" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "taken"]


def test_no_two_videos_share_a_picture(tmp_path):
    paths = [Path(name) for name in ("a/x.mp4", "b/x.mp4", "x-2.mp4", "x.mkv", "y.mp4")]
    pictures = _pictures([Input.of(path) for path in paths], tmp_path / "drawn")
    assert [path.name for path in pictures.values()] == [
        *("x.png", "x-2.png", "x-2-2.png", "x-3.png", "y.png")
    ]


def test_a_truncated_video_says_partial_in_its_row_its_picture_and_on_stderr(home, tmp_path):
    noise = np.random.default_rng(9).integers(0, 256, (30, 6, 8, 3), dtype=np.uint8)
    write_video(tmp_path / "whole.mp4", noise.repeat(8, axis=1).repeat(8, axis=2), fps=10)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "part.mp4").write_bytes(content[: len(content) * 6 // 10])
    output, picture = tmp_path / "s.csv", tmp_path / "p.svg"
    result = ok(
        *("predict", home / "avg", tmp_path / "part.mp4", "-o", output, "--timeline", picture)
    )
    (row,) = rows_of(output)
    assert row["status"] == "partial"
    assert row["reason"] in ("truncated", "packet_errors")
    assert "partial: " in result.stderr
    assert "part.mp4 (partial): predicted score" in picture.read_text()
    assert f"{row['reason']}; scored on" in picture.read_text()


def test_a_long_video_on_a_run_of_short_ones_is_named_beside_its_score(home, tmp_path):
    write_video(tmp_path / "long.mp4", frames(0, 12), fps=10)
    result = ok("predict", home / "avg", tmp_path / "long.mp4")
    assert result.stderr.count("length: it lasts 1.2 s, and the training videos 0.2 to 0.4 s") == 1
    (found,) = told("predict", home / "avg", tmp_path / "long.mp4")
    assert "length" in found["cautions"]
    shutil.copy(tmp_path / "long.mp4", tmp_path / "other.mp4")
    said = ok("predict", home / "avg", tmp_path, "-o", tmp_path / "scores.csv").stderr
    assert "length: 2 videos; see the column `cautions`" in said
    assert {row["cautions"] for row in rows_of(tmp_path / "scores.csv")} == {"length"}


def test_a_run_of_an_early_version_says_that_familiarity_is_not_known(home, some, tmp_path):
    shutil.copytree(home / "avg", tmp_path / "old")
    (tmp_path / "old" / "familiar.safetensors").unlink()
    result = ok("predict", tmp_path / "old", some / "a.mp4", "--json")
    (found,) = json.loads(result.stdout)
    assert (found["familiarity"], found["cautions"]) == (None, {})
    assert found["interval"] is not None
    assert result.stderr.count("was trained by an early version") == 1


def test_a_run_handed_on_without_its_predictions_scores_without_intervals(home, some, tmp_path):
    shutil.copytree(home / "avg", tmp_path / "run")
    (tmp_path / "run" / "predictions.csv").unlink()
    result = ok("predict", tmp_path / "run", some / "a.mp4", "--json")
    (found,) = json.loads(result.stdout)
    (whole,) = told("predict", home / "avg", some / "a.mp4")
    assert found["score"] == whole["score"]
    assert found["familiarity"] == whole["familiarity"]
    assert (found["interval"], found["percentile"]) == (None, None)
    assert "no intervals: 0 scored dev videos" in result.stderr


# Comparing


def test_a_comparison_ranks_videos_and_tells_how_sure_it_is(home, some, tmp_path):
    found = told("compare", home / "run", some / "a.mp4", some / "b.mp4", some / "below/c.mp4")
    singly = {each["path"]: each["score"] for each in told("predict", home / "run", some)}
    ranking = [(each["path"], each["score"]) for each in found["ranking"]]
    assert ranking == sorted(singly.items(), key=lambda pair: -pair[1])
    best = ranking[0][1]
    with (home / "run" / "predictions.csv").open() as file:
        dev = [row for row in csv.DictReader(file) if row["split"] == "dev"]
    errors = np.array([float(row["score"]) - float(row["prediction"]) for row in dev])
    pairs = np.abs(errors - np.array([np.roll(errors, shift) for shift in range(1, 11)]))
    margin = np.sort(pairs.ravel())[-1]  # of ten pairs the tenth: the largest of all
    for (path, score), difference in zip(ranking[1:], found["differences"], strict=True):
        assert difference["video"] == path
        assert difference["difference"] == pytest.approx(best - score)
        low, high = best - score - margin, best - score + margin
        assert difference["interval"] == pytest.approx([low, high])
        assert difference["clear"] == (low > 0)


def test_a_comparison_names_the_frames_that_make_it_and_draws_them(home, some, tmp_path):
    picture = tmp_path / "both.svg"
    videos = [some / "a.mp4", some / "b.mp4"]
    result = ok("compare", home / "run", *videos, "--picture", picture)
    assert len(result.stdout.splitlines()) == 2
    assert "cannot be told apart" in result.stderr or "is more memorable than" in result.stderr
    (a, _) = told("predict", home / "run", *videos)
    strongest = int(np.argmax(np.abs(a["effects"])))
    word = "raised" if a["effects"][strongest] > 0 else "lowered"
    moment = f"{a['pts_seconds'][strongest]:.2f} s ({a['effects'][strongest]:+.4f})"
    assert f"a.mp4: {word} most by the frames at {moment}" in result.stderr
    drawn = picture.read_text()
    assert "a.mp4: predicted score" in drawn
    assert "b.mp4: predicted score" in drawn
    assert drawn.count("<image") == 2 + 3


def test_a_comparison_is_a_page_that_loads_nothing_and_runs_nothing(home, some, tmp_path):
    evil = tmp_path / "<script>alert(1)</script> & more.mp4".replace("/", "")
    shutil.copy(some / "b.mp4", evil)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    html = tmp_path / "new" / "both.html"
    result = run("compare", home / "run", some / "a.mp4", evil, bad, "--html", html, "--json")
    assert result.exit_code == ExitCode.SOME_VIDEOS_FAILED
    found, page = json.loads(result.stdout), Page(html)
    rows = page.table("Video")[1:]
    assert [row[0]["text"] for row in rows] == [each["path"] for each in found["ranking"]]
    for row, each in zip(rows, found["ranking"], strict=True):
        shown = [float(value) for value, _ in row[1]["data"]]
        assert shown == pytest.approx([each["score"], *each["interval"]])
        assert float(row[2]["data"][0][0]) == pytest.approx(each["percentile"])
    assert "cannot be told apart" in page.words or "is more memorable than" in page.words
    assert "most by the frames at" in page.words
    assert "bad.mp4" in page.words.partition("Without a score")[2]
    assert len(page.of("svg")) == 2
    pictures = page.of("img")
    assert len(pictures) == 2 + 3
    assert all(each["src"].startswith("data:image/jpeg;") and each["alt"] for each in pictures)
    assert page.scripts == []
    (policy,) = (each["content"] for each in page.of("meta") if "http-equiv" in each)
    only = "img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert policy == f"default-src 'none'; {only}"


def test_a_comparison_says_which_scores_are_in_doubt(home, some, tmp_path):
    noise = np.random.default_rng(9).integers(0, 256, (30, 6, 8, 3), dtype=np.uint8)
    write_video(tmp_path / "whole.mp4", noise.repeat(8, axis=1).repeat(8, axis=2), fps=10)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "part.mp4").write_bytes(content[: len(content) * 6 // 10])
    picture = tmp_path / "both.svg"
    videos = [some / "a.mp4", tmp_path / "part.mp4"]
    result = ok("compare", home / "avg", *videos, "--picture", picture)
    for said in (result.stderr, picture.read_text()):
        assert "part.mp4: truncated; scored on" in " ".join(said.split())
        assert "length: " in said
    assert f"length: {tmp_path / 'part.mp4'}: it lasts" in result.stderr
    assert "partial: " not in ok("compare", home / "avg", some).stderr
    long = [tmp_path / "whole.mp4", tmp_path / "same.mp4"]
    shutil.copy(*long)
    assert result.stderr.count("length: ") == 1
    assert "length: all of them: it lasts" in ok("compare", home / "avg", *long).stderr


def test_a_comparison_needs_two_videos_and_goes_on_without_the_broken_ones(home, some, tmp_path):
    assert "name two videos or more" in refusal("compare", home / "avg", some / "a.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    result = run("compare", home / "avg", some / "a.mp4", bad, some / "b.mp4")
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 2
    assert "bad.mp4' is not a video" in result.stderr
    assert "end its name in one of" in refusal(
        "compare", home / "avg", some, "--picture", tmp_path / "x.bmp"
    )
