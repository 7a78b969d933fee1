import random

import numpy as np
import pytest
import torch
from made_up import dataset, table
from made_up import videos as videos_of

from memfeat.devices import CPU
from memfeat.models import build_regressor
from memfeat.training import Stream, score
from memfeat.training.batches import Shuffle, epoch_batches


def batches(videos, epoch=0, *, seed=0, shuffle_frames=True, batch_size=2, bucket=1):
    scores = np.arange(len(videos)) / 10
    shuffle = Shuffle(seed, shuffle_frames, bucket)
    return list(epoch_batches(videos_of(table(videos)), scores, shuffle, epoch, batch_size))


def numbered(*lengths):
    """Frame t of video i is (i, t, ...)."""
    return [np.array([[i, t, 1.0] for t in range(n)]) for i, n in enumerate(lengths)]


def orders_of(made, stream=0):
    """Each video's frame numbers in the order in which batches have them."""
    orders = {}
    for batch in made:
        for frames, length in zip(*batch.streams[stream], strict=True):
            orders[int(frames[0, 0])] = frames[:length, 1].int().tolist()
    return orders


def frame_orders(*args, **kwargs):
    return orders_of(batches(*args, **kwargs))


def test_a_batch_holds_whole_videos_beside_their_scores():
    videos = numbered(3, 5, 2, 4, 1)
    seen = []
    for batch in batches(videos, shuffle_frames=False):
        (padded,) = batch.streams
        assert padded.frames.dtype == torch.float32
        assert padded.frames.shape[1] == padded.lengths.max()
        for frames, length, truth in zip(*padded, batch.scores, strict=True):
            video = int(frames[0, 0])
            np.testing.assert_array_equal(frames[:length], videos[video])
            assert torch.isfinite(frames).all()
            assert truth.item() == pytest.approx(video / 10)
            seen.append(video)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert seen != [0, 1, 2, 3, 4]


def test_frames_are_permuted_within_their_video_anew_each_epoch():
    videos = numbered(30, 30)
    first, second = frame_orders(videos, 0), frame_orders(videos, 1)
    for orders in (first, second):
        for order in orders.values():
            assert sorted(order) == list(range(30))
            assert order != list(range(30))
    assert first[0] != second[0]
    assert first[0] != first[1]


def test_streams_share_the_order_of_videos_and_each_has_its_own_of_frames():
    one, two = table(numbered(9, 8, 7, 9)), table(numbered(9, 3, 12, 9))
    shuffle, scores = Shuffle(5, frames=True), np.arange(4.0)
    alone = list(epoch_batches(videos_of(one), scores, shuffle, 3, 2))
    both = list(epoch_batches(videos_of(one, two), scores, shuffle, 3, 2))
    for single, made in zip(alone, both, strict=True):
        assert torch.equal(single.streams[0].frames, made.streams[0].frames)
        first, second = (stream.frames[:, 0, 0] for stream in made.streams)
        assert first.tolist() == second.tolist() == made.scores.tolist() == single.scores.tolist()
    first, second = orders_of(both, 0), orders_of(both, 1)
    assert [sorted(second[i]) for i in range(4)] == [list(range(n)) for n in (9, 3, 12, 9)]
    assert first[0] != second[0]
    assert first[3] != second[3]


def test_every_place_in_a_video_is_as_likely_for_every_frame():
    counts, lengths = np.zeros((4, 4)), [np.array([4, 4])]
    for epoch in range(1500):
        _, (frames,) = Shuffle(0, frames=True).epoch(epoch, lengths, 2)
        for video in frames.reshape(2, 4) % 4:
            counts[video, range(4)] += 1
    np.testing.assert_allclose(counts / counts.sum(0), 0.25, atol=0.035)


def test_orders_follow_from_seed_and_epoch_alone():
    videos = numbered(9, 9, 9)
    reference = frame_orders(videos, 4)
    for disturb in (torch.manual_seed, np.random.seed, random.seed):
        disturb(99)
        assert frame_orders(videos, 4) == reference
    assert frame_orders(videos, 4, seed=1) != reference


def test_frames_keep_their_order_unless_shuffled():
    assert frame_orders(numbered(6, 4), 3, shuffle_frames=False) == {
        0: list(range(6)),
        1: list(range(4)),
    }


def test_buckets_fill_batches_by_length_and_still_shuffle():
    lengths = np.random.default_rng(0).permutation(np.arange(1, 44))
    videos = numbered(*lengths)
    spread, first = {}, []
    for bucket in (1, 20):
        made = [b.streams[0] for b in batches(videos, batch_size=4, bucket=bucket)]
        assert [len(batch.lengths) for batch in made] == [4] * 10 + [3]
        assert sorted(n for batch in made for n in batch.lengths.tolist()) == list(range(1, 44))
        spread[bucket] = sum(int(b.lengths.max() - b.lengths.min()) for b in made[:-1])
    assert spread[20] < spread[1] / 2
    for epoch in range(6):
        made = [b.streams[0] for b in batches(videos, epoch, batch_size=4, bucket=20)]
        first.append(sorted(made[0].lengths.tolist()))
        means = [b.lengths.double().mean().item() for b in made]
        assert means != sorted(means)
    assert len(set(map(tuple, first))) == 6


def test_a_read_only_table_is_trained_from():
    values = np.arange(12, dtype=np.float16).reshape(4, 3)
    values.flags.writeable = False
    stream = Stream.of_table(values, np.array([0, 2, 4]), np.ones(4, np.int32), CPU)
    frames, _ = stream.padded(np.array([1, 0]))
    np.testing.assert_array_equal(frames, values.reshape(2, 2, 3)[::-1])


def test_scores_come_in_the_tables_order_and_equal_those_of_each_video_alone():
    made, _ = dataset(train=20)
    torch.manual_seed(0)
    regressor = build_regressor(6, "bigru", "mlp", {"hidden": 3, "layers": 2}).train()
    scores = score(regressor, videos_of(made))
    assert regressor.training
    regressor.eval()
    for i, predicted in enumerate(scores):
        frames = torch.from_numpy(made.frames(i)).float().unsqueeze(0)
        with torch.inference_mode():
            alone, _ = regressor((frames, torch.tensor([frames.shape[1]])))
        assert predicted == pytest.approx(alone.item(), abs=1e-6)
