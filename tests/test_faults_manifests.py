"""Ids, manifests and labels that are wrong, as a user meets them at the command line.

Each ends with one line that names file, row, column, value and what is allowed, without a
traceback. Only faults that no other test takes to a command are here; the others are in:

- every bad cell of every column, in CSV and JSON Lines, as the manifest reports it:
  `test_manifest.py`; delimiters, quoting, byte order marks, UTF-16, columns: `test_tables.py`;
- the same content under two ids: `test_faults_videos.py`;
- splits without scores, withheld scores, labels without features and the reverse:
  `test_training_seeds.py`, `test_training_data.py`; constant labels: `test_training_fitting.py`;
- correlations that are not defined, and fewer than three videos: `test_metrics.py`;
- markup in titles, ids and captions of a report: `test_report.py`.
"""

import json
import unicodedata
from pathlib import Path

import made_up
import numpy as np
import pytest
from click.testing import CliRunner, Result

from memfeat.cache import EncodedVideo, write_shard
from memfeat.cli import main

HEADER = "video_id,path,score,split"
SCORE = "a score is a number in [0, 1], or empty if withheld"
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result


def checked(path: Path) -> list[str]:
    """The problems that `memfeat manifest check` prints, with exit code 1."""
    result = run("manifest", "check", path)
    assert result.exit_code == 1
    return result.stdout.splitlines()


def written(folder: Path, *rows: str, header: str = HEADER, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes("\n".join([header, *rows, ""]).encode("utf-8", "surrogateescape"))
    return path


BAD_ROWS = [
    (",a.mp4,0.5,dev", "video_id", "'' is empty"),
    ("..,a.mp4,0.5,dev", "video_id", "'..' is not a plain name"),
    ("a/b,a.mp4,0.5,dev", "video_id", "'a/b' is not a plain name: ids hold no slashes"),
    ("a\0b,a.mp4,0.5,dev", "video_id", r"'a\x00b' holds a control character"),
    ("a\udcff,a.mp4,0.5,dev", "video_id", r"'a\udcff' holds a control character"),
    (f"{'x' * 70_000},a.mp4,0.5,dev", "video_id", "ids have at most 200"),
    ("ok,b.mp4,0.5,dev", "video_id", "'ok' repeats line 2; ids are unique"),
    ("OK,b.mp4,0.5,dev", "video_id", "'OK' differs from 'ok' on line 2 only in case"),
    (f"{NFD},c.mp4,0.5,train", "video_id", r"'cafe\u0301' differs from 'caf\xe9' on line 3"),
    ("a,a.mp4,nan,dev", "score", f"'nan' is not in [0, 1]; {SCORE}"),
    ("a,a.mp4,1e5,dev", "score", f"'1e5' is not in [0, 1]; {SCORE}"),
    ("a,a.mp4,62,dev", "score", "looks like a 0-100 scale: divide by 100"),
    ("a,a.mp4,high,dev", "score", f"'high' is not a number; {SCORE}"),
    ('a,a.mp4,"0,5",dev', "score", "write a decimal point, not a comma"),
    ("a,a.mp4,0.5,val", "split", "'val' is not a split; write one of: train, dev, test"),
    ("b,ok.mp4,0.5,test", "path", "is in split test, and on line 2 in train"),
]


def test_every_bad_cell_is_named_with_file_line_column_value_and_rule(tmp_path: Path) -> None:
    good = ["ok,ok.mp4,0.5,train", f"{NFC},c.mp4,0.5,train"]
    path = written(tmp_path, *good, *(row for row, _, _ in BAD_ROWS))
    problems = checked(path)
    assert len(problems) == len(BAD_ROWS)
    for line, (problem, (_, column, message)) in enumerate(zip(problems, BAD_ROWS, strict=True), 4):
        assert problem.startswith(f"{path}, line {line}, column {column}: ")
        assert message in problem


@pytest.mark.parametrize("command", ["train", "extract"])
def test_a_command_that_needs_the_manifest_names_the_first_problem(
    tmp_path: Path, command: str
) -> None:
    path = written(tmp_path, "ok,ok.mp4,0.5,train", "a,a.mp4,2,dev", "a,b.mp4,x,dev")
    error = refused(run(command, "--manifest", path, "--cache", tmp_path / "cache"))
    assert error.startswith(f"Error: {path}, line 3, column score: '2' is not in [0, 1]")
    assert error.endswith("(1 more: `memfeat manifest check` lists them)")


BAD_FILES = {
    "semicolons": ("video_id;path;score;split\na;a.mp4;0,5;dev\n", "line 1: the header"),
    "tabs": ("video_id\tpath\tscore\tsplit\n", r"is separated by '\t'; write ','"),
    "open quotes": (f'{HEADER}\n"a,a.mp4,0.5,dev\n', "line 2: wrong quoting"),
    "a missing column": ("video_id,path,split\na,a.mp4,dev\n", "line 1: missing column 'score'"),
    "an unknown column": (f"{HEADER},mood\na,a.mp4,0.5,dev,x\n", "line 1: unknown column 'mood'"),
    "a row too wide": (f"{HEADER}\na,a.mp4,0,5,dev\n", "line 2: 5 fields"),
    "no rows": (f"{HEADER}\n", "holds no videos; write a header and a line for each"),
    "nothing": ("", "holds no videos"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_file_laid_out_badly_is_named_with_the_line(tmp_path: Path, fault: str) -> None:
    content, message = BAD_FILES[fault]
    path = tmp_path / "m.csv"
    path.write_text(content)
    (problem,) = checked(path)
    assert problem.startswith(str(path))
    assert message in problem


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path, "a,a.mp4,0.5,dev", header=f"\ufeff{HEADER}")
    assert run("manifest", "check", path).exit_code == 0


def test_a_file_in_utf_16_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(f"{HEADER}\na,a.mp4,0.5,dev\n".encode("utf-16"))
    assert checked(path) == [f"{path}, line 1: the file is UTF-16; save it as UTF-8"]


def test_a_key_that_stands_twice_in_json_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"video_id": "a", "path": "a", "split": "dev", "score": 1, "score": 0}\n')
    (problem,) = checked(path)
    assert "line 1" in problem
    assert "'score' stands there twice" in problem


# Labels and features that do not fit.


def cache_of(folder: Path, *names: str) -> Path:
    generator = np.random.default_rng(0)
    videos = [
        EncodedVideo(name, generator.normal(size=(3, 6)).astype(np.float16), np.arange(3) / 25)
        for name in names
    ]
    write_shard(folder / "cache", made_up.spec(6), videos)
    return folder / "cache"


def trained(folder: Path, rows: list[str], names: list[str]) -> Result:
    path, cache = written(folder, *rows), cache_of(folder, *names)
    model = ["--aggregator", "avg", "--head", "linear", "--max-epochs", "2", "--device", "cpu"]
    arguments = ["--manifest", path, "--cache", cache, "--run", folder / "run", *model]
    return run("train", *arguments, "--bootstrap", "20", "--json")


def rows(scores: list[float | str], split: str) -> list[str]:
    return [f"{split}{i},{split}{i}.mp4,{score},{split}" for i, score in enumerate(scores)]


def names_of(lines: list[str]) -> list[str]:
    return [line.partition(",")[0] for line in lines]


def refused(result: Result) -> str:
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_labels_without_features_are_named_with_the_command_that_makes_them(
    tmp_path: Path,
) -> None:
    lines = rows([0.1, 0.5, 0.9], "train") + rows([0.2, 0.4], "dev")
    error = refused(trained(tmp_path, lines, names_of(lines)[:-1]))
    assert "1 of the 5 videos of" in error
    assert "'dev1'" in error
    assert "memfeat extract --manifest" in error


def test_features_without_labels_are_noted_and_go_unused(tmp_path: Path) -> None:
    lines = rows([0.1, 0.5, 0.9], "train") + rows([0.2, 0.4, 0.5], "dev")
    result = trained(tmp_path, lines, [*names_of(lines), "stranger"])
    assert result.exit_code == 0
    assert "1 videos of" in result.stderr
    assert "'stranger'" in result.stderr


@pytest.mark.parametrize("split", ["train", "dev"])
def test_an_empty_split_is_told_before_training(tmp_path: Path, split: str) -> None:
    other = {"train": "dev", "dev": "train"}[split]
    lines = rows([0.1, 0.5, 0.9], other)
    error = refused(trained(tmp_path, lines, names_of(lines)))
    assert f"the {split} split has no video" in error
    assert not (tmp_path / "run").exists()
    assert f"warning: {split}: no videos" in run("manifest", "check", tmp_path / "m.csv").stderr


@pytest.mark.parametrize(
    ("scores", "words", "warning"),
    [
        ([0.5, 0.5, 0.5], "constant", "dev: every score is 0.5; correlations are undefined"),
        (
            [0.2, 0.4],
            "a correlation needs at least 3",
            "dev: 2 videos with a score; a correlation needs 3",
        ),
    ],
)
def test_scores_without_a_correlation_are_told_with_the_reason(
    tmp_path: Path, scores: list[float | str], words: str, warning: str
) -> None:
    lines = rows([0.1, 0.5, 0.9, 0.7], "train") + rows(scores, "dev")
    result = trained(tmp_path, lines, names_of(lines))
    assert result.exit_code == 0
    figures = json.loads(result.stdout)["metrics"]["dev"]
    assert (figures["plcc"], figures["srocc"]) == (None, None)
    assert words in figures["undefined"]
    assert f"warning: {warning}" in run("manifest", "check", tmp_path / "m.csv").stderr


def test_formulas_and_markup_are_text_in_a_report(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    header = f"{HEADER},dataset,caption"
    lines = rows([0.1, 0.5, 0.9, 0.7], "train") + rows([0.2, 0.4, 0.6], "dev")
    path = written(tmp_path, *(f'{line},{evil},"=cmd|calc"' for line in lines[:-1]), header=header)
    cache = cache_of(tmp_path, *names_of(lines[:-1]))
    model = ["--aggregator", "avg", "--head", "linear", "--max-epochs", "1", "--device", "cpu"]
    folder = tmp_path / "run"
    done = run("train", "--manifest", path, "--cache", cache, "--run", folder, *model)
    assert done.exit_code == 0
    assert run("report", folder).exit_code == 0
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "=cmd|calc" in page
