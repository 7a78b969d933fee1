"""memfeat from Python: what a notebook user would guess, and what it gives."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import told
from predicting import ENCODER, QUICK

import memfeat
from memfeat.manifest import write_manifest


@pytest.fixture
def home(studied) -> Path:
    return studied


@pytest.fixture(scope="module")
def predictor(studied) -> memfeat.Predictor:
    return memfeat.load(str(studied / "run"), device="cpu")


def test_importing_memfeat_imports_nothing_but_itself_and_the_standard_library():
    code = "import sys; before = {*sys.modules}; import memfeat; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    packages = {name.partition(".")[0] for name in done.stdout.split()}
    assert packages - sys.stdlib_module_names == {"memfeat"}


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings another OpenMP")
@pytest.mark.parametrize(
    ("variables", "times"), [({}, "0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")]
)
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(variables, times):
    code = "import memfeat, torch; torch.ones(1 << 20).sum()"
    shown = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    shown |= variables | {"OMP_DISPLAY_ENV": "VERBOSE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=shown)
    # What GNU's OpenMP, which torch brings on Linux, says of itself; by default 300000.
    assert f"GOMP_SPINCOUNT = '{times}'" in done.stderr


def test_every_public_name_is_there_and_documented_and_others_are_refused():
    for name in memfeat.__all__:
        assert name in dir(memfeat)
        assert getattr(memfeat, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'predictt'"):
        memfeat.predictt  # noqa: B018


def test_a_clip_gets_the_score_that_the_command_prints(home, predictor):
    found = predictor.predict(f"{home}/v3.mp4")
    (printed,) = told("predict", home / "run", home / "v3.mp4")
    assert json.loads(json.dumps(found.as_dict())).items() <= printed.items()
    assert len(found.effects) == len(found.weights) == len(found.pts_seconds) == found.num_frames
    assert (found.status, found.reason) == ("ok", "")


def test_several_videos_come_back_in_order_with_the_scores_of_each_alone(home, predictor):
    order = [5, 0, 3, 12, 1, 0]
    videos = [f"{home}/v{number}.mp4" for number in order]
    videos[2:2] = [f"{home}/none.mp4"]
    found = predictor.predict(videos)
    assert [each.name for each in found] == videos
    assert [each.status for each in found] == ["ok", "ok", "failed", "ok", "ok", "ok", "ok"]
    assert found[2].reason == "missing"
    alone = [predictor.predict(video) for video in videos]
    assert [each.score for each in found] == [each.score for each in alone]
    assert predictor.predict([]) == []
    assert found[0].score == predictor.predict(Path(videos[0])).score


def test_predictions_come_as_they_are_made(home, predictor):
    several = predictor.predict_each([home / f"v{number}.mp4" for number in range(12)])
    first = next(several)
    several.close()
    assert first.score == predictor.predict(home / "v0.mp4").score


def test_embedding_gives_what_a_cache_holds(home):
    vectors, times = memfeat.embed(f"{home}/v4.mp4", **ENCODER)
    cache = memfeat.Cache.open(str(home / "cache"))
    cached = cache["v4"]
    assert np.array_equal(vectors, cached.vectors)
    assert times == pytest.approx(np.arange(len(vectors)) / 10)
    assert np.array_equal(times, cached.pts_seconds)
    assert vectors.dtype == np.float16
    assert np.linalg.norm(vectors.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    several = memfeat.embed([home / "v1.mp4", home / "v4.mp4"], **ENCODER)
    assert [len(each.vectors) for each in several] == [3, 3]
    assert np.array_equal(several[1].vectors, vectors)
    early = memfeat.embed(home / "v4.mp4", **ENCODER, max_frames=2)
    assert np.array_equal(early.vectors, vectors[:2])


def test_a_cache_is_a_flat_table_with_offsets(home):
    cache = memfeat.Cache.open(str(home / "cache"))
    table = cache.table()
    assert len(table.offsets) == len(table.video_ids) + 1 == 29
    assert len(table.values) == len(table.pts_seconds) == table.offsets[-1]
    index = table.video_ids.index("v7")
    rows = table.values[table.offsets[index] : table.offsets[index + 1]]
    assert np.array_equal(rows, cache["v7"].vectors)
    assert "v7" in cache
    assert "none" not in cache
    assert {*cache} == {*table.video_ids}


def test_settings_are_those_of_the_commands_and_results_what_they_print(home, tmp_path):
    data = {"manifest": str(home / "m.csv"), "cache": str(home / "cache")}
    summary = memfeat.extract(**data, **ENCODER)
    assert (summary.wanted, summary.already_done) == (28, 28)
    settings = {"aggregator": "avg", "head": "linear", **QUICK}
    trained = memfeat.train(**data, **settings, run=tmp_path / "api")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    places = ["--manifest", data["manifest"], "--cache", data["cache"]]
    printed = told("train", *places, *flags, "--run", tmp_path / "cli")
    assert printed["metrics"] == trained.metrics
    evaluated = memfeat.evaluate(trained, split="test")
    again = told("evaluate", tmp_path / "cli", "--split", "test")["metrics"]
    assert {name: each.as_dict() for name, each in evaluated.items()} == again
    assert memfeat.evaluate(str(tmp_path / "cli"), **data)["dev"].n == 18


def test_a_pipeline_file_gives_settings_that_keywords_override(home, tmp_path):
    pipeline = tmp_path / "p.toml"
    pipeline.write_text('[train]\naggregator = "avg"\nhead = "mlp"\nmax_epochs = 1\n')
    data = {"manifest": home / "m.csv", "cache": home / "cache", "run": tmp_path / "run"}
    run = memfeat.train(str(pipeline), **data, head="linear", bootstrap=0, device="cpu")
    assert (run.config.system, run.config.max_epochs) == ("avg+linear", 1)


def wrong(home):
    clip = home / "v0.mp4"
    return {
        "no such run": lambda: memfeat.load("runs/none"),
        "no run": lambda: memfeat.load([]),
        "no such device": lambda: memfeat.load(home / "run", device="gpu"),
        "an unknown setting": lambda: memfeat.embed(clip, **ENCODER, batchsize=3),
        "unknown weights": lambda: memfeat.embed(
            clip, encoder="efficientnet-lite0", weights="none"
        ),
        "an empty path": lambda: memfeat.load(home / "run").predict(""),
        "a number for a path": lambda: memfeat.load(home / "run").predict(3),
        "a number among paths": lambda: memfeat.load(home / "run").predict([clip, 3]),
        "a video that cannot be used": lambda: memfeat.embed(home / "m.csv", **ENCODER),
        "no such cache": lambda: memfeat.Cache.open("none"),
        "no such video": lambda: memfeat.Cache.open(home / "cache")["none"],
        "a missing setting": lambda: memfeat.train(cache=home / "cache"),
        "a wrong value": lambda: memfeat.extract(manifest="m", cache="c", batch_size=0),
        "no such manifest": lambda: memfeat.extract(manifest="none.csv", cache="c"),
        "no scores to compare": lambda: memfeat.evaluate(home / "run", manifest="none.csv"),
    }


@pytest.mark.parametrize("what", wrong(Path()))
def test_what_is_wrong_is_told_as_memfeats_own_error(home, what):
    with pytest.raises(memfeat.MemfeatError) as caught:
        wrong(home)[what]()
    assert "\n" not in str(caught.value)


def test_runs_and_predictors_say_in_a_line_what_they_are(home, predictor):
    run = memfeat.Run.load(home / "run")
    assert repr(run) == f"<Run {home}/run: {run.config.system} of seeds {list(run.config.seeds)}>"
    assert repr(predictor) == f"<Predictor of {home}/run>"
    assert "videos" in repr(memfeat.Cache.open(home / "cache"))


def test_a_split_without_scores_cannot_be_evaluated(home, tmp_path):
    manifest = memfeat.read_manifest(str(home / "m.csv"))
    records = [record.model_copy(update={"score": None}) for record in manifest.records]
    write_manifest(tmp_path / "m.csv", records)
    with pytest.raises(memfeat.MemfeatError, match="videos of test has a score to compare with"):
        memfeat.evaluate(home / "run", manifest=tmp_path / "m.csv", split="test")


def test_a_notebook_shows_score_interval_and_timeline(home, predictor, tmp_path):
    clip = tmp_path / "<b>.mp4"
    shutil.copy(home / "v3.mp4", clip)
    found = predictor.predict(clip)
    page = found._repr_html_()
    assert "&lt;b&gt;.mp4" in page
    assert f"predicted score <b>{found.score:.3f}</b>" in page
    assert "90 % interval {:.3f} to {:.3f}".format(*found.interval) in page
    assert "data:image/png;base64,iVBOR" in page
    assert "pts_seconds" not in repr(found)
    found.draw(str(tmp_path / "timeline.svg"), title="One of <three>")
    assert "One of &lt;three&gt;" in (tmp_path / "timeline.svg").read_text()
    clip.unlink()
    found = predictor.predict([home / "none.mp4"])[0]
    assert "none.mp4" in found._repr_html_()
    assert found.effects is None


def test_a_prediction_of_a_video_that_is_gone_has_no_picture_and_keeps_its_effects(
    home, predictor, tmp_path
):
    clip = tmp_path / "gone.mp4"
    shutil.copy(home / "v3.mp4", clip)
    found = predictor.predict(clip)
    clip.unlink()
    assert "base64" not in found._repr_html_()
    with pytest.raises(memfeat.MemfeatError, match=r"gone\.mp4"):
        found.draw(tmp_path / "gone.png")
    assert np.array_equal(found.effects, predictor.predict(home / "v3.mp4").effects)


def test_every_public_name_but_the_error_has_an_example():
    for name in set(memfeat.__all__) - {"MemfeatError"}:
        assert ">>> " in getattr(memfeat, name).__doc__, name
