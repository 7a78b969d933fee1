"""How far to trust a score: intervals, percentiles, and what is unlike the training videos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import mahalanobis
from scipy.stats import percentileofscore
from skimage import data
from sklearn.datasets import load_sample_images

from memfeat.encoders import create_encoder
from memfeat.errors import RunError
from memfeat.prediction.trust import Unusual
from memfeat.runs import Calibration, FamiliarVideos, Predictions, shown_seconds
from memfeat.training.familiar import sum_up

RUNS, NEW = 200, 200  # simulated runs, and new videos for each


def predictions(truth, predicted, split="dev", first=0):
    ids = tuple(f"v{first + i}" for i in range(len(truth)))
    return Predictions(ids, (split,) * len(ids), np.asarray(truth), np.asarray(predicted))


def simulated(generator, videos):
    """Scores, and the predictions of an ensemble that errs more on memorable videos."""
    truth = generator.beta(6, 3, videos)
    error = generator.standard_t(4, videos) * (0.03 + 0.05 * truth)
    return truth, 0.3 + 0.6 * truth + error


@pytest.mark.parametrize("videos", [60, 400])
def test_intervals_of_200_simulated_runs_hold_nine_tenths_of_new_scores(videos):
    generator, held = np.random.default_rng(0), []
    for _ in range(RUNS):
        calibration = Calibration.of([predictions(*simulated(generator, videos))])
        for truth, predicted in zip(*simulated(generator, NEW), strict=True):
            low, high = calibration.interval(predicted)
            held.append(low <= truth <= high)
    assert 0.88 < np.mean(held) < 0.92


def test_intervals_of_differences_hold_nine_tenths_of_new_ones():
    generator, held = np.random.default_rng(1), []
    for _ in range(RUNS):
        margin = Calibration.of([predictions(*simulated(generator, 300))]).difference_margin
        truth, predicted = simulated(generator, NEW)
        held.append(np.abs(np.diff(truth - predicted)[::2]) <= margin)
    assert 0.88 < np.mean(held) < 0.92


@pytest.mark.parametrize(("videos", "known"), [(8, False), (9, True)])
def test_too_few_dev_videos_give_no_interval(videos, known):
    calibration = Calibration.of([predictions(np.full(videos, 0.5), np.linspace(0.3, 0.6, videos))])
    assert (calibration.interval(0.5) is not None) == known
    assert calibration.difference_margin is None


def test_the_margin_is_the_error_of_that_rank_and_intervals_stay_in_0_to_1():
    errors = np.random.default_rng(2).permutation(np.arange(1, 20)) / 100  # 19: the 18th counts
    calibration = Calibration.of([predictions(np.full(19, 0.5), 0.5 - errors)])
    assert calibration.margin == pytest.approx(0.18)
    assert calibration.interval(0.9) == pytest.approx((0.72, 1.0))
    assert calibration.interval(0.1) == pytest.approx((0.0, 0.28))


def test_only_the_dev_split_gives_intervals_and_only_the_train_split_percentiles():
    dev = predictions([0.5] * 9, [0.4] * 9)
    train = predictions([0.2, 0.4, 0.4, 0.8], [0.9] * 4, "train", first=9)
    test = predictions([np.nan, 1.0], [0.0, 0.0], "test", first=13)
    merged = Predictions(
        *(sum((each[i] for each in (dev, train, test)), ()) for i in (0, 1)),
        *(np.concatenate([each[i] for each in (dev, train, test)]) for i in (2, 3)),
    )
    calibration = Calibration.of([merged])
    assert calibration.margin == pytest.approx(0.1)
    for score in (0.1, 0.4, 0.41, 0.9):
        expected = percentileofscore([0.2, 0.4, 0.4, 0.8], score, kind="mean")
        assert calibration.percentile(score) == pytest.approx(expected)


def test_several_runs_are_calibrated_on_their_mean_over_the_dev_videos_that_all_have():
    one = predictions(np.full(12, 0.5), np.full(12, 0.3))
    other = predictions(np.full(12, 0.5), np.full(12, 0.6), first=2)
    calibration = Calibration.of([one, other])
    assert len(calibration.errors) == 10
    assert calibration.margin == pytest.approx(0.05)


def features(videos, dim=12, seed=0):
    generator = np.random.default_rng(seed)
    mixing = np.diag(np.linspace(1, 3, dim)) + 0.05 * np.random.default_rng(99).normal(
        size=(dim, dim)
    )
    return generator.normal(size=(videos, dim)) @ mixing + 3


def summary(train, dev, seconds=(2.0, 3.0), rates=(25.0,), aspects=(4 / 3, 16 / 9, 0.0)):
    return sum_up(train, dev, np.array(seconds), np.array(rates), np.array(aspects))


def test_distances_are_mahalanobis_where_every_direction_is_kept():
    train = features(400)
    found = summary(train, features(100, seed=1))
    inverse = np.linalg.inv(np.cov(train.T))
    new = features(5, seed=2)
    expected = [mahalanobis(each, train.mean(0), inverse) for each in new]
    assert found.distance(new) == pytest.approx(expected, rel=1e-3)


def test_with_few_directions_the_rest_counts_by_its_mean_variance():
    generator = np.random.default_rng(0)
    loadings = 5 * generator.normal(size=(2, 300))
    train = generator.normal(size=(20, 2)) @ loadings + generator.normal(size=(20, 300))
    found = summary(train, train[:5])
    centred = train - train.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    variances = values**2 / 19
    residual = variances[2:].sum() / 298
    fresh = generator.normal(size=(4, 2)) @ loadings + generator.normal(size=(4, 300))
    new = fresh - train.mean(0)
    along = (new @ vectors[:2].T) ** 2
    rest = (new**2).sum(1) - along.sum(1)
    expected = np.sqrt((along / variances[:2]).sum(1) + rest / residual)
    assert found.directions.shape == (2, 300)
    assert found.distance(fresh) == pytest.approx(expected, rel=1e-3)


def test_one_in_a_hundred_familiar_videos_is_called_unfamiliar_and_all_far_ones():
    known = summary(features(800), features(800, seed=1))
    fresh = known.distance(features(4000, seed=2))
    assert 0.003 < np.mean(fresh > known.limit) < 0.03
    shares = [known.share_beyond(distance) for distance in fresh]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert known.share_beyond(0.0) == 1
    assert known.share_beyond(1e6) == 0
    assert (known.distance(features(50, seed=3) + 30) > known.limit).all()


def unusual(video, percentile=50.0, seconds=2.5, rate=25.0, size=(640, 360), known=None):
    known = known or summary(features(300), features(200, seed=1))
    return Unusual.of(known, np.asarray(video), seconds, rate, percentile, frame_size=size)


def test_a_typical_video_is_familiar_and_has_no_cautions():
    found = unusual(features(300).mean(0))
    assert found.familiarity > 0.99
    assert found.cautions == {}


@pytest.mark.parametrize(
    ("percentile", "codes"), [(50.0, ["unfamiliar"]), (99.0, ["unfamiliar", "extreme"])]
)
def test_an_unfamiliar_video_is_named_and_marked_if_its_score_is_extreme(percentile, codes):
    found = unusual(features(300).mean(0) + 40, percentile)
    assert found.familiarity == 0
    assert list(found.cautions) == codes
    assert "times as far" in found.cautions["unfamiliar"]
    assert unusual(features(300).mean(0), 100.0).cautions == {}  # familiar: a finding


@pytest.mark.parametrize(
    ("changes", "caution"),
    [
        ({"seconds": 40.0}, ("length", "it lasts 40.0 s, and the training videos 2.0 to 3.0 s")),
        ({"seconds": 0.5}, ("length", "it lasts 0.5 s, and the training videos 2.0 to 3.0 s")),
        ({"rate": 60.0}, ("frame_rate", "it has 60.0 frames/s, and the training videos 25.0")),
        (
            {"size": (1080, 1920)},
            (
                "shape",
                "its frames are 0.6 times as wide as high, and those of the training videos 1.3 to "
                "1.8 times",
            ),
        ),
        ({"size": (480, 480)}, None),
        ({"size": (0, 0)}, None),
        ({"rate": 0.0}, None),
        ({"seconds": 5.9}, None),
    ],
)
def test_a_length_frame_rate_or_shape_twice_beyond_the_range_is_named(changes, caution):
    found = unusual(features(300).mean(0), **changes)
    assert found.cautions == (dict([caution]) if caution else {})


def test_a_run_of_an_early_version_knows_of_no_familiarity():
    assert Unusual.of(None, np.zeros(3), 2.0, 25.0, 50.0, frame_size=(9, 16)) == Unusual(None, {})


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_summary_can_be_made_of_any_number_of_videos_that_may_all_be_equal(count):
    found = summary(np.full((count, 4), 0.5), np.full((1, 4), 0.25))
    assert np.isfinite(found.distance(np.full((1, 4), 0.75))).all()
    assert found.distance(np.full((1, 4), 0.5))[0] == pytest.approx(0, abs=1e-3)


def test_a_summary_is_read_back_and_the_same_twice_over(tmp_path):
    first = summary(features(120, dim=50), features(30, dim=50, seed=1))
    first.write(tmp_path)
    content = (tmp_path / "familiar.safetensors").read_bytes()
    found = FamiliarVideos.read(tmp_path)
    for name, value in vars(first).items():
        assert np.array_equal(getattr(found, name), value), name
    summary(features(120, dim=50), features(30, dim=50, seed=1)).write(tmp_path)
    assert (tmp_path / "familiar.safetensors").read_bytes() == content
    assert FamiliarVideos.read(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", np.full(5, np.nan, np.float32)),
        ("directions", np.zeros((3, 4), np.float32)),
        ("variances", np.zeros(2, np.float32)),
        ("residual", np.ones((), np.float32)),
        ("distances", np.linspace(1, 0, 201, dtype=np.float32)),
        ("seconds", np.ones(2)),
    ],
)
def test_a_damaged_summary_is_refused(name, value, tmp_path):
    summary(features(20, dim=5), features(5, dim=5)).write(tmp_path)
    path = tmp_path / "familiar.safetensors"
    save_file(load_file(path) | {name: value}, path)
    with pytest.raises(RunError, match=r"familiar\.safetensors is damaged"):
        FamiliarVideos.read(tmp_path)
    path.write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"familiar\.safetensors is damaged"):
        FamiliarVideos.read(tmp_path)


def test_a_summary_from_before_frames_had_sizes_is_read_and_warns_of_no_shape(tmp_path):
    summary(features(20, dim=5), features(5, dim=5)).write(tmp_path)
    path = tmp_path / "familiar.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "aspects"}, path)
    found = FamiliarVideos.read(tmp_path)
    assert found.aspects.tolist() == [0, 0]
    mean = features(20, dim=5).mean(0)
    assert Unusual.of(found, mean, 2.5, 25.0, 50.0, frame_size=(9, 160)).cautions == {}


def test_no_row_of_a_training_video_is_in_the_summary():
    train = features(100, dim=40)
    kept = np.concatenate([np.ravel(each) for each in vars(summary(train, train[:5])).values()])
    assert not np.isin(train.astype(np.float32), kept).any()
    assert kept.size < train.size


@pytest.mark.parametrize(
    ("times", "covers", "seconds"),
    [
        ([], [], 0.0),
        ([3.0], [1], 0.0),
        ([0.0, 0.1, 0.2], [1, 1, 1], 0.3),
        ([0.0, 0.3, 0.6], [3, 3, 2], 0.8),
    ],
)
def test_a_video_is_shown_until_its_last_frame_ends(times, covers, seconds):
    assert shown_seconds(np.array(times), np.array(covers, np.int32)) == pytest.approx(seconds)


def test_a_changed_summary_changes_what_is_familiar():
    known = summary(features(300), features(200, seed=1))
    wide = replace(known, distances=known.distances * 100)
    assert unusual(features(300).mean(0) + 40, known=wide).cautions == {}


def test_noise_black_frames_and_ramps_are_unfamiliar_to_a_run_of_photographs():
    encoder = create_encoder("efficientnet-lite0")
    photos = [data.astronaut(), data.coffee(), data.chelsea(), *load_sample_images().images]
    generator, size = np.random.default_rng(0), encoder.image_size

    def crop(number):
        photo = photos[number % len(photos)]
        top, left = (generator.integers(photo.shape[axis] - size) for axis in (0, 1))
        return photo[top : top + size, left : left + size]

    def encoded(images):
        return encoder.encode(torch.from_numpy(np.stack(images))).numpy().astype(np.float64)

    crops = encoded([crop(number) for number in range(50)])
    known = summary(crops[:30], crops[30:40])
    assert np.mean(known.distance(crops[40:]) > known.limit) <= 0.2
    ramp = np.broadcast_to(np.linspace(0, 255, size)[:, None], (size, size, 3))
    coarse = generator.integers(0, 256, (size // 16, size // 16, 3)).repeat(16, 0).repeat(16, 1)
    noise = generator.integers(0, 256, (size, size, 3))
    odd = [noise, coarse, ramp, np.zeros_like(noise), np.full_like(noise, 255)]
    found = known.distance(encoded([each.astype(np.uint8) for each in odd]))
    assert (found > known.limit).all()


def test_the_margin_of_differences_is_a_quantile_over_all_pairings():
    errors = np.random.default_rng(4).normal(size=60)
    calibration = Calibration.of([predictions(np.full(60, 0.5), 0.5 - errors)])
    pairs = [abs(errors[i] - errors[(i + shift) % 60]) for shift in range(1, 31) for i in range(60)]
    rank = 28  # of thirty pairs: nine tenths of thirty-one, rounded up
    assert calibration.difference_margin == pytest.approx(np.sort(pairs)[1800 * rank // 30 - 1])


def test_what_distances_are_usual_is_learned_from_videos_that_the_summary_has_not_seen():
    train, dev = features(100), features(20, seed=1) + 8
    found = summary(train, dev)
    unseen = []
    for part in range(5):
        others = summary(np.delete(train, np.s_[part::5], axis=0), dev)
        unseen.extend(others.distance(train[part::5]))
    expected = np.quantile([*found.distance(dev), *unseen], np.linspace(0, 1, 201))
    assert found.distances == pytest.approx(expected, rel=1e-4)
