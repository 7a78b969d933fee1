import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile

import pytest
import torch
from compilers import COMPILER, needs_compiler

from memfeat.models import compiling
from memfeat.models.compiling import compiled
from memfeat.models.native import kernel

BATCH_SIZES = torch.tensor([5, 5, 3, 1])
SHAPES = (14, 2, 63), (2, 63), (2, 63, 21), (2, 21)
SMALL = 'extern "C" int answer() { return 42; }\n'  # builds in an instant, as the loops do not
# By its file: the package around it would import torch.
USE = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
found = spec_from_file_location("compiling", sys.argv[1])
module = module_from_spec(found)
found.loader.exec_module(module)
print(module.compiled(Path(sys.argv[2]), "small").answer())
"""


def script(path, content):
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)
    return path


def states(loops):
    torch.manual_seed(0)
    return loops.forward(*(torch.randn(shape) / 4 for shape in SHAPES), BATCH_SIZES)[0]


def libraries(home):
    return sorted((home / "memfeat").iterdir())


def identity(path):
    return path.name, path.stat().st_ino, path.stat().st_mtime_ns


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache folder of its own for the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "small.cpp"
    path.write_text(SMALL)
    return path


@pytest.fixture
def new_kernel(caplog):
    """What a new process gets of `kernel()`, and what it logs."""

    def call():
        caplog.clear()
        return kernel.__wrapped__()

    return call


@needs_compiler
def test_where_a_compiler_is_the_loops_are_built():
    """So that C++ that does not compile is an error here, and skips no test."""
    assert kernel() is not None


@needs_compiler
def test_only_the_first_process_builds(home, source):
    assert compiled(source, "small").answer() == 42
    (path,) = libraries(home)
    before = identity(path)
    assert compiled(source, "small").answer() == 42
    assert [identity(each) for each in libraries(home)] == [before]


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_damaged_library_is_built_again(home, source, damage, tmp_path, monkeypatch):
    assert compiled(source, "small").answer() == 42
    # Elsewhere, for what is loaded already would be had again under the same name.
    home = home.rename(tmp_path / "moved")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    (path,) = libraries(home)
    good = path.read_bytes()
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "changed": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "emptied": b"",
    }
    path.unlink()  # not changed in place, where it is still mapped
    path.write_bytes(bad[damage])
    assert compiled(source, "small").answer() == 42
    (again,) = libraries(home)
    assert again.read_bytes() != bad[damage]
    assert hashlib.sha256(again.read_bytes()).hexdigest()[:32] in again.name


@needs_compiler
def test_two_processes_may_build_at_once(home, source, tmp_path, monkeypatch):
    """The compiler that they are given begins only when both have asked it to build."""
    asked = tmp_path / "asked"
    asked.mkdir()
    slow = script(
        tmp_path / "c++",
        f'case "$*" in *small.cpp*) touch "{asked}/$$"; '
        f'while [ "$(ls "{asked}" | wc -l)" -lt 2 ]; do sleep 0.01; done;; esac\n'
        f'exec {COMPILER} "$@"',
    )
    monkeypatch.setenv("CXX", str(slow))
    command = [sys.executable, "-c", USE, compiling.__file__, str(source)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == (0, "42\n", "")
    assert len(list(asked.iterdir())) == 2
    assert all(path.suffix == ".so" for path in libraries(home))


@needs_compiler
def test_a_cache_folder_that_cannot_be_written_is_done_without(tmp_path, source, monkeypatch):
    blocked, temporary = tmp_path / "file", tmp_path / "temporary"
    blocked.write_text("")
    temporary.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert compiled(source, "small").answer() == 42
    assert not any(temporary.iterdir())


@needs_compiler
def test_another_machine_or_compiler_builds_its_own(home, source, tmp_path, monkeypatch):
    assert compiled(source, "small").answer() == 42
    other = tmp_path / "another c++"
    monkeypatch.setenv("CXX", f"'{other}'")
    expected = set(libraries(home))
    for machine in (1, 2):
        script(other, f'exec {COMPILER} -DMACHINE={machine} "$@"')
        assert compiled(source, "small").answer() == 42
        assert len(libraries(home)) == machine + 1
        assert expected < set(libraries(home))
        expected = set(libraries(home))


@needs_compiler
def test_a_compiler_that_does_not_know_its_machine_is_used_without(
    home, tmp_path, monkeypatch, new_kernel, caplog
):
    """The loops are then of the narrowest vectors. (-O1, for a build in half the time.)"""
    content = f'case "$*" in *-march*) exit 1;; esac\nexec {COMPILER} "$@" -O1'
    other = script(tmp_path / "c++", content)
    monkeypatch.setenv("CXX", str(other))
    torch.testing.assert_close(states(new_kernel()), states(kernel()))
    assert not caplog.records


NONSENSE = 'for each; do [ "$was" = -o ] && echo no > "$each"; was=$each; done'


@pytest.mark.parametrize(
    ("compiler", "content", "reason"),
    [
        (None, None, r"there is none of c\+\+, g\+\+, clang\+\+; install one, or set CXX to one"),
        ("no-such-compiler", None, "no-such-compiler"),
        ("c++ 'unclosed", None, "No closing quotation"),
        (
            "fails",
            "echo words >&2; echo 'an error: no lib' >&2; exit 3",
            "with 3: an error: no lib",
        ),
        ("nonsense", NONSENSE, "gru.so"),
    ],
)
def test_where_nothing_can_be_built_one_line_says_why(
    home, tmp_path, monkeypatch, new_kernel, caplog, compiler, content, reason
):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=None if compiler is None else os.pathsep)
    monkeypatch.delenv("CXX", raising=False)
    if compiler is not None:
        monkeypatch.setenv("CXX", compiler)
    if content is not None:
        script(tmp_path / compiler, content)
    assert new_kernel() is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "run in plain torch" in record.message
    assert "\n" not in record.message
    assert re.search(reason, record.message)


def test_the_environment_turns_it_off(monkeypatch, new_kernel, caplog):
    monkeypatch.setenv("MEMFEAT_NATIVE", "0")
    assert new_kernel() is None
    assert not caplog.records


@needs_compiler
def test_a_process_asks_once():
    assert kernel() is kernel()
