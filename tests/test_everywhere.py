"""What all commands have: a variable of the environment for each option, `-q` and `-v`."""

import logging
from collections.abc import Iterator
from itertools import chain

import click
import pytest
from click.testing import CliRunner
from commands import ok, run, told

from memfeat.cli import main

PLAN = ["plan", "--encoder", "efficientnet-lite0", "--seconds", "2"]


@pytest.fixture
def usual_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    root.level, root.handlers = before[0], before[1]


def leaves(command: click.Command, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield names, command
        return
    for name in command.list_commands(click.Context(command)):
        part = command.get_command(click.Context(command), name)
        yield from leaves(part, *names, name)


def test_each_option_of_each_command_has_two_variables_that_no_other_has():
    count = 0
    for names, command in leaves(main):
        options = [each for each in command.params if isinstance(each, click.Option)]
        found = list(chain.from_iterable(each.envvar for each in options))
        assert len(set(found)) == len(found) == 2 * len(options), names
        assert {"-q", "-v"} <= {flag for each in options for flag in each.opts}
        count += len(options)
    assert count > 200
    train = main.get_command(click.Context(main), "train")
    (rate,) = [each for each in train.params if each.name == "learning_rate"]
    assert rate.envvar == ["MEMFEAT_TRAIN_LEARNING_RATE", "MEMFEAT_LEARNING_RATE"]


def test_a_flag_wins_over_the_commands_variable_and_that_over_the_one_of_all(monkeypatch):
    monkeypatch.setenv("MEMFEAT_VIDEOS", "10")
    assert told(*PLAN)["videos"] == 10
    monkeypatch.setenv("MEMFEAT_PLAN_VIDEOS", "20")
    assert told(*PLAN)["videos"] == 20
    assert told(*PLAN, "--videos", "30")["videos"] == 30


def test_a_variable_wins_over_a_pipeline_file(tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text("video_id,path,score,split\na,a.mp4,,test\nb,b.mp4,,test\n")
    (tmp_path / "p.toml").write_text(
        f"[extract]\nmanifest = '{tmp_path}/m.csv'\ncache = '{tmp_path}/c'\nweights = 'random'\n"
        "encoder = 'efficientnet-lite0'\nlimit = 2\n"
    )
    command = ["extract", tmp_path / "p.toml", "--dry-run"]
    assert told(*command)["pending"] == ["a", "b"]
    monkeypatch.setenv("MEMFEAT_EXTRACT_LIMIT", "1")
    assert told(*command)["pending"] == ["a"]
    monkeypatch.setenv("MEMFEAT_EXTRACT_JSON", "1")
    assert ok(*command).stdout.startswith("{")


def test_a_variable_that_cannot_be_taken_is_named(monkeypatch):
    monkeypatch.setenv("MEMFEAT_PLAN_VIDEOS", "many")
    wrong = run(*PLAN)
    assert wrong.exit_code == 2
    assert (
        "'many' is not a valid integer.\nThe value comes from the environment: MEMFEAT_PLAN_VIDEOS"
        in wrong.stderr
    )
    assert "PLAN_VIDEOS" not in run(*PLAN, "--videos", "some").stderr


def test_a_verbose_command_says_where_an_error_came_from(tmp_path, usual_logging):
    command = ["run", "show", tmp_path / "none"]
    assert "run.py" not in run(*command).output
    wrong = CliRunner().invoke(main, [*map(str, command), "-v"]).stderr
    assert ", in load" in wrong
    assert wrong.startswith("Error: there is no run folder")
