"""A sampled cache, whose frames stand for others, gives what the full one gives."""

import dataclasses

import numpy as np
import pytest
import torch
from made_up import SMALL, config, records, splits, table, videos

from memfeat.models import AGGREGATORS, build_regressor
from memfeat.training import Examples, score, train
from memfeat.training.batches import Shuffle, epoch_batches

DIM, DISTINCT, TIME = 6, 10, 60
VIDEOS = 12


def sampled():
    """Clips of 60 frames made of 10 distinct ones, as a sampler caches them."""
    generator = np.random.default_rng(0)
    kept = [generator.standard_normal((DISTINCT, DIM)) for _ in range(VIDEOS)]
    covers = [1 + generator.multinomial(TIME - DISTINCT, [1 / DISTINCT] * DISTINCT) for _ in kept]
    return table(kept, covers=covers)


def whole(made):
    """The same clips, every frame cached."""
    rows = np.repeat(made.values, made.covers, axis=0)
    return table(np.split(rows, VIDEOS))


def labels():
    return records(np.linspace(0.2, 0.9, VIDEOS), splits(7, 3, 2))


def regressor(aggregator):
    torch.manual_seed(0)
    options = dict(SMALL["aggregators"].get(aggregator, {}))
    if "dropout" in AGGREGATORS.get(aggregator).Options.model_fields:
        options["dropout"] = 0.0
    return build_regressor(DIM, aggregator, "linear", options)


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("aggregator", list(AGGREGATORS))
def test_scores_and_gradients_are_those_of_the_full_table(aggregator, frames):
    found = []
    for made in (sampled(), whole(sampled())):
        model = regressor(aggregator)
        shuffle, truth = Shuffle(3, frames=frames), np.linspace(0, 1, VIDEOS)
        for batch in epoch_batches(videos(made), truth, shuffle, 0, 5):
            (model(*batch.streams).scores - batch.scores).abs().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        found.append((torch.from_numpy(score(model, videos(made))), gradients))
    (scores, gradients), (expected, full) = found
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    for one, other in zip(gradients, full, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_equation_1_weighs_each_kept_frame_by_the_time_that_it_covers():
    made = sampled()
    bigru = regressor("bigru").eval().aggregators[0]
    (padded,) = (stream.padded(np.arange(VIDEOS)) for stream in videos(made).streams)
    vectors, weights = bigru(*padded)
    for video in range(VIDEOS):
        rows = slice(DISTINCT * video, DISTINCT * (video + 1))
        of_row = np.repeat(np.arange(DISTINCT), made.covers[rows])
        w = np.bincount(of_row, weights[video].double().numpy())
        e_v = w @ made.values[rows].astype(np.float64) / TIME
        np.testing.assert_allclose(vectors[video].numpy(), e_v, atol=1e-6)


def test_means_count_a_frame_as_often_as_it_stands_for_one():
    made = sampled()
    (means,), (expected,) = (Examples.join(t, labels()).means for t in (made, whole(made)))
    np.testing.assert_allclose(means, expected, atol=1e-12)
    assert not np.allclose(means, made.values.reshape(VIDEOS, DISTINCT, DIM).mean(1), atol=1e-2)


@pytest.mark.parametrize("aggregator", ["linear-avg", "bigru"])
def test_training_on_it_gives_the_full_tables_model(tmp_path, aggregator):
    made = sampled()
    runs = [
        train(each, labels(), config(tmp_path / name, aggregator=aggregator))
        for name, each in (("sampled", made), ("whole", whole(made)))
    ]
    one, other = (run.regressors()[0].state_dict() for run in runs)
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], atol=1e-5, rtol=1e-4)
    digests = {run.provenance["data_sha256"] for run in runs}
    assert len(digests) == 2


def test_the_time_that_a_frame_covers_is_part_of_the_data():
    made = sampled()
    alone = dataclasses.replace(made, covers=np.ones_like(made.covers))
    digests = [Examples.join(t, labels()).facts["data_sha256"] for t in (made, alone)]
    assert digests[0] != digests[1]
