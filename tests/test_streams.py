"""Several caches side by side, from the settings to a trained run (Table 1, rows 9-11)."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from made_up import (
    SMALL,
    config,
    contents,
    dataset,
    encoded,
    records,
    spec,
    splits,
    table,
    videos,
)

from memfeat.ablation import plan_cells, run_ablation
from memfeat.cache import Cache, write_shard
from memfeat.config import AblationConfig, AblationRow, TrainConfig, build
from memfeat.errors import ConfigError, RunError, TrainingError
from memfeat.manifest import Manifest, write_manifest
from memfeat.models import build_regressor, regressor_of
from memfeat.runs import Run, read_predictions
from memfeat.training import Examples, evaluate_run, predict_run, score, select_records, train
from memfeat.training.baselines import fit_baseline

DIMS = 6, 4
PAIRS = [
    ("bigru", "linear-avg"),
    ("avg", "bigru-pool"),
    ("bigru", "bigru"),
    ("linear-avg", "linear-avg"),
    ("transformer", "bigru"),
]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids="+".join)


def settings(folder, pair, **changes):
    return config(folder, cache=("one", "two"), aggregator=pair, **changes)


def two_tables():
    """Features of the same videos in two caches: other widths, lengths and orders."""
    made, labels = dataset()
    generator = np.random.default_rng(7)
    lengths = [1 + int(n) // 2 for n in made.lengths]
    other = table([generator.standard_normal((n, DIMS[1])) for n in lengths], encoder="other")
    rest = [other.frames(i) for i in reversed(range(len(other)))]
    turned = table(rest, encoder="other")
    return made, dataclasses.replace(turned, video_ids=other.video_ids[::-1]), labels


def batch(dim, lengths):
    return torch.randn(len(lengths), max(lengths), dim), torch.tensor(lengths)


def vector_of(regressor, *streams):
    """What a regressor's head is given."""
    seen = []
    with regressor.head.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        regressor.eval()(*streams)
    return seen[0]


# Models


@every_pair
@torch.no_grad()
def test_the_vector_is_that_of_two_models_of_one_stream_side_by_side(tmp_path, pair):
    torch.manual_seed(0)
    both = regressor_of(settings(tmp_path, pair), DIMS)
    streams = batch(DIMS[0], [5, 9, 2]), batch(DIMS[1], [3, 1, 6])
    expected = []
    for number, (name, dim, stream) in enumerate(zip(pair, DIMS, streams, strict=True)):
        alone = build_regressor(dim, name, "linear", SMALL["aggregators"].get(name, {}))
        alone.aggregators[0].load_state_dict(both.aggregators[number].state_dict())
        expected.append(vector_of(alone, stream))
    assert torch.equal(vector_of(both, *streams), torch.cat(expected, dim=1))
    names = {name.split(".")[0] for name, _ in both.named_parameters()}
    assert names <= {"aggregators", "head"}


# Runs


@pytest.mark.parametrize("pair", PAIRS[::4], ids="+".join)
def test_a_run_of_two_streams_repeats_to_the_byte(tmp_path, monkeypatch, pair):
    one, two, labels = two_tables()
    written = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run = train([one, two], labels, settings("run", pair, seeds=(0, 1)))
        written.append(contents(tmp_path / name))
    assert written[0] == written[1]
    assert np.ptp(run.predictions().prediction) > 0
    metrics = evaluate_run(run, [one, two], labels)
    assert metrics["dev"].mse == pytest.approx(run.metrics["dev"]["mse"], abs=1e-6)


def test_a_run_knows_both_its_caches_and_their_sources(tmp_path):
    one, two, labels = two_tables()
    real = dataclasses.replace(two, spec=spec(4, encoder="other", weights="a tag"))
    run = Run.load(train([one, real], labels, settings(tmp_path / "run", ("avg", "avg"))).folder)
    assert run.specs == (one.spec, real.spec)
    assert run.config.system == "avg+mlp"
    lines = run.sources()
    assert "made-up with RANDOM WEIGHTS" in lines[0]
    assert lines[1].startswith("features: other, a tag weights")
    written = json.loads((run.folder / "cache_spec.json").read_text())
    assert [each["encoder"] for each in written["streams"]] == ["made-up", "other"]


def test_predictions_of_the_mean_alone_are_those_of_all_frames(tmp_path):
    """Training sees averages where an aggregator does; scoring sees the frames."""
    one, two, labels = two_tables()
    run = train([one, two], labels, settings(tmp_path / "run", ("linear-avg", "linear-avg")))
    examples = Examples.join([one, two], labels)
    exact = [
        dataclasses.replace(table([mean[None] for mean in means]), values=np.float32(means))
        for means in examples.means
    ]
    (regressor,) = run.regressors()
    found = run.predictions().prediction
    np.testing.assert_allclose(score(regressor, videos(*exact)), found, atol=1e-6)


def test_features_of_other_caches_or_of_too_few_are_refused(tmp_path):
    one, two, labels = two_tables()
    plan = settings(tmp_path / "run", ("avg", "avg"), max_epochs=1)
    with pytest.raises(TrainingError, match="features of 1 caches, and the settings name 2"):
        train(one, labels, plan)
    run = train([one, two], labels, plan)
    with pytest.raises(RunError, match=r"on 2 caches side by side, one, two; .* instead of 1"):
        predict_run(run, one, labels)
    with pytest.raises(RunError, match="encoder is 'other', not 'made-up'"):
        predict_run(run, [two, one], labels)
    with pytest.raises(RunError, match=r"already holds another run: .*its features are of made-up"):
        train([two, one], labels, plan)


def test_only_videos_that_are_in_both_tables_are_joined():
    one, two, labels = two_tables()
    fewer = dataclasses.replace(one, video_ids=("stranger", *one.video_ids[1:]))
    examples = Examples.join([fewer, two], labels)
    assert examples.records == tuple(labels[1:])
    for number, made in enumerate((fewer, two)):
        for position, record in zip(examples.positions[number], labels[1:], strict=True):
            assert made.video_ids[position] == record.video_id


def test_a_baseline_sees_the_averages_of_both_caches_side_by_side():
    one, two, labels = two_tables()
    both = Examples.join([one, two], labels)
    joined = np.hstack(both.means)
    single = table(list(joined[:, None]))
    exact = dataclasses.replace(single, values=joined)
    expected = fit_baseline("ridge", Examples.join(exact, labels)).predictions.prediction
    found = fit_baseline("ridge", both).predictions.prediction
    np.testing.assert_allclose(found, expected, atol=1e-9)


# Which videos can be used


def test_videos_that_are_not_in_a_cache_are_named_with_the_cache_and_the_command(tmp_path):
    write_shard(tmp_path / "one", spec(6), [encoded(name, 3, 6) for name in ("v0", "v1", "v2")])
    write_shard(tmp_path / "two", spec(4, encoder="other"), [encoded("v1", 2, 4)])
    caches = [Cache.open(tmp_path / name) for name in ("one", "two")]
    manifest = Manifest(tmp_path / "m.csv", tuple(records([0.1] * 4, splits(4, 0, 0))))
    with pytest.raises(TrainingError) as caught:
        select_records(manifest, *caches)
    first, second = str(caught.value).split("; ")
    assert f"1 of the 4 videos of {tmp_path}/m.csv have no features in {tmp_path}/one" in first
    assert "'v3'" in first
    assert first.endswith(f"--cache {tmp_path}/one --encoder made-up")
    assert f"3 of the 4 videos of {tmp_path}/m.csv have no features in {tmp_path}/two" in second
    assert second.endswith(f"--cache {tmp_path}/two --encoder other")


def test_a_video_that_one_cache_has_only_in_part_is_left_out_and_named(tmp_path):
    write_shard(tmp_path / "one", spec(6), [encoded(name, 3, 6) for name in ("v0", "v1")])
    partly = [encoded("v0", 2, 4, status="partial", reason="truncated"), encoded("v1", 2, 4)]
    write_shard(tmp_path / "two", spec(4), partly)
    manifest = Manifest(tmp_path / "m.csv", tuple(records([0.1] * 2, splits(2, 0, 0))))
    caches = [Cache.open(tmp_path / name) for name in ("one", "two")]
    selection = select_records(manifest, *caches)
    assert [record.video_id for record in selection.records] == ["v1"]
    assert selection.notes == ("1 partial video left out: 'v0'",)


# Settings


@pytest.mark.parametrize(
    ("caches", "aggregators", "expected"),
    [
        ("a", "avg", ("avg",)),
        (["a", "b"], "avg", ("avg", "avg")),
        (["a", "b"], ["avg", "bigru"], ("avg", "bigru")),
        (["a", "b"], ["avg"], ("avg", "avg")),
    ],
)
def test_one_aggregator_serves_all_caches_or_each_has_its_own(caches, aggregators, expected):
    plan = TrainConfig(manifest="m", cache=caches, aggregator=aggregators)
    assert plan.aggregator == expected
    assert AblationRow(cache=caches, aggregator=aggregators, head="mlp").aggregator == expected
    assert TrainConfig(**json.loads(plan.model_dump_json())) == plan


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cache": "a", "aggregator": ["avg", "bigru"]}, "2 aggregators do not fit .* of 1; name"),
        ({"cache": ["a", "b", "c"], "aggregator": ["avg", "avg"]}, "count of 3; name one for all"),
        ({"cache": []}, r"cache = \[\] is not allowed: .*at least 1"),
    ],
)
def test_a_number_of_aggregators_that_fits_no_caches_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, {"manifest": "m"} | values, "mine.toml [train]")


def test_a_run_of_one_cache_is_written_as_it_was_read(tmp_path):
    made, labels = dataset()
    folder = train(made, labels, config(tmp_path / "run", max_epochs=1)).folder
    written = json.loads((folder / "config.json").read_text())
    assert (written["cache"], written["aggregator"]) == ("cache", "bigru")
    assert json.loads((folder / "cache_spec.json").read_text())["encoder"] == "made-up"


# Grids


def row(*caches, aggregator="linear-avg", head="mlp"):
    return {"cache": list(caches), "aggregator": aggregator, "head": head}


def test_a_grid_trains_rows_of_one_and_two_caches_and_lists_the_caches_that_are_missing(tmp_path):
    labels = records(np.linspace(0.2, 0.9, 20), splits(10, 6, 4))
    write_manifest(tmp_path / "m.csv", labels)
    for name, dim, frames in (("a", 6, 4), ("b", 3, 2)):
        shard = [encoded(label.video_id, frames, dim) for label in labels]
        write_shard(tmp_path / name, spec(dim, encoder=name), shard)
    rows = [row("a"), row("a", "b"), row("a", "b", aggregator=["avg", "bigru"]), row("b")]
    rows.append(row("a", "none", "nowhere"))
    grid = AblationConfig(
        title="Side by side",
        run=tmp_path / "grid",
        split="test",
        seeds=(0,),
        cache_root=tmp_path,
        rows=rows,
        workers=1,
        baselines=("ridge",),
        controls=("linear-avg+mlp",),
    )
    recipe = {"manifest": tmp_path / "m.csv", "max_epochs": 2, "bootstrap": 20, "device": "cpu"}
    cells = plan_cells(grid, recipe | SMALL)
    assert [cell.name for cell in cells if cell.kind == "model"] == [
        "a linear-avg+mlp",
        "a + b linear-avg+mlp",
        "a + b avg,bigru+mlp",
        "b linear-avg+mlp",
        "a + none + nowhere linear-avg+mlp",
    ]
    files = set()
    result = run_ablation(
        grid, cells, on_progress=lambda _: files.update(grid.run.glob(".features.*"))
    )
    assert len(files) == 2, "each cache's table is made once for all"
    assert list(grid.run.glob(".features.*")) == []
    found = {each["name"]: each for each in result["rows"]}
    assert len(found) == 4 + 3 + 3
    both = found["a + b avg,bigru+mlp"]
    assert (both["encoder"], both["weights"]) == ("a + b", "random + random")
    assert both["aggregator"] == "avg,bigru"
    assert both["run"] == "cells/a+b-avg,bigru+mlp"
    assert [line for line in result["sources"] if "RANDOM WEIGHTS" in line] == [
        f"features: {spec(6, encoder='a').describe()}",
        f"features: {spec(3, encoder='b').describe()}",
    ]
    assert read_predictions(grid.run / found["a + b avg+ridge"]["run"] / "predictions.csv")
    assert len(result["failed"]) == 3  # the model, its control and its baseline
    for failed in result["failed"]:
        assert failed["missing_cache"]
        for name in ("none", "nowhere"):
            command = f"{tmp_path}/{name}; make it with `memfeat extract"
            assert f"there is no cache {command}" in failed["error"]
            assert f"--encoder {name} --cache {tmp_path}/{name}`" in failed["error"]
        assert f"{tmp_path}/a;" not in failed["error"]
