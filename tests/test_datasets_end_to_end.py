"""Made-up folders of the paper's two datasets, from label files to figures across datasets."""

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
