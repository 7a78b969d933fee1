"""Grouped folds: nothing leaks, figures are scikit-learn's, what is done is kept."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import config, contents, dataset, encoded, records, spec
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.cli import main
from memfeat.config import TrainConfig, build
from memfeat.errors import ConfigError, RunError, TrainingError
from memfeat.manifest import Manifest, write_manifest
from memfeat.prediction.scorer import Scorer
from memfeat.runs import Run, read_folds, read_predictions
from memfeat.runs.packing import pack_run
from memfeat.training import Examples, evaluate_run, predict_run, select_records, train
from memfeat.training.baselines import BASELINES, run_baseline
from memfeat.training.folds import draw_folds, fold_examples

QUICK = {"aggregator": "avg", "head": "linear", "max_epochs": 2, "folds": 4}


def grouped(labels, groups):
    return [r.model_copy(update={"group": name}) for r, name in zip(labels, groups, strict=True)]


@pytest.fixture(scope="module")
def made():
    """26 videos in nine groups and one alone, of which six are the test split."""
    features, labels = dataset(14, 6, 6)
    return features, grouped(labels, [f"g{i % 9}" if i else "" for i in range(26)])


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    return train(*made, config(tmp_path_factory.mktemp("folds") / "run", **QUICK, seeds=(0, 1)))


# No group on both sides


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.sampled_from(["", *"abcdefghi"]), min_size=30, max_size=30),
    folds=st.integers(3, 5),
    seed=st.integers(0, 9),
)
def test_no_group_is_on_both_sides(groups, folds, seed):
    splits = ["train"] * 18 + ["dev"] * 7 + ["test"] * 5
    labels = grouped(records(np.linspace(0, 1, 30), splits), groups)
    settings = config("run", folds=folds, fold_seed=seed)
    try:
        drawn = draw_folds(labels, settings)
    except TrainingError:
        alone = groups[:25].count("")
        assert len({*groups[:25]} - {""}) + alone < folds
        return
    fold_of = dict(zip(drawn.video_id, drawn.fold.tolist(), strict=True))
    assert [fold_of[r.video_id] > 0 for r in labels] == [r.split != "test" for r in labels]
    assert set(drawn.fold) == {0, *range(1, folds + 1)}
    for name in set(groups) - {""}:
        of_group = {fold_of[r.video_id] for r in labels if r.group == name and r.split != "test"}
        assert len(of_group) <= 1


def test_the_parts_of_a_fold_share_no_group_and_make_up_all_videos(made):
    features, labels = made
    examples = Examples.join(features, labels)
    folds = draw_folds(labels, config("run", folds=4))
    held_out = []
    for number in range(1, 5):
        own = fold_examples(examples, folds, number)
        parts = {}
        for record, split in zip(own.records, own.splits, strict=True):
            parts.setdefault(split, set()).add(record.group or record.video_id)
        assert parts.keys() == {"train", "dev", "folds", "test"}
        assert not parts["train"] & parts["dev"]
        assert not (parts["train"] | parts["dev"]) & parts["folds"]
        held_out += [labels[at].video_id for at in own.labelled("folds")]
    assert sorted(held_out) == sorted(r.video_id for r in labels if r.split != "test")


def test_a_folds_data_are_those_of_all_in_its_parts_and_no_feature_is_hashed_again(made):
    features, labels = made
    folds = draw_folds(labels, config("run", folds=4))
    made_up = {"data_sha256": "0" * 64, "training_sha256": "0" * 64}
    found = [
        [fold_examples(examples, folds, number).facts for number in range(1, 5)]
        for examples in (
            Examples.join(features, labels),
            Examples.join(features, labels[:-1]),  # a video of test
            Examples.join(features, labels, made_up),
        )
    ]
    for name in made_up:
        assert len({facts[name] for facts in found[0]}) == 4
    for whole, without, other in zip(*found, strict=True):
        assert whole["data_sha256"] != without["data_sha256"]
        assert whole["training_sha256"] == without["training_sha256"]
        assert all(whole[name] != other[name] for name in made_up)


def test_folds_are_even_seeded_and_do_not_depend_on_which_videos_have_features(made):
    features, labels = made
    alone = grouped(labels, [""] * len(labels))
    drawn = draw_folds(alone, config("run", folds=4))
    assert np.bincount(drawn.fold).tolist() == [6, 5, 5, 5, 5]
    again, other = (draw_folds(alone, config("run", folds=4, fold_seed=s)) for s in (0, 1))
    assert drawn.fold.tolist() == again.fold.tolist() != other.fold.tolist()
    stranger = records([None], ["train"])[0].model_copy(update={"video_id": "stranger"})
    examples = Examples.join(features, [*alone, stranger])
    found = draw_folds(examples.listed, config("run", folds=4))
    assert found.of([r.video_id for r in alone]).fold.tolist() == drawn.fold.tolist()
    assert fold_examples(examples, found, 1).records == tuple(alone)


def test_a_file_under_two_ids_is_noted_unless_a_group_keeps_it_together(tmp_path):
    labels = records([0.1, 0.2, 0.3, 0.4], ["train", "dev", "train", "test"])
    same = [encoded(f"v{i}", 2, 3, source_sha256=sha * 64) for i, sha in enumerate("aabb")]
    write_shard(tmp_path / "cache", spec(3), same)
    cache = Cache.open(tmp_path / "cache")
    across = "1 video file in more than one split, 'v2' in train and 'v3' in test first"
    notes = select_records(Manifest(tmp_path, tuple(labels)), cache, together="group").notes
    assert notes[0].startswith(across)
    assert notes[1] == (
        "1 video file under several ids, 'v0' and 'v1' first, may come into several folds: give "
        "each a group"
    )
    together = Manifest(tmp_path, tuple(grouped(labels, ["x", "x", "", ""])))
    (only,) = select_records(together, cache, together="group").notes
    (of_dataset,) = select_records(
        Manifest(tmp_path, tuple(labels)), cache, together="dataset"
    ).notes
    assert only == of_dataset
    assert only.startswith(across)


# Figures


def test_every_video_is_predicted_by_the_model_that_did_not_see_it(made, trained):
    _, labels = made
    folds = read_folds(trained.folder)
    for seed in (0, 1):
        found = read_predictions(trained.folder / f"seed-{seed}" / "predictions.csv")
        parts = [
            read_predictions(trained.folder / f"seed-{seed}/fold-{number}" / "predictions.csv")
            for number in range(1, 5)
        ]
        for at, record in enumerate(labels):
            number = folds.fold[at]
            of_models = [part.prediction[at] for part in parts]
            if record.split == "test":
                assert (number, found.split[at]) == (0, "test")
                assert found.prediction[at] == pytest.approx(np.mean(of_models))
            else:
                assert found.split[at] == parts[number - 1].split[at] == "folds"
                assert found.prediction[at] == of_models[number - 1]
    whole = trained.predictions()
    assert whole.video_id == tuple(record.video_id for record in labels)


def test_figures_are_pooled_and_of_each_fold(trained):
    seeds = [read_predictions(trained.folder / f"seed-{s}" / "predictions.csv") for s in (0, 1)]
    own = trained.metrics["folds"]
    chosen = np.array(seeds[0].split) == "folds"
    truth = seeds[0].score[chosen]
    for name, statistic in (("srocc", spearmanr), ("plcc", pearsonr)):
        expected = [statistic(truth, seed.prediction[chosen]).statistic for seed in seeds]
        assert own[name] == pytest.approx(np.mean(expected))
        assert own[f"{name}_std"] == pytest.approx(np.std(expected, ddof=1))
    assert (own["n"], own["groups"], own["seeds"]) == (20, 10, [0, 1])
    fold = read_folds(trained.folder).fold
    assert [each["fold"] for each in own["per_fold"]] == [1, 2, 3, 4]
    for each in own["per_fold"]:
        held_out = fold == each["fold"]
        errors = [np.square(s.prediction - s.score)[held_out].mean() for s in seeds]
        assert each["n"] == held_out.sum()
        assert each["mse"] == pytest.approx(np.mean(errors))
    assert trained.metrics.keys() == {"folds", "test"}


def features_of(made):
    features, labels = made
    means = [features.frames(i).astype(np.float64).mean(0) for i in range(len(labels))]
    return np.stack(means), np.array([record.score for record in labels])


def test_ridges_pooled_figures_are_those_of_cross_val_predict_with_the_same_folds(made, tmp_path):
    settings = config(tmp_path / "run", aggregator="avg", head="ridge", folds=4)
    run_baseline(Examples.join(*made), settings)
    run = Run.load(tmp_path / "run")
    fold = read_folds(run.folder).fold
    chosen = np.flatnonzero(fold)
    x, y = (values[chosen] for values in features_of(made))
    alphas = {"ridge__alpha": BASELINES.get("ridge").grid["alpha"]}
    expected = np.empty(len(chosen))
    for number, hyperparameters in enumerate(run.provenance["hyperparameters"], 1):
        others = fold[chosen] != number
        chooses = fold[chosen][others] == number % 4 + 1
        search = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            alphas,
            scoring="neg_mean_absolute_error",
            cv=PredefinedSplit(np.where(chooses, 0, -1)),
        ).fit(x[others], y[others])
        alpha = search.best_params_["ridge__alpha"]
        assert hyperparameters == {"alpha": alpha}
        model = make_pipeline(StandardScaler(), Ridge(alpha=alpha))
        every = cross_val_predict(model, x, y, cv=PredefinedSplit(fold[chosen]))
        expected[~others] = every[~others]
    np.testing.assert_allclose(run.predictions().prediction[chosen], expected, atol=1e-9)
    own = run.metrics["folds"]
    assert own["srocc"] == pytest.approx(spearmanr(y, expected).statistic)
    assert own["mse"] == pytest.approx(np.square(y - expected).mean())
    assert [s.prediction.tolist() for s in predict_run(run, *made)] == [
        pytest.approx(run.predictions().prediction.tolist(), abs=1e-9)
    ]


def test_intervals_draw_groups_where_videos_share_one(made, tmp_path):
    features, labels = made
    pairs = grouped(labels, [f"g{i // 2}" for i in range(len(labels))])
    alone = grouped(labels, [f"g{i}" for i in range(len(labels))])
    found = {}
    for name, each in (("pairs", pairs), ("alone", alone), ("none", grouped(labels, [""] * 26))):
        settings = config(tmp_path / name, **QUICK | {"group": "group"}, bootstrap=400)
        found[name] = train(features, each, settings).metrics["folds"]
    assert [found[name]["groups"] for name in found] == [10, None, None]
    assert found["alone"] == found["none"]
    assert found["pairs"]["srocc_interval"] != found["alone"]["srocc_interval"]


# Runs


def test_evaluating_repeats_the_figures_of_folds(made, trained):
    found = evaluate_run(trained, *made)
    assert found.keys() == trained.metrics.keys()
    for split, values in found.items():
        for name in ("n", "srocc", "mse", "srocc_interval"):
            expected = trained.metrics[split][name]
            assert getattr(values, name) == pytest.approx(expected, abs=1e-6)


def test_the_run_of_one_fold_is_not_evaluated_by_itself(made, trained):
    part = Run.load(trained.folder / "seed-1" / "fold-2")
    assert part.metrics.keys() == {"train", "dev", "folds", "test"}
    with pytest.raises(RunError, match=r"fold-2 is the model of one fold.*name the run.*seed-1"):
        predict_run(part, *made)


def test_an_interrupted_run_keeps_its_folds_and_ends_like_an_uninterrupted_one(
    made, trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = config("run", **QUICK, seeds=(0, 1))

    class Stop(BaseException):
        pass

    def stop(report):
        if (report.seed, report.fold) == (0, 3):
            raise Stop

    with pytest.raises(Stop):
        train(*made, settings, on_epoch=stop)
    kept = sorted(path.parent.name for path in tmp_path.rglob("metrics.json"))
    assert kept == ["fold-1", "fold-2"]
    with pytest.raises(RunError, match="not a complete run"):
        Run.load("run/seed-0")
    told = []
    train(*made, settings, on_epoch=told.append)
    assert {(r.seed, r.fold) for r in told} == {(0, 3), (0, 4), *((1, n) for n in range(1, 5))}
    ours, whole = contents(tmp_path / "run"), contents(trained.folder)
    assert ours.keys() == whole.keys()
    assert all(ours[name] == whole[name] for name in ours if not name.endswith("config.json"))
    assert train(*made, settings, on_epoch=told.append).metrics == trained.metrics
    assert len(told) == 2 * 6


@pytest.mark.parametrize("changes", [{"folds": 5}, {"fold_seed": 1}, {"folds": 0}])
def test_other_folds_are_another_run(made, trained, changes):
    settings = trained.config.model_copy(update=changes)
    with pytest.raises(RunError, match=f"{next(iter(changes))} is "):
        train(*made, settings)


def test_later_test_scores_and_other_resamples_train_nothing_again(made, tmp_path):
    features, labels = made
    withheld = [r.model_copy(update={"score": None}) if r.split == "test" else r for r in labels]
    settings = config(tmp_path / "run", **QUICK)
    before = train(features, withheld, settings)
    assert before.metrics.keys() == {"folds"}
    told = []
    again = settings.model_copy(update={"bootstrap": 30})
    after = train(features, labels, again, on_epoch=told.append)
    assert told == []
    assert after.metrics.keys() == {"folds", "test"}
    assert after.metrics["folds"]["srocc"] == before.metrics["folds"]["srocc"]


def test_too_few_groups_and_too_few_folds_are_refused(made, tmp_path):
    features, labels = made
    few = grouped(labels, ["a"] * 10 + ["b"] * 16)
    with pytest.raises(TrainingError, match=r"4 folds need as many groups; the 20 .* are 2 by"):
        train(features, few, config(tmp_path / "run", **QUICK))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="folds = 2 is not allowed: give 3 or more"):
        build(TrainConfig, {"manifest": "m", "cache": "c", "folds": 2}, "options")


# The commands


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    features, labels = made
    write_manifest(tmp_path / "m.csv", labels)
    own = [
        EncodedVideo(r.video_id, features.frames(i), np.arange(float(len(features.frames(i)))))
        for i, r in enumerate(labels)
    ]
    write_shard(tmp_path / "cache", features.spec, own)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result


def test_the_commands_say_between_folds_and_take_such_a_run(home):
    system = ("--aggregator", "avg", "--head", "linear", "--max-epochs", "2", "--folds", "4")
    where = ("--manifest", "m.csv", "--cache", "cache", "--run", "run", "--device", "cpu")
    plan = json.loads(invoke("train", *where, *system, "--dry-run", "--json").stdout)
    assert (plan["folds"], plan["videos_in_folds"], plan["models_to_train"]) == (4, 20, 4)
    shown = invoke("train", *where, *system)
    lines = [line.split()[:3] for line in shown.stdout.splitlines()]
    assert [line[0] for line in lines if line][3:8] == ["fold"] * 4 + ["between"]
    assert "bootstrap interval over groups of videos" in shown.stdout
    assert "in more than one split" in shown.stderr  # groups of the test split
    run = Run.load("run")
    evaluated = json.loads(invoke("evaluate", "run", "--json").stdout)["metrics"]
    assert "interval over groups of videos" in invoke("evaluate", "run").stdout
    assert evaluated["folds"]["groups"] == run.metrics["folds"]["groups"] == 10
    of_dev = json.loads(invoke("evaluate", "run", "--split", "dev", "--json").stdout)["metrics"]
    assert (of_dev["folds"]["n"], of_dev["folds"]["groups"]) == (6, None)
    for name in ("n", "srocc", "mse"):
        assert evaluated["folds"][name] == pytest.approx(run.metrics["folds"][name], abs=1e-6)
    page = Path(invoke("report", "run").stdout.strip()).read_text()
    assert "between folds" in page
    invoke("submission", "run", "--layout", "2021", "-o", "run.csv")
    assert "4 folds by group: a video in one is" in Path("run.csv.sources.txt").read_text()
    found = dict(csv.reader(Path("run.csv").read_text().splitlines()))
    parts = [Run.load(f"run/fold-{n}").predictions().of(list(found)) for n in range(1, 5)]
    mean = np.mean([part.prediction for part in parts], axis=0)
    assert [float(score) for score in found.values()] == pytest.approx(mean.tolist(), abs=1e-6)


def test_new_videos_get_the_mean_of_all_models_with_an_interval_from_the_folds(home, made):
    settings = config(home / "run", **QUICK, manifest=home / "m.csv", cache=home / "cache")
    run = train(*made, settings)
    scorer = Scorer(run)
    assert len(run.regressors()) == 4
    errors = run.predictions().score[:20] - run.predictions().prediction[:20]
    np.testing.assert_allclose(scorer.calibration.errors, errors)
    assert len(scorer.calibration.learned) == 20
    predicted = {each.video_id: each for each in scorer.predict_cache(home / "cache")}
    tested = run.predictions().of([f"v{i}" for i in range(20, 26)])
    for video_id, score in zip(tested.video_id, tested.prediction, strict=True):
        assert predicted[video_id].score == pytest.approx(score, abs=1e-6)
        assert predicted[video_id].interval is not None
    packed = pack_run(run, home / "packed")
    assert "averages a model of each fold" in (packed / "README.md").read_text()
    handed_on = Run.load(packed)
    assert len(handed_on.regressors()) == 4
    assert evaluate_run(handed_on, *made) == evaluate_run(run, *made)
