"""Encoders of clips: several consecutive frames make one vector."""

import numpy as np
import pytest
import torch
from clips import numbered_clip, read_frames
from torch import Tensor, nn

from memfeat.encoders import FrameEncoder, Tower
from memfeat.errors import EncoderError
from memfeat.extraction import encode_video

HALF = (0.5, 0.5, 0.5)


class TimeAndPlace(nn.Module):
    """Averages of each of a clip's four frames' left and right half: eight numbers."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(1).unflatten(-1, (2, -1)).mean((2, 4)).flatten(1)


def encoder(clip_frames: int = 4) -> FrameEncoder:
    names = "halves", "random", "", "nothing", "none"
    tower = Tower(*names, 2 * clip_frames, 16, HALF, HALF, TimeAndPlace(), clip_frames=clip_frames)
    return FrameEncoder(tower)


def spec(made: FrameEncoder):
    return made.spec(batch_size=8)


def expected(path, firsts: list[int], frames: int) -> np.ndarray:
    pixels = read_frames(path, size=16).pixels[:frames].astype(np.float64) / 127.5 - 1
    halves = pixels.mean(3).reshape(len(pixels), 16, 2, 8).mean((1, 3))
    rows = [halves[np.minimum(np.arange(first, first + 4), frames - 1)].ravel() for first in firsts]
    return np.stack([row / np.linalg.norm(row) for row in rows])


@pytest.mark.parametrize(
    ("frames", "firsts"), [(12, [0, 4, 8]), (15, [0, 4, 8]), (4, [0]), (3, [0]), (1, [0])]
)
def test_whole_clips_in_order_or_one_filled_up_with_its_last_frame(frames, firsts, tmp_path):
    path = numbered_clip(tmp_path / "v.mp4", frames)
    encoded = encode_video(path, encoder(), spec(encoder()))
    np.testing.assert_allclose(encoded.embeddings, expected(path, firsts, frames), atol=1e-3)
    np.testing.assert_allclose(encoded.pts_seconds, np.array(firsts) / 30, atol=1e-6)
    assert encoded.covers.tolist() == [1] * len(firsts)


def test_the_spec_says_how_many_frames_make_a_vector():
    assert spec(encoder()).clip_frames == 4
    assert "one vector for 4 frames" in spec(encoder()).describe()


def test_frames_where_clips_are_wanted_are_refused():
    with pytest.raises(EncoderError, match=r"\(batch, 4, 16, 16, 3\), not .* \(2, 16, 16, 3\)"):
        encoder().encode(torch.zeros((2, 16, 16, 3), dtype=torch.uint8))
