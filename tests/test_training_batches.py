import random

import numpy as np
import pytest
import torch
from made_up import dataset, table

from memfeat.models import build_regressor
from memfeat.training import score
from memfeat.training.batches import EpochBatches, FrameBank

CPU = torch.device("cpu")


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
