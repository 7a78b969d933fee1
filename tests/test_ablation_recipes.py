"""How a grid's caches are made, which row is the reference, and what samplers left."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import records, spec
from test_ablation import DIM, SPLITS, grid, home, video  # noqa: F401  home is a fixture

from memfeat.ablation import caches_of, plan_cells, run_ablation
from memfeat.cache import write_shard
from memfeat.config import AblationConfig, AblationRow, build, read_pipeline
from memfeat.encoders import encoder_names, encoder_tags
from memfeat.errors import ConfigError
from memfeat.manifest import write_manifest

RECIPE = {"manifest": "m.csv", "device": "cpu", "bootstrap": 20}


def requests(config: AblationConfig, **shared):
    return list(caches_of(config, plan_cells(config, RECIPE), shared).values())


def rows(*caches: tuple[str, ...]) -> tuple[AblationRow, ...]:
    return tuple(AblationRow(cache=cache, aggregator="avg", head="linear") for cache in caches)


def test_a_cache_without_a_recipe_is_made_with_the_encoder_of_its_name():
    config = AblationConfig(title="t", run="r", cache_root="c", rows=rows(("ViT-B-32",)))
    (request,) = requests(config, batch_size=4, max_frames=8, weights="random")
    assert request.extract.encoder == "ViT-B-32"
    assert (request.extract.batch_size, request.extract.max_frames) == (4, 8)
    assert request.command == (
        "memfeat extract --manifest m.csv --encoder ViT-B-32 --weights random --cache c/ViT-B-32"
    )


def test_a_recipe_goes_before_what_all_caches_share():
    recipe = {"encoder": "i3d", "weights": "my files/k.pt"}
    config = AblationConfig(
        title="t", run="r", cache_root="c", rows=rows(("k",)), recipes={"k": recipe}
    )
    (request,) = requests(config, weights="random")
    assert request.extract.weights == "my files/k.pt"
    assert "--encoder i3d --weights 'my files/k.pt' --cache c/k" in request.command


def test_a_recipe_of_texts_names_them_beside_frames_that_share_its_settings():
    recipe = {"encoder": "text/ViT-B-32", "text": ["caption", "my t.csv:title"]}
    both = (AblationRow(cache=("x", "k"), aggregator="avg", head="linear"),)
    config = AblationConfig(title="t", run="r", cache_root="c", rows=both, recipes={"k": recipe})
    frames, texts = requests(config, sampler="stride:2")
    assert (frames.extract.text, frames.extract.sampler) == ((), "stride:2")
    assert texts.extract.text == ("caption", "my t.csv:title")
    assert texts.command.endswith("--cache c/k")
    assert "--text caption --text 'my t.csv:title'" in texts.command


def test_finetuned_weights_come_from_a_run_of_the_grids_own():
    recipe = {"encoder": "i3d", "finetune": "f.toml"}
    config = AblationConfig(
        title="t", run="r", cache_root="c", rows=rows(("a", "k")), recipes={"k": recipe}
    )
    other, request = requests(config)
    assert other.finetune is None
    assert request.extract.weights == "r/finetuned/k/i3d.safetensors"
    assert request.command.startswith(
        "memfeat finetune f.toml --manifest m.csv --run r/finetuned/k && memfeat extract "
    )


def test_a_recipe_for_a_cache_that_no_row_needs_is_refused():
    recipes = {"i3d-kinetic": {"encoder": "i3d"}}
    config = AblationConfig(title="t", run="r", rows=rows(("i3d-kinetics",)), recipes=recipes)
    with pytest.raises(ConfigError, match=r"'i3d-kinetic'.*Did you mean 'i3d-kinetics'"):
        requests(config)


def test_the_papers_table_has_its_eleven_rows_and_a_recipe_for_each_cache():
    config = build(AblationConfig, read_pipeline(Path("pipelines/table1.toml"))["ablation"], "t")
    assert len(config.rows) == 11
    assert all(row.paper and row.paper.srocc for row in config.rows)
    found = {request.extract.cache.name: request for request in requests(config)}
    assert {name: request.extract.encoder for name, request in found.items()} == {
        "ViT-B-32": "ViT-B-32",
        "ViT-L-14-336": "ViT-L-14-336",
        "i3d-finetuned": "i3d",
        "i3d-kinetics": "i3d",
        "i3d-charades": "i3d",
    }
    assert found["i3d-finetuned"].finetune == Path("pipelines/finetune.toml")


def test_the_smoke_test_differs_from_the_table_in_what_is_random_and_how_much_alone():
    table, smoke = (
        build(AblationConfig, read_pipeline(Path(f"pipelines/{name}.toml"))["ablation"], name)
        for name in ("table1", "table1-smoke")
    )
    assert smoke.rows == table.rows
    assert "RANDOM WEIGHTS" in smoke.title
    for name, recipe in smoke.recipes.items():
        assert recipe.encoder == table.recipes[name].encoder
        assert recipe.weights == "random" or recipe.finetune
    lines = Path("data_manifests/demo-smoke.csv").read_text().splitlines()
    assert len(lines) == 13
    assert set(lines) <= set(Path("data_manifests/demo.csv").read_text().splitlines())


def test_the_comparison_of_encoders_names_encoders_and_weights_that_there_are():
    config = build(AblationConfig, read_pipeline(Path("pipelines/encoders.toml"))["ablation"], "t")
    names = set(encoder_names())
    for cache in config.caches:
        recipe = config.recipes.get(str(cache))
        encoder, weights = (recipe.encoder, recipe.weights) if recipe else (str(cache), "openai")
        assert encoder in names
        assert weights in encoder_tags(encoder)
    assert set(config.recipes) < set(map(str, config.caches))
    assert config.reference in {f"{cache} bigru+mlp" for cache in config.caches}


@pytest.fixture
def sampled(home) -> Path:  # noqa: F811
    """Two caches of the same videos; in the second, three frames of each cover four."""
    videos = [video(i) for i in range(len(SPLITS))]
    counts = np.array([1, 2, 1], np.int32)
    kept = [
        replace(v, embeddings=v.embeddings[:3], pts_seconds=v.pts_seconds[:3], covers=counts)
        for v in videos
    ]
    write_shard(home / "b", spec(DIM, sampling="thumbnail:0.05"), kept)
    return home


def test_rows_are_compared_with_the_reference_and_say_which_share_of_frames_they_have(sampled):
    config = grid(sampled, caches=("a", "b"), aggregators=("avg",), reference="a avg+linear")
    recipe = {"manifest": sampled / "m.csv", "max_epochs": 2, "device": "cpu", "bootstrap": 20}
    table = run_ablation(config, plan_cells(config, recipe))
    found = {row["name"]: row for row in table["rows"]}
    assert table["reference"] == "a avg+linear"
    assert found["a avg+linear"]["versus"] is None
    difference = found["b avg+linear"]["srocc"] - found["a avg+linear"]["srocc"]
    assert found["b avg+linear"]["versus"]["srocc"] == pytest.approx(difference)
    assert (found["a avg+linear"]["frames_kept"], found["b avg+linear"]["frames_kept"]) == (1, 0.75)


def test_a_reference_that_is_no_row_is_refused(home):  # noqa: F811
    config = grid(home, reference="avg+linaer")
    with pytest.raises(ConfigError, match=r"'avg\+linaer'.*Did you mean 'avg\+linear'"):
        plan_cells(config, RECIPE)


def test_a_row_whose_caches_are_missing_is_told_with_their_commands(home):  # noqa: F811
    write_manifest(home / "m.csv", records([0.5] * len(SPLITS), SPLITS))
    both = rows(("a", "b"), ("a",))
    config = grid(home, caches=(), aggregators=(), heads=(), rows=both)
    table = run_ablation(config, plan_cells(config, {**RECIPE, "manifest": home / "m.csv"}))
    (failed,) = table["failed"]
    assert failed["missing_cache"]
    assert f"--encoder b --cache {home / 'b'}`" in failed["error"]
    assert len(table["rows"]) == 1
