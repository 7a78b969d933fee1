"""The floors of the house: which module may import which."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path("memfeat")
FLOORS = (
    {"errors", "registry", "files", "places", "remote", "tables", "processes", "engines"},
    {"config", "manifest", "metrics", "devices"},
    {"video", "cache", "encoders", "models", "runs"},
    {"decoding", "extraction", "planning", "training", "baselines", "datasets"},
    {"prediction", "ablation", "transfer", "finetuning", "figures", "report"},
    {"cli", "__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ONLY_IMPORTERS = {
    "av": {str(path) for path in PACKAGE.glob("video/*.py")},
    "h5py": {"memfeat/cache/shard.py", "memfeat/cache/writing.py"},
    "open_clip": {"memfeat/encoders/openclip_weights.py"},
    "timm": {"memfeat/encoders/timm_weights.py"},
    "fsspec": {"memfeat/remote/store.py"},
    "click": {str(path) for path in PACKAGE.glob("cli/*.py")},
}
STAGE_1 = {"video", "encoders", "decoding", "extraction", "planning"}
STAGE_2 = {"models", "runs", "training", "baselines", "ablation", "transfer"}
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


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("memfeat.")}


def reached(start: set[str]) -> set[str]:
    """Follow imports from rooms to all the rooms they need."""
    found = set(start)
    while True:
        more = {used for path in FILES if room(path) in found for used in rooms_used(path)}
        if more <= found:
            return found
        found |= more


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path):
    if path == PACKAGE / "__init__.py":
        assert imports(path) == []
        return
    for used in rooms_used(path) - {room(path)}:
        assert FLOOR[used] <= FLOOR[room(path)], f"{path} imports memfeat.{used} from above"


def test_the_readme_draws_these_floors():
    rows = re.findall(r"^\| (\d) \| (`.*) \|$", Path("README.md").read_text(), re.MULTILINE)
    drawn = {int(floor): set(re.findall(r"`(\w+)(?:/|\.py)`", rooms)) for floor, rooms in rows}
    assert drawn == dict(enumerate(rooms - {"__main__"} for rooms in FLOORS))


def test_no_two_rooms_import_each_other():
    for one in FLOOR:
        users = {room(path) for path in FILES if one in rooms_used(path)}
        for other in users - {one}:
            assert other not in reached({one}), f"{one} and {other} import each other"


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_each_outside_library_has_one_door(library):
    users = {str(path) for path in FILES for name in imports(path) if name.split(".")[0] == library}
    assert users
    assert users <= ONLY_IMPORTERS[library]


def test_stage_1_knows_no_models_and_stage_2_no_videos_or_encoders():
    assert not reached(STAGE_1) & {"models", "runs", "training", "baselines"}
    assert not reached(STAGE_2) & STAGE_1


@pytest.mark.parametrize("arguments", [["-c", "import memfeat"], ["-m", "memfeat", "--help"]])
def test_light_entry_points_import_no_torch(arguments):
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True
    )
    loaded = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "memfeat" in loaded
    assert not loaded & {"torch", "av", "h5py", "open_clip", "scipy", "matplotlib"}
