"""Made-up folders of the paper's two datasets, from label files to figures across datasets."""

import numpy as np
import pytest
from commands import ok, told
from made_up_datasets import MAKERS, render

COUNTS = {"memento10k": (6, 3, 3), "videomem": (6, 3, 3)}
ENCODER = ["--encoder", "efficientnet-lite0", "--weights", "random", "--batch-size", "8"]
MODEL = ["--aggregator", "linear-avg", "--head", "linear", "--max-epochs", "2"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Both datasets: rendered, converted, extracted, and a run trained on each."""
    home = tmp_path_factory.mktemp("home")
    for name, counts in COUNTS.items():
        folder = home / "data" / name
        folder.mkdir(parents=True)
        MAKERS[name](folder, counts, render)
        manifest, cache = home / f"{name}.csv", home / "cache" / name
        ok("manifest", "from", name, folder, "-o", manifest)
        ok("extract", "--manifest", manifest, "--cache", cache, "--max-frames", "4", *ENCODER)
        where = ["--manifest", manifest, "--cache", cache, "--run", home / "runs" / name]
        ok("train", *where, *MODEL, "--bootstrap", "20", "--device", "cpu")
    return home


@pytest.mark.parametrize("name", COUNTS)
def test_every_listed_video_is_cached_and_its_manifest_is_sound(name, home):
    info = told("cache", "info", home / "cache" / name)
    assert info["videos"] == {"ok": 12, "partial": 0, "failed": 0}
    assert info["frames"] == 12 * 4
    checked = told("manifest", "check", home / f"{name}.csv")
    assert [split["missing_files"] for split in checked["splits"]] == [0, 0, 0]


@pytest.mark.parametrize(("trained", "evaluated"), [tuple(COUNTS), tuple(reversed(COUNTS))])
def test_a_run_is_evaluated_on_the_other_datasets_cache(trained, evaluated, home):
    other = ["--manifest", home / f"{evaluated}.csv", "--cache", home / "cache" / evaluated]
    result = told("evaluate", home / "runs" / trained, *other)
    assert {"train", "dev"} <= set(result["metrics"])
    assert ("test" in result["metrics"]) == (evaluated == "videomem")  # the other withholds them
    assert all(0 <= metrics["mse"] < 1 for metrics in result["metrics"].values())
    sources = " ".join(result["sources"])
    assert "Memento10k" in sources
    assert "VideoMem" in sources
    assert "RANDOM WEIGHTS" in sources


def test_table_2_is_filled_in_both_directions(home):
    datasets = [
        f"[[transfer.datasets]]\nname = '{name}'\nmanifest = '{home}/{name}.csv'\n"
        f"cache = '{home}/cache/{name}'\n"
        for name in COUNTS
    ]
    recipe = "aggregator = 'bigru'\nhead = 'mlp'\nmax_epochs = 1\nbootstrap = 20\ndevice = 'cpu'\n"
    grid = f"title = 'Table 2'\nrun = '{home}/table2'\nseeds = '0-1'\nworkers = 1\n"
    pipeline = home / "table2.toml"
    pipeline.write_text(f"[train]\n{recipe}[transfer]\n{grid}{''.join(datasets)}")
    table = told("transfer", pipeline)
    found = {(row["trained_on"], row["evaluated_on"], row["split"]) for row in table["rows"]}
    pairs = {(one, other) for one in COUNTS for other in COUNTS}
    # memfeat divides VideoMem's twelve 14 : 3 : 3; Memento10k's test scores are withheld.
    scored = {"memento10k": {"dev": 3}, "videomem": {"dev": 2, "test": 2}}
    assert found == {(one, other, split) for one, other in pairs for split in scored[other]}
    for row in table["rows"]:
        assert row["n"] == scored[row["evaluated_on"]][row["split"]]
        assert np.isfinite([row["bias"], row["mse"], row["recalibrated"]["mse"]]).all()
    assert "RANDOM WEIGHTS" in " ".join(table["sources"])
