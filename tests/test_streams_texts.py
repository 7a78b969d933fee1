"""A cache of texts beside one of frames: training on both, and videos without a text."""

from pathlib import Path

import numpy as np
import pytest
from made_up import SMALL, encoded, records, spec, splits

import memfeat
from memfeat.ablation import plan_cells, run_ablation
from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.config import AblationConfig
from memfeat.manifest import read_manifest, write_manifest
from memfeat.runs import Run
from memfeat.training import evaluate_run, read_features, select_records

VIDEOS, SILENT = 24, (2, 11, 17, 22)
BOTH = {"cache": ("frames", "texts"), "aggregator": ("bigru", "avg"), "head": "mlp"}
RECIPE = {"max_epochs": 2, "bootstrap": 20, "device": "cpu", **SMALL}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A manifest, and its caches of frames and of texts, which some videos have none of."""
    monkeypatch.chdir(tmp_path)
    labels = records(np.linspace(0.2, 0.9, VIDEOS), splits(12, 7, 5))
    write_manifest(Path("m.csv"), labels)
    ids = [label.video_id for label in labels]
    write_shard(Path("frames"), spec(6, normalisation="l2"), [encoded(v, 5, 6) for v in ids])
    none = np.empty((0, 4), np.float16)
    texts = [
        EncodedVideo(name, none, np.empty(0), "failed", "no_text")
        if number in SILENT
        else encoded(name, 1 + number % 3, 4, source_sha256="0" * 64)
        for number, name in enumerate(ids)
    ]
    text = spec(4, encoder="text/made-up", sampling="text: caption", normalisation="l2")
    write_shard(Path("texts"), text, texts)
    return ids


def trained(name, missing, **changes):
    settings = {"manifest": "m.csv", "run": name, "missing": missing, **BOTH, **RECIPE, **changes}
    return memfeat.train(**settings)


def test_a_video_without_a_text_is_left_out_or_has_zeros_for_it_and_both_are_said(here):
    manifest = read_manifest(Path("m.csv"))
    dropped = select_records(manifest, Cache.open("frames"), Cache.open("texts"))
    assert [r.video_id for r in dropped.records] == [
        v for number, v in enumerate(here) if number not in SILENT
    ]
    assert dropped.notes == (
        "4 videos without a text in texts left out (--missing zero takes zeros for it): "
        f"{here[2]!r}, {here[11]!r}, {here[17]!r} and 1 more",
    )
    cache = Cache.open("texts", missing="zero")
    kept = select_records(manifest, Cache.open("frames", missing="zero"), cache)
    assert len(kept.records) == VIDEOS
    own_shards = Cache.open("texts").shards
    assert cache.shards == own_shards
    assert cache.summary()["bytes"] == sum(path.stat().st_size for path in own_shards)
    assert kept.notes[0].startswith("4 videos have no text in texts; zeros stand in: 'v11', ")
    table = cache.load(here)
    own = Cache.open("texts").load([v for n, v in enumerate(here) if n not in SILENT])
    assert table.lengths[list(SILENT)].tolist() == [1] * 4
    assert not table.frames(2).any()
    np.testing.assert_array_equal(table.values[table.values.any(axis=1)], own.values)
    table.require_sound()


def test_runs_of_either_choice_are_trained_scored_and_evaluated_alike(here):
    run = trained("zero", "zero")
    assert len(run.predictions().video_id) == VIDEOS
    features = read_features(read_manifest(Path("m.csv")), run.config.cache, missing="zero")
    again = evaluate_run(run, features.tables, features.records)
    assert again["dev"].mse == pytest.approx(run.metrics["dev"]["mse"], abs=1e-6)
    assert memfeat.evaluate("zero")["dev"].mse == pytest.approx(again["dev"].mse)
    several = trained("seeds", "zero", seeds=(0, 1))
    alone = Run.load(several.members[0]).predictions().prediction
    np.testing.assert_array_equal(alone, run.predictions().prediction)
    fewer = trained("drop", "drop")
    assert len(fewer.predictions().video_id) == VIDEOS - len(SILENT)
    with pytest.raises(memfeat.MemfeatError, match="already holds another run"):
        trained("drop", "zero")


def test_what_is_familiar_of_length_and_rate_comes_from_the_frames(here):
    swapped = trained("swapped", "drop", cache=("texts", "frames"), aggregator=("avg", "bigru"))
    familiar = swapped.familiar()
    np.testing.assert_allclose(familiar.seconds, [0.2, 0.2], atol=1e-6)  # 5 frames of 25 a second
    np.testing.assert_allclose(familiar.frames_per_second, [25, 25], atol=1e-4)
    alone = trained("alone", "drop", cache=("texts",), aggregator=("avg",))
    assert alone.familiar().seconds.tolist() == [0, 0]


def test_a_grid_has_frames_texts_both_and_their_average(here):
    grid = AblationConfig(
        title="Text beside frames",
        run="grid",
        split="dev",
        seeds=(0,),
        cache_root=".",
        workers=1,
        rows=[
            {"cache": "frames", "aggregator": "bigru", "head": "mlp"},
            {"cache": "texts", "aggregator": "avg", "head": "mlp"},
            {**BOTH, "train": {"missing": "zero"}},
        ],
        ensembles=[{"name": "average", "members": ["frames bigru+mlp", "texts avg+mlp"]}],
    )
    result = run_ablation(grid, plan_cells(grid, {"manifest": "m.csv", **RECIPE}))
    assert {row["name"] for row in result["rows"]} == {
        *("frames bigru+mlp", "texts avg+mlp", "frames + texts bigru,avg+mlp", "average")
    }
    assert result["n"] == 7 - sum(12 <= number < 19 for number in SILENT)
    notes = " ".join(result["notes"])
    assert "4 videos without a text in texts left out" in notes
    assert "4 videos have no text in texts; zeros stand in" in notes
    assert "of text: caption" in " ".join(result["sources"])
