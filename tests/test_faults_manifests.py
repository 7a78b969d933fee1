"""Manifests and labels that are wrong, as a user meets them at the command line.

Each bad cell of each column is in `test_manifest.py`, each bad layout in `test_tables.py`, and what
training makes of labels that do not fit in `test_training_data.py` and `test_training_seeds.py`.
"""

import json

import pytest
from commands import run
from made_up import encoded, spec

from memfeat.cache import write_shard

BAD = ["ok,ok.mp4,0.5,train", "a,a.mp4,2,dev", "\udcff,b.mp4,x,dev"]


def written(folder, rows):
    path = folder / "m.csv"
    text = "\n".join(["video_id,path,score,split", *rows, ""])
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_the_check_prints_each_problem_in_one_line_with_file_line_column_and_value(tmp_path):
    path = written(tmp_path, BAD)
    result = run("manifest", "check", path)
    assert result.exit_code == 1
    problems = result.stdout.splitlines()
    for problem, place in zip(
        problems, ("3, column score: '2'", "4, column video_id: '\\udcff'", "4, column score: 'x'"),
        strict=True,
    ):  # fmt: skip
        assert problem.startswith(f"{path}, line {place} ")
    as_json = json.loads(run("manifest", "check", path, "--json").stdout)
    assert as_json == {"manifest": str(path), "problems": problems}


@pytest.mark.parametrize("command", ["train", "extract"])
def test_a_command_that_needs_the_manifest_names_the_first_problem(tmp_path, command):
    path = written(tmp_path, BAD)
    result = run(command, "--manifest", path, "--cache", tmp_path / "cache")
    assert result.exit_code == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert error.startswith(f"Error: {path}, line 3, column score: '2' is not in [0, 1]")
    assert error.endswith("(2 more: `memfeat manifest check` lists them)")


def test_labels_that_allow_no_correlation_are_warned_of_and_features_without_any_noted(tmp_path):
    labels = {"t1": (0.1, "train"), "t2": (0.9, "train"), "d1": (0.2, "dev"), "d2": (0.4, "dev")}
    rows = [f"{name},{name}.mp4,{score},{split}" for name, (score, split) in labels.items()]
    path, cache = written(tmp_path, rows), tmp_path / "cache"
    write_shard(cache, spec(6), [encoded(name, 3, 6) for name in [*labels, "stranger"]])
    warning = "warning: dev: 2 videos with a score; a correlation needs 3"
    assert warning in run("manifest", "check", path).stderr
    model = ["--aggregator", "avg", "--head", "linear", "--max-epochs", "2", "--device", "cpu"]
    where = ["--manifest", path, "--cache", cache, "--run", tmp_path / "run"]
    result = run("train", *where, *model, "--json")
    assert result.exit_code == 0
    assert "1 video of" in result.stderr
    assert "'stranger'" in result.stderr
    figures = json.loads(result.stdout)["metrics"]["dev"]
    assert (figures["plcc"], figures["srocc"]) == (None, None)
    assert "a correlation needs at least 3" in figures["undefined"]
