"""Which room of memfeat may import which: one test for each rule, over all files."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path("memfeat")
TABLE = re.findall(
    r"^\| (\d+) \| (`.*?`) \|", Path("docs/architecture.md").read_text(), re.MULTILINE
)
LEVEL = {room: int(n) for n, rooms in TABLE for room in re.findall(r"`(\w+)/?`", rooms)}
MOST_LEVELS = 10
ONLY_IMPORTERS = {
    "av": "memfeat/video/*.py",
    "h5py": "memfeat/cache/*.py",
    "open_clip": "memfeat/encoders/openclip_weights.py",
    "timm": "memfeat/encoders/timm_weights.py",
    "torchvision": "memfeat/encoders/torchvision_video.py",
    "fsspec": "memfeat/storage/*.py",
    "click": "memfeat/cli/*.py",
}
STAGE_1 = {"video", "encoders", "decoding", "extraction", "planning"}
STAGE_2 = {"models", "runs", "training", "ablation"}
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
    return names


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    used = {name.split(".")[1] for name in imports(path) if name.startswith("memfeat.")}
    return used - {room(path)}


def reached(rooms: set[str]) -> set[str]:
    """Follow imports from rooms to all the rooms they need."""
    more = {used for path in FILES if room(path) in rooms for used in rooms_used(path)}
    return rooms if more <= rooms else reached(rooms | more)


def test_imports_point_down_the_levels_that_the_documentation_draws():
    assert set(LEVEL) == {room(path) for path in FILES} - {"__init__", "__main__"}
    assert max(LEVEL.values()) <= MOST_LEVELS
    wrong = [
        f"{path} imports memfeat.{used}"
        for path in FILES
        for used in rooms_used(path)
        if LEVEL[used] >= LEVEL.get(room(path), MOST_LEVELS + 1)  # what is imported or run itself
    ]
    assert wrong == []


def test_no_two_files_import_each_other_not_even_late():
    def name(path: Path) -> str:
        return ".".join(path.with_suffix("").parts).removesuffix(".__init__")

    by_name = {name(path): path for path in FILES}
    ordered = TopologicalSorter(
        {
            own: {
                used
                for used in imports(path)
                if used in by_name and by_name[used].stem != "__init__"
            }
            for own, path in by_name.items()
        }
    )
    ordered.prepare()  # raises CycleError, which names the circle


def test_each_outside_library_has_one_door():
    for library, pattern in ONLY_IMPORTERS.items():
        users = [p for p in FILES if library in {name.split(".")[0] for name in imports(p)}]
        assert users, library
        assert [str(path) for path in users if not path.match(pattern)] == [], library


def test_stage_1_knows_no_models_and_stage_2_no_videos_or_encoders():
    assert not reached(STAGE_1) & {"models", "runs", "training"}
    assert not reached(STAGE_2) & STAGE_1


def test_nothing_that_is_read_is_run():
    """Ruff's rules S forbid eval, exec, shells, unsafe YAML and unpickling; these it cannot see."""
    safe = {"allow_pickle": "False", "weights_only": "True"}
    unpicklers = re.compile(
        r"^\s*(?:import|from) (?:pickle|dill|cloudpickle|marshal|shelve)\b.*", re.MULTILINE
    )
    for path in FILES:
        found = {line.partition("  #")[0] for line in unpicklers.findall(path.read_text())}
        assert found <= {"from pickle import UnpicklingError"}, path
        for call in calls(path):
            told = {each.arg: ast.unparse(each.value) for each in call.keywords if each.arg in safe}
            assert told.items() <= safe.items(), f"{path}:{call.lineno}"
            name = ast.unparse(call.func)
            assert name != "torch.load" or "weights_only" in told, f"{path}:{call.lineno}"


@pytest.mark.parametrize("arguments", [["-c", "import memfeat"], ["-m", "memfeat", "--help"]])
def test_light_entry_points_import_no_torch(arguments):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    loaded = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "memfeat" in loaded
    assert not loaded & {"torch", "numpy", "av", "h5py", "open_clip", "scipy", "matplotlib"}
