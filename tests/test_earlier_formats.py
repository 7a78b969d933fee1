"""What an earlier version wrote still opens: a cache, run folders, and a grid's table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from memfeat.cache import Cache
from memfeat.cli import main
from memfeat.manifest import read_manifest
from memfeat.runs import Run, read_predictions
from memfeat.training import predict_run, read_features

SYSTEMS = ["avg+linear", "bigru+mlp"]
FIRST_VIDEO = [
    [-0.253, 0.6235, -0.4583, 0.11884],
    [-0.02878, -0.7427, -0.11017, 0.1777],
    [-0.8794, -0.4321, 0.02367, 0.1757],
    [0.5005, -0.3423, -0.063, 0.149],
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    files = Path(__file__).parent / "data/earlier"
    return shutil.copytree(files, tmp_path_factory.mktemp("earlier") / "copy")


@pytest.fixture(autouse=True)
def here(copy, monkeypatch):
    """The files' relative paths start from their own folder."""
    monkeypatch.chdir(copy)


def command(*arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_cache_verifies_and_holds_the_same_features():
    assert json.loads(command("cache", "verify", "features", "--json"))["problems"] == {}
    table = Cache.open(Path("features")).load()
    assert table.video_ids == tuple(f"made-up-{number:02d}" for number in range(13))
    np.testing.assert_array_equal(table.frames(0), np.float16(FIRST_VIDEO))


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_seeds_model_repeats_the_predictions_that_stand_beside_it(system):
    run = Run.load(Path("grid/cells") / system)
    found = read_features(read_manifest(Path("manifest.csv")), run.config.cache)
    seeds = predict_run(run, found.tables, found.records)
    assert len(seeds) == len(run.members) == 2
    for seed, member in zip(seeds, run.members, strict=True):
        written = read_predictions(member / "predictions.csv")
        assert seed.video_id == written.video_id
        np.testing.assert_allclose(seed.prediction, written.prediction, atol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_evaluate_repeats_the_metrics(system):
    written = json.loads(Path(f"grid/cells/{system}/metrics.json").read_text())
    found = json.loads(command("evaluate", f"grid/cells/{system}", "--json"))["metrics"]
    assert found.keys() == written.keys() == {"train", "dev", "test"}
    for split, metrics in found.items():
        for name, value in metrics.items():
            assert value == pytest.approx(written[split][name], abs=1e-6), (split, name)


def test_report_shows_a_run_and_the_grid():
    written = json.loads(Path("grid/ablation.json").read_text())
    for folder in ("grid", "grid/cells/bigru+mlp"):
        page = Path(command("report", folder).strip()).read_text()
        assert "made up: random features and scores, not of any video or person" in page
        assert "predicted score" in page
    page = Path("grid/report.html").read_text()
    for row in written["rows"]:
        assert f'<data value="{row["srocc"]!r}">' in page


def test_the_same_command_keeps_every_finished_model_and_writes_the_same_table():
    before = json.loads(Path("grid/ablation.json").read_text())
    models = {path: path.stat().st_mtime_ns for path in Path("grid").rglob("model.safetensors")}
    assert len(models) == 4
    again = json.loads(command("ablation", "grid.toml", "--json"))
    assert {path: path.stat().st_mtime_ns for path in models} == models
    for row in (*again["rows"], *before["rows"]):  # a baseline's model was not kept: it is fitted
        row["seconds"] = row["seconds"] if row["kind"] == "model" else None
    assert again | {"notes": None} == before | {"notes": None}
