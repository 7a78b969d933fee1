"""What `pip install memfeat` gives is whole: built, checked, and used outside the checkout."""

import csv
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from memfeat.datasets.demo import DEMO, demo_records

FEW = (*range(16), *range(240, 260), *range(300, 304))  # of train, dev and test


def call(*arguments: object, code: int = 0, **options: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    call("-m", "hatchling", "build", "--directory", folder)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """A folder that memfeat alone is installed in."""
    folder, (wheel,) = tmp_path_factory.mktemp("installed"), built.glob("*.whl")
    quietly = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    call("-m", "pip", "install", *quietly, "--target", folder, wheel)
    return folder


def test_its_metadata_are_what_a_package_index_takes(built):
    assert len(list(built.iterdir())) == 2
    assert call("-m", "twine", "check", "--strict", *built.iterdir()).count("PASSED") == 2


def test_all_that_memfeat_is_made_of_and_its_pipelines_are_in_the_wheel(built):
    (wheel,) = built.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    paths = [path for path in Path("memfeat").rglob("*") if path.is_file()]
    own = {str(path) for path in paths if "__pycache__" not in path.parts}
    assert found == own | {f"memfeat/{path}" for path in Path("pipelines").glob("*.toml")}


@pytest.mark.extras
def test_it_renders_the_demo_and_compares_systems_by_a_pipelines_name(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    there = {"cwd": tmp_path, "env": environment}
    found = call("-c", "import memfeat; print(memfeat.__file__)", **there)
    assert found.strip() == str(installed / "memfeat/__init__.py")
    clips = tmp_path / "data/demo"
    clips.mkdir(parents=True)
    few = [record for at, record in enumerate(demo_records(clips, DEMO)) if at in FEW]
    kept = {record.video_id for record in few}
    for record in demo_records(clips, DEMO):  # a clip that is there is not rendered
        if record.video_id not in kept:
            (clips / f"{record.video_id}.mp4").touch()
    call(installed / "bin/memfeat", "demo", **there)
    with (tmp_path / "data_manifests/demo.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (tmp_path / "data_manifests/few.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row[0] in kept)])
    quick = ["--seeds", "0", "--max-epochs", "1", "--bootstrap", "0", "--device", "cpu"]
    few_clips = ["--manifest", "data_manifests/few.csv", "--extract"]
    shown = call(installed / "bin/memfeat", "ablation", "demo", *few_clips, *quick, **there)
    assert "bigru+mlp" in shown
    assert "failed" not in shown.partition("frames/s)")[2]
    assert (tmp_path / "runs/demo/ablation.json").is_file()
