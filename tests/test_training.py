import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from made_up import config, dataset, marked_moments, records, spec, splits, table
from scipy.stats import spearmanr

from memfeat.baselines import fit_baseline
from memfeat.cache import Cache, EncodedVideo, write_shard
from memfeat.errors import ConfigError, RunError, TrainingError, UnknownNameError
from memfeat.manifest import Manifest
from memfeat.models import AGGREGATORS, HEADS, build_regressor
from memfeat.runs import Run
from memfeat.training import evaluate_run, predict_run, score, select_records, train
from memfeat.training.batches import EpochBatches, FrameBank
from memfeat.training.fitting import BestEpoch, DevResult, learning_rate

CPU = torch.device("cpu")


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def contents(folder):
    """Every file's bytes, but for the one that may differ between identical runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


def noise(time, generator):
    """A video whose score has nothing to do with its frames."""
    return generator.standard_normal((time, 6)), float(generator.uniform(0, 1))


# Batches


def batches(videos, *, shuffle_frames=True, seed=0, names=None, batch_size=2):
    made = table(videos)
    rows = [np.arange(*made.offsets[i : i + 2]) for i in range(len(videos))]
    scores = torch.arange(len(videos)) / 10
    bank = FrameBank(made.values, CPU)
    return EpochBatches(
        bank, rows, names or made.video_ids, scores, batch_size, shuffle_frames, seed
    )


def numbered(*lengths):
    """Frame t of video i is (i, t, ...)."""
    return [np.array([[i, t, 1.0] for t in range(n)]) for i, n in enumerate(lengths)]


def frame_orders(source, epoch):
    """Each video's frame numbers in the order in which an epoch has them."""
    orders = {}
    for batch in source.epoch(epoch):
        for frames, length in zip(batch.frames, batch.lengths, strict=True):
            orders[int(frames[0, 0])] = frames[:length, 1].int().tolist()
    return orders


def test_a_batch_holds_whole_videos_padded_with_zeros_beside_their_scores():
    videos = numbered(3, 5, 2, 4, 1)
    seen = []
    for batch in batches(videos, shuffle_frames=False).epoch(0):
        assert batch.frames.dtype == torch.float32
        assert batch.frames.shape[1] == batch.lengths.max()
        for frames, length, truth in zip(*batch, strict=True):
            video = int(frames[0, 0])
            np.testing.assert_array_equal(frames[:length], videos[video])
            assert not frames[length:].any()
            assert truth.item() == pytest.approx(video / 10)
            seen.append(video)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert seen != [0, 1, 2, 3, 4]


def test_frames_are_permuted_within_their_video_anew_each_epoch():
    source = batches(numbered(30, 30))
    first, second = frame_orders(source, 0), frame_orders(source, 1)
    for orders in (first, second):
        for order in orders.values():
            assert sorted(order) == list(range(30))
            assert order != list(range(30))
    assert first[0] != second[0]
    assert first[0] != first[1]


def test_frame_orders_follow_from_seed_epoch_and_video_alone():
    reference = frame_orders(batches(numbered(9, 9, 9)), 4)
    for disturb in (torch.manual_seed, np.random.seed, random.seed):
        disturb(99)
        assert frame_orders(batches(numbered(9, 9, 9)), 4) == reference
    fewer = batches(numbered(9, 9), names=["v2", "v0"], batch_size=1)
    assert frame_orders(fewer, 4) == {0: reference[2], 1: reference[0]}
    assert frame_orders(batches(numbered(9, 9, 9), seed=1), 4) != reference


def test_frames_keep_their_order_unless_shuffled():
    assert frame_orders(batches(numbered(6, 4), shuffle_frames=False), 3) == {
        0: list(range(6)),
        1: list(range(4)),
    }


def test_a_read_only_table_is_trained_from():
    values = np.ones((4, 3), np.float16)
    values.flags.writeable = False
    frames, lengths = FrameBank(values, CPU).gather([np.array([3, 1]), np.array([0])])
    assert frames.shape == (2, 2, 3)
    assert lengths.tolist() == [2, 1]


def test_scores_come_in_the_tables_order_and_equal_those_of_each_video_alone():
    made, _ = dataset(train=20)
    torch.manual_seed(0)
    regressor = build_regressor(6, "bigru", "mlp", {"hidden": 3, "layers": 2}).train()
    scores = score(regressor, made, batch_size=4)
    assert regressor.training
    regressor.eval()
    for i, predicted in enumerate(scores):
        frames = torch.from_numpy(made.frames(i)).float().unsqueeze(0)
        with torch.inference_mode():
            alone, _ = regressor(frames, torch.tensor([frames.shape[1]]))
        assert predicted == pytest.approx(alone.item(), abs=1e-6)


# The recipe


def test_the_learning_rate_of_epochs_0_5_and_10_is_the_papers(tmp_path):
    made, labels = dataset()
    settings = config(
        tmp_path / "run", aggregator="avg", learning_rate=1e-4, max_epochs=11, patience_epochs=99
    )
    rates = [epoch["learning_rate"] for epoch in history(train(made, labels, settings).folder)]
    expected = [1e-4] * 5 + [9.5e-5] * 5 + [9.025e-5]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_the_recipes_defaults_are_the_papers(tmp_path):
    settings = config(tmp_path).model_copy(update={"learning_rate": 1e-4})
    assert [learning_rate(settings, e) for e in (0, 4, 5, 9)] == pytest.approx(
        [1e-4, 1e-4, 9.5e-5, 9.5e-5]
    )
    assert (settings.batch_size, settings.patience_epochs, settings.monitor) == (8, 5, "l1")


@pytest.mark.parametrize("rate", [1e-4, 3e-3])
def test_adams_first_step_moves_weights_by_the_learning_rate(tmp_path, rate):
    made, labels = dataset()
    settings = config(
        tmp_path / "run", aggregator="avg", learning_rate=rate, max_epochs=1, batch_size=99
    )
    regressor = train(made, labels, settings).regressors()[0]
    torch.manual_seed(0)
    start = build_regressor(6, "avg", "mlp", {}, {"hidden": [6, 4]})
    moved = torch.cat(
        [
            (new - old).abs().flatten()
            for new, old in zip(regressor.parameters(), start.parameters(), strict=True)
        ]
    )
    assert moved.max().item() == pytest.approx(rate, rel=1e-2)


@pytest.mark.parametrize("monitor", ["l1", "srocc", "plcc"])
def test_training_stops_five_epochs_after_the_best_which_is_restored(tmp_path, monitor):
    made, labels = dataset(rule=noise)
    settings = config(
        tmp_path / "run", aggregator="avg", monitor=monitor, learning_rate=0.05, max_epochs=100
    )
    run = train(made, labels, settings)
    epochs = history(run.folder)
    watched = [epoch[f"dev_{monitor}"] for epoch in epochs]
    best = int(np.argmin(watched) if monitor == "l1" else np.argmax(watched))
    assert len(epochs) == best + 6 < 100
    assert run.provenance["best_epoch"] == best
    assert run.provenance["stopped_because"] == f"5 epochs without improvement of dev {monitor}"
    assert [epoch["epoch"] for epoch in epochs if epoch["best"]][-1] == best
    predicted = run.predictions()
    dev = np.array(predicted.split) == "dev"
    error = np.abs(predicted.score - predicted.prediction)[dev].mean()
    assert error == pytest.approx(epochs[best]["dev_l1"], abs=1e-6)
    assert error != pytest.approx(epochs[-1]["dev_l1"], abs=1e-6)


def test_all_epochs_are_used_while_dev_improves(tmp_path):
    made, labels = dataset()
    run = train(made, labels, config(tmp_path / "run", aggregator="avg", learning_rate=1e-5))
    assert len(history(run.folder)) == 3
    assert run.provenance["stopped_because"] == "all 3 epochs done"


def test_only_a_strictly_better_epoch_is_an_improvement():
    best = BestEpoch("l1", 2)
    told = [
        best.improves(i, DevResult(l1, None, None)) for i, l1 in enumerate([3.0, 2.0, 2.0, 2.5])
    ]
    assert told == [True, True, False, False]
    assert best.epoch == 1
    assert not best.stops(2)
    assert best.stops(3)


def test_an_undefined_correlation_is_no_improvement():
    best = BestEpoch("srocc", 5)
    results = [None, -0.9, None, -0.8]
    told = [best.improves(i, DevResult(0.1, None, value)) for i, value in enumerate(results)]
    assert told == [True, True, False, True]


def test_a_correlation_that_is_never_defined_ends_training_with_the_reason(tmp_path):
    made, labels = dataset()
    labels = [r.model_copy(update={"score": 0.7}) if r.split == "dev" else r for r in labels]
    settings = config(tmp_path / "run", aggregator="avg", monitor="srocc", max_epochs=50)
    run = train(made, labels, settings)
    assert len(history(run.folder)) == 6
    assert run.provenance["best_epoch"] == 0
    assert run.provenance["stopped_because"].endswith("dev srocc, which was never defined")


def test_constant_scores_leave_correlations_undefined_with_the_reason(tmp_path):
    made, labels = dataset()
    labels = [record.model_copy(update={"score": 0.7}) for record in labels]
    metrics = train(made, labels, config(tmp_path / "run")).metrics
    for split in ("train", "dev", "test"):
        assert metrics[split]["srocc"] is None
        assert "constant" in metrics[split]["undefined"]
        assert metrics[split]["mse"] >= 0


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_videos_of_one_frame_are_trained_on(tmp_path, aggregator):
    generator = np.random.default_rng(0)
    made = table([generator.standard_normal((1, 6)) for _ in range(9)])
    labels = records(generator.uniform(0, 1, 9), splits(4, 3, 2))
    settings = config(tmp_path / "run", aggregator=aggregator, max_epochs=1)
    assert np.isfinite(train(made, labels, settings).predictions().prediction).all()


def test_weight_decay_shrinks_weights(tmp_path):
    made, labels = dataset()
    norms = []
    for decay in (0.0, 10.0):
        settings = config(tmp_path / str(decay), aggregator="avg", weight_decay=decay, max_epochs=9)
        regressor = train(made, labels, settings).regressors()[0]
        norms.append(sum(p.square().sum().item() for p in regressor.parameters()))
    assert norms[1] < norms[0]


# What is learnt


LEARN = {
    "aggregator": "bigru",
    "aggregators": {"bigru": {"hidden": 8, "layers": 2, "dropout": 0.0}},
    "heads": {"mlp": {"hidden": [16, 8]}},
    "learning_rate": 0.01,
    "batch_size": 16,
    "max_epochs": 12,
}


def held_out_srocc(predicted):
    test = np.array(predicted.split) == "test"
    return spearmanr(predicted.score[test], predicted.prediction[test]).statistic


def test_attention_learns_which_moments_count_where_averages_cannot(tmp_path):
    made, labels = dataset(train=320, dev=80, test=120)
    run = train(made, labels, config(tmp_path / "run", **LEARN))
    assert held_out_srocc(run.predictions()) > 0.9
    assert held_out_srocc(fit_baseline("ridge", made, labels).predictions) < 0.75
    frames = torch.from_numpy(np.stack([marked_moments(9, np.random.default_rng(5))[0]])).float()
    weights = run.regressors()[0](frames, torch.tensor([9])).weights[0].detach().abs()
    marked = frames[0, :, 0] > 0
    assert weights[marked].mean() > 3 * weights[~marked].mean()


def test_nothing_is_learnt_from_shuffled_scores(tmp_path):
    made, labels = dataset(train=320, dev=80, test=120)
    run = train(made, labels, config(tmp_path / "run", **LEARN, shuffle_labels=True))
    assert abs(held_out_srocc(run.predictions())) < 0.3
    assert run.predictions().score.tolist() == [record.score for record in labels]
    assert any(line.startswith("CONTROL") for line in run.sources())


# Determinism


def test_the_same_seed_gives_the_same_bytes_whatever_the_global_generators_say(
    tmp_path, monkeypatch
):
    made, labels = dataset()
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        torch.manual_seed(len(written))
        np.random.seed(len(written))
        train(made, labels, config("run", seeds=(3, 4)))
        written.append(contents(tmp_path / name / "run"))
    assert written[0] == written[1]
    assert {"config.json", "seed-3/model.safetensors", "seed-4/history.jsonl"} <= set(written[0])
    assert written[0]["seed-3/model.safetensors"] != written[0]["seed-4/model.safetensors"]


def test_the_callers_generators_and_threads_are_left_alone(tmp_path):
    made, labels = dataset()
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist()
    torch.manual_seed(1)
    np.random.seed(1)
    seen = []
    settings = config(tmp_path / "run", threads=threads + 1)
    run = train(made, labels, settings, on_epoch=lambda _: seen.append(torch.get_num_threads()))
    run.regressors()
    assert seen == [threads + 1] * 3
    assert torch.get_num_threads() == threads
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist()) == expected


# Several seeds, and going on where an earlier run left off


def reports(made, labels, settings):
    told = []
    run = train(made, labels, settings, on_epoch=told.append)
    return run, told


def test_more_seeds_are_added_without_training_the_others_again(tmp_path, monkeypatch):
    made, labels = dataset()
    for name in ("grown", "at_once"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "grown":
            train(made, labels, config("run", seeds=(0, 1)))
        _, told = reports(made, labels, config("run", seeds=(0, 1, 2)))
        assert {r.seed for r in told} == ({2} if name == "grown" else {0, 1, 2})
    assert contents(tmp_path / "grown") == contents(tmp_path / "at_once")


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_complete_run_is_kept_as_it_is(tmp_path, seeds):
    made, labels = dataset()
    settings = config(tmp_path / "run", seeds=seeds)
    train(made, labels, settings)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    _, told = reports(made, labels, settings)
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_an_interrupted_run_is_incomplete_and_then_ends_like_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    made, labels = dataset()
    monkeypatch.chdir(tmp_path)
    settings = config("run", seeds=(0, 1))

    def interrupt(report):
        if (report.seed, report.epoch) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, labels, settings, on_epoch=interrupt)
    with pytest.raises(RunError, match="not a complete run"):
        Run.load(tmp_path / "run")
    _, told = reports(made, labels, settings)
    assert {r.seed for r in told} == {1}
    resumed = contents(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    train(made, labels, settings)
    assert contents(tmp_path / "run") == resumed


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"learning_rate": 0.5}, "learning_rate is 0.003 there and 0.5 here"),
        ({}, {"aggregator": "avg"}, "aggregator is 'bigru' there and 'avg' here"),
        (
            {},
            {"aggregators": {"bigru": {"hidden": 4}}},
            "aggregators is {'bigru': {'hidden': 3, .* there and {'bigru': {'hidden': 4,",
        ),
        ({"seeds": (0, 1)}, {"seeds": (0, 1, 2), "monitor": "plcc"}, "monitor is 'l1' there"),
        ({}, {"seeds": (0, 1)}, r"seeds is \[0\] there and \[0, 1\] here"),
        ({"seeds": (0, 1)}, {}, r"seeds is \[0, 1\] there and \[0\] here"),
    ],
)
def test_a_folder_with_other_settings_is_refused_before_training(tmp_path, first, second, message):
    made, labels = dataset()
    train(made, labels, config(tmp_path / "run", **first, max_epochs=1))
    before = contents(tmp_path)
    with pytest.raises(RunError, match=message) as caught:
        train(made, labels, config(tmp_path / "run", **second, max_epochs=1))
    assert "another folder with --run, or delete" in str(caught.value)
    assert contents(tmp_path) == before


def test_a_folder_trained_on_other_data_is_refused(tmp_path):
    made, labels = dataset()
    settings = config(tmp_path / "run", aggregator="avg")
    train(made, labels, settings)
    changed = [labels[0].model_copy(update={"score": 0.123}), *labels[1:]]
    other_spec = dataclasses.replace(made, spec=spec(6, weights_sha256="1" * 64))
    other_values = dataclasses.replace(made, values=made.values + np.float16(1))
    for table_, labels_, message in (
        (made, changed, "its videos, splits, scores or features differ"),
        (other_values, labels, "its videos, splits, scores or features differ"),
        (other_spec, labels, "its features are of made-up with RANDOM WEIGHTS"),
    ):
        with pytest.raises(RunError, match=message):
            train(table_, labels_, settings)


def test_several_seeds_are_summed_up_by_mean_spread_and_mean_prediction(tmp_path):
    made, labels = dataset(dev=8)
    run = train(made, labels, config(tmp_path / "run", seeds=(0, 1, 5), head="linear"))
    members = [Run.load(folder) for folder in run.members]
    assert [member.folder.name for member in members] == ["seed-0", "seed-1", "seed-5"]
    each = [member.predictions() for member in members]
    dev = np.array(each[0].split) == "dev"
    srocc = [spearmanr(p.score[dev], p.prediction[dev]).statistic for p in each]
    mse = [np.mean((p.score[dev] - p.prediction[dev]) ** 2) for p in each]
    metrics = run.metrics["dev"]
    assert metrics["srocc"] == pytest.approx(np.mean(srocc))
    assert metrics["srocc_std"] == pytest.approx(np.std(srocc, ddof=1))
    assert metrics["mse"] == pytest.approx(np.mean(mse))
    assert metrics["mse_std"] == pytest.approx(np.std(mse, ddof=1))
    assert metrics["seeds"] == [0, 1, 5]
    mean = np.mean([p.prediction for p in each], axis=0)
    np.testing.assert_allclose(run.predictions().prediction, mean, atol=1e-15)
    assert len(run.regressors()) == 3


# Input that cannot be trained on


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_split_without_scored_videos_is_refused(tmp_path, split):
    made, labels = dataset()
    without = [record for record in labels if record.split != split]
    withheld = [
        record.model_copy(update={"score": None}) if record.split == split else record
        for record in labels
    ]
    count = sum(record.split == split for record in labels)
    for labels_, message in (
        (without, f"of the {len(without)} videos with features, the {split} split has no video"),
        (withheld, f"the {split} split has {count} videos, none with a score"),
        ([], "of the 0 videos with features, the train split has no video"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(made, labels_, config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_videos_with_withheld_scores_are_predicted_but_not_trained_on(tmp_path):
    made, labels = dataset()
    hidden = {0, 14, 20}
    withheld = [
        record.model_copy(update={"score": None}) if i in hidden else record
        for i, record in enumerate(labels)
    ]
    one = train(made, withheld, config(tmp_path / "one"))
    kept = [i for i in range(len(labels)) if i not in hidden]
    other = train(made, [labels[i] for i in kept], config(tmp_path / "other"))
    predicted = one.predictions()
    assert np.flatnonzero(np.isnan(predicted.score)).tolist() == sorted(hidden)
    assert np.isfinite(predicted.prediction).all()
    files = [contents(run.folder) for run in (one, other)]
    assert files[0]["model.safetensors"] == files[1]["model.safetensors"]
    assert one.metrics == other.metrics


def test_videos_without_a_record_and_records_without_features_go_unused(tmp_path):
    made, labels = dataset()
    stranger = labels[0].model_copy(update={"video_id": "stranger"})
    run = train(made, [stranger, *labels[1:]], config(tmp_path / "run"))
    assert run.predictions().video_id == made.video_ids[1:]


def test_features_that_are_no_numbers_end_training_with_advice(tmp_path):
    made, labels = dataset()
    made.values[5, 2] = np.nan
    with pytest.raises(
        TrainingError, match=r"seed 0 diverged: in epoch 0.*the loss is nan.*verify"
    ):
        train(made, labels, config(tmp_path / "run", aggregator="avg"))
    with pytest.raises(RunError, match="not a complete run"):
        Run.load(tmp_path / "run")


def test_a_run_folder_that_cannot_be_written_shows_before_training(tmp_path):
    made, labels = dataset()
    (tmp_path / "run").write_text("a file")
    told = []
    with pytest.raises(RunError, match=r"cannot write to run folder .*run: .*another with --run"):
        train(made, labels, config(tmp_path / "run"), on_epoch=told.append)
    assert told == []


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device 'gpu' is not one of: auto, cpu, cuda"),
        ("mps", "device 'mps' is not one of: auto, cpu, cuda"),
        ("cuda:99", r"device 'cuda:99' is not there: torch sees \d+ GPUs"),
    ],
)
def test_a_device_that_is_not_there_is_refused(tmp_path, device, message):
    made, labels = dataset()
    with pytest.raises(ConfigError, match=message):
        train(made, labels, config(tmp_path / "run", device=device))


def test_names_and_options_are_checked_before_anything_is_written(tmp_path):
    made, labels = dataset()
    for changes, error, message in (
        ({"aggregator": "nope"}, UnknownNameError, "unknown aggregator 'nope'.*bigru-pool"),
        ({"head": "nope"}, UnknownNameError, "unknown head 'nope'.*linear, mlp"),
        ({"heads": {"mpl": {}}}, UnknownNameError, "unknown head 'mpl'. Did you mean 'mlp'"),
        ({"heads": {"mlp": {"hidden": [0]}}}, ConfigError, "head 'mlp': hidden.0 = 0 is not"),
    ):
        with pytest.raises(error, match=message):
            train(made, labels, config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("head", list(HEADS))
def test_the_config_written_holds_every_option_of_the_model_used(tmp_path, head):
    made, labels = dataset()
    train(made, labels, config(tmp_path / "run", aggregator="bigru-pool", head=head, max_epochs=1))
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["aggregators"] == {"bigru-pool": {"hidden": 3, "layers": 2, "dropout": 0.2}}
    assert written["heads"] == {head: {"hidden": [6, 4]} if head == "mlp" else {}}


# Which videos of a manifest can be used


@pytest.fixture
def cache(tmp_path):
    videos = [
        EncodedVideo(name, np.ones((frames, 6), np.float16), np.arange(frames) / 25, **changes)
        for name, frames, changes in (
            ("v0", 3, {}),
            ("v1", 2, {"status": "partial", "reason": "truncated"}),
            ("v2", 0, {"status": "failed", "reason": "missing"}),
            ("extra", 1, {}),
        )
    ]
    write_shard(tmp_path / "cache", spec(6), videos)
    return Cache.open(tmp_path / "cache")


def test_failed_and_partial_videos_and_strangers_are_left_out_and_named(tmp_path, cache):
    manifest = Manifest(tmp_path / "m.csv", tuple(records([0.1, 0.2, 0.3], splits(3, 0, 0))))
    selection = select_records(manifest, cache)
    assert [record.video_id for record in selection.records] == ["v0"]
    assert [note.partition(":")[0] for note in selection.notes][:2] == [
        "1 partial videos are left out",
        "1 failed videos are left out",
    ]
    assert "1 videos" in selection.notes[2]
    assert "'extra'" in selection.notes[2]
    whole = select_records(manifest, cache, partial=True)
    assert [record.video_id for record in whole.records] == ["v0", "v1"]


def test_videos_that_were_never_extracted_are_an_error_with_the_command(tmp_path, cache):
    manifest = Manifest(tmp_path / "my m.csv", tuple(records([0.5] * 9, splits(9, 0, 0))))
    with pytest.raises(TrainingError) as caught:
        select_records(manifest, cache)
    message = str(caught.value)
    assert message.startswith("6 of the 9 videos of ")
    assert "'v3', 'v4', 'v5' and 3 more" in message
    assert f"memfeat extract --manifest '{tmp_path / 'my m.csv'}' --cache" in message
    assert message.endswith("--encoder made-up")


# Evaluation of a finished run


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_evaluating_a_run_on_its_own_data_repeats_its_metrics(tmp_path, seeds):
    made, labels = dataset()
    run = train(made, labels, config(tmp_path / "run", seeds=seeds))
    metrics = evaluate_run(run, made, labels)
    assert list(metrics) == ["train", "dev", "test"]
    for split, found in metrics.items():
        for name, value in json.loads(json.dumps(found.as_dict())).items():
            assert value == pytest.approx(run.metrics[split][name], abs=1e-6), (split, name)


def test_a_run_is_evaluated_on_another_datasets_videos(tmp_path):
    made, labels = dataset(train=60, dev=20)
    run = train(made, labels, config(tmp_path / "run"))
    other, other_labels = dataset(0, 0, 30, seed=9)
    metrics = evaluate_run(run, other, other_labels)
    predicted = score(run.regressors()[0], other)
    truth = np.array([record.score for record in other_labels])
    assert list(metrics) == ["test"]
    assert metrics["test"].n == 30
    assert metrics["test"].mse == pytest.approx(np.mean((truth - predicted) ** 2))
    assert metrics["test"].bias == pytest.approx(np.mean(predicted - truth))


def test_a_run_refuses_features_of_another_encoder_naming_field_and_values(tmp_path):
    made, labels = dataset()
    run = train(made, labels, config(tmp_path / "run", max_epochs=1))
    other = dataclasses.replace(made, spec=spec(6, activation="quickgelu"))
    with pytest.raises(RunError, match="activation is 'quickgelu', not 'none'"):
        evaluate_run(run, other, labels)
    with pytest.raises(TrainingError, match="none of the 0 videos has features among the 24"):
        predict_run(run, made, [])
