"""Caches of several tokens a frame: who sees which, and attention over space and time."""

import numpy as np
import pytest
import torch
from made_up import config, records, splits, table
from torch import nn

from memfeat.cache import EncodedVideo, write_shard
from memfeat.errors import ConfigError
from memfeat.models import AGGREGATORS, SpatialAttention, build_regressor
from memfeat.prediction import Predictor
from memfeat.training import Examples, predict_run, train

DIM, TOKENS, VIDEOS = 4, 5, 12
OTHERS = [name for name in AGGREGATORS if not AGGREGATORS.get(name).of_tokens]


def videos():
    """Clips of 3 to 8 frames of one class token and a grid of 2 x 2, each (time, 5 * dim)."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal((3 + i % 6, TOKENS * DIM)) for i in range(VIDEOS)]


def labels():
    return records(np.linspace(0.2, 0.9, VIDEOS), splits(7, 3, 2))


def spatial():
    torch.manual_seed(0)
    module = build_regressor(DIM, "spatial", "linear", {"hidden": 3, "layers": 2}).eval()
    (attention,) = module.aggregators
    nn.init.normal_(attention.look.weight)  # far from a plain mean
    return attention


@torch.no_grad()
def test_each_frame_is_its_tokens_softmax_weighted_and_each_video_equation_1_of_them():
    module = spatial()
    look = module.look.weight[0].double().numpy()
    oracle = nn.GRU(DIM, 3, 2, batch_first=True, bidirectional=True)
    oracle.load_state_dict(module.gru.state_dict())
    linear = module.weight.weight[0].double().numpy(), module.weight.bias.double().numpy()
    for video in videos():
        tokens = video.reshape(len(video), TOKENS, DIM)
        shares = np.exp(tokens @ look)
        shares /= shares.sum(1, keepdims=True)
        assert shares.max() > 0.6
        frames = (shares[:, :, None] * tokens).sum(1)
        states = oracle(torch.from_numpy(frames[None]).float())[0][0].double().numpy()
        w = states @ linear[0] + linear[1]
        vector, weights = module(torch.from_numpy(video[None]).float(), torch.tensor([len(video)]))
        np.testing.assert_allclose(weights[0].numpy(), w, atol=1e-5)
        np.testing.assert_allclose(vector[0].numpy(), w @ frames / len(video), atol=1e-5)


@pytest.mark.parametrize("aggregator", OTHERS)
def test_who_knows_nothing_of_tokens_gives_what_it_gives_on_the_class_token_alone(
    tmp_path, aggregator
):
    made = table(videos(), tokens="cls+2x2")
    alone = table([video[:, :DIM] for video in videos()])
    runs = [
        train(each, labels(), config(tmp_path / name, aggregator=aggregator))
        for name, each in (("tokens", made), ("cls", alone))
    ]
    files = [(run.folder / "model.safetensors").read_bytes() for run in runs]
    assert files[0] == files[1]
    assert np.array_equal(*(run.predictions().prediction for run in runs))


def test_averages_are_of_the_class_token():
    made = table(videos(), tokens="cls+2x2")
    (means,) = Examples.join(made, labels()).means
    np.testing.assert_allclose(means[0], videos()[0][:, :DIM].mean(0), atol=1e-3)


def test_attention_over_tokens_trains_and_scores_what_it_trained(tmp_path):
    made = table(videos(), tokens="cls+2x2")
    run = train(made, labels(), config(tmp_path / "run", aggregator="spatial", seeds=(0, 1)))
    seeds = predict_run(run, made, labels())
    mean = np.mean([each.prediction for each in seeds], axis=0)
    np.testing.assert_allclose(mean, run.predictions().prediction, atol=1e-7)
    assert isinstance(run.regressors()[0].aggregators[0], SpatialAttention)
    flat = table(videos(), tokens="cls+2x2")
    flat.values[:, DIM:] = 0  # the patches matter
    assert np.abs(predict_run(run, flat, labels())[0].prediction - seeds[0].prediction).max() > 1e-6


def test_a_cache_of_class_tokens_alone_is_refused_with_the_command(tmp_path):
    alone = table([video[:, :DIM] for video in videos()])
    with pytest.raises(ConfigError, match=r"'spatial' attends .* cache holds .*--tokens cls\+2x2"):
        train(alone, labels(), config(tmp_path / "run", aggregator="spatial"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_a_cache_of_tokens_is_scored_as_training_scored_it(tmp_path, aggregator):
    made = table(videos(), tokens="cls+2x2")
    encoded = [
        EncodedVideo(name, made.frames(index), np.arange(len(made.frames(index))) / 25)
        for index, name in enumerate(made.video_ids)
    ]
    write_shard(tmp_path / "cache", made.spec, encoded)
    run = train(made, labels(), config(tmp_path / "run", aggregator=aggregator, seeds=(0, 1)))
    columns = run.predictions()
    expected = dict(zip(columns.video_id, columns.prediction, strict=True))
    found = {each.video_id: each for each in Predictor(run).predict_cache(tmp_path / "cache")}
    assert {name: each.score for name, each in found.items()} == pytest.approx(expected, abs=1e-6)
    assert all(each.effects.shape == each.pts_seconds.shape for each in found.values())
