"""Videos that memfeat writes."""

import av
import numpy as np
import pytest
from clips import number_picture, numbers_in, read_frames, write_clip
from skimage import data

from memfeat.errors import VideoError
from memfeat.video import write_video


def test_written_videos_read_back_frame_by_frame(tmp_path):
    path = tmp_path / "new" / "folder" / "clip.mp4"
    write_video(path, (number_picture(n) for n in range(45)), fps=24)
    frames = read_frames(path)
    assert numbers_in(frames.pixels) == list(range(45))
    np.testing.assert_allclose(frames.pts_seconds, np.arange(45) / 24)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.format.name) == ("h264", "yuv420p")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_the_same_frames_give_the_same_file(tmp_path):
    photo = np.ascontiguousarray(data.coffee()[:240, :320])
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, [np.roll(photo, n, axis=1) for n in range(20)], fps=25)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content == (tmp_path / "b.mp4").read_bytes()
    assert b"Lavf" not in content
    write_video(tmp_path / "c.mp4", [photo] * 20, fps=25)
    assert content != (tmp_path / "c.mp4").read_bytes()


def test_fast_encoding_costs_little_quality_and_size(tmp_path):
    """Held against x264's own defaults at the same crf, on a camera that moves over a photo."""
    photo = data.coffee()[:240]
    pictures = [np.ascontiguousarray(photo[:, 3 * n : 320 + 3 * n]) for n in range(40)]
    fast, slow = tmp_path / "fast.mp4", tmp_path / "slow.mp4"
    write_video(fast, pictures, fps=25)
    write_clip(slow, pictures, options={"crf": "20"})
    errors = [
        np.square(read_frames(path).pixels - np.float32(pictures)).mean() for path in (fast, slow)
    ]
    assert 10 * np.log10(errors[0] / errors[1]) < 1.5  # decibels
    assert errors[0] < 255**2 / 10**3.5
    assert fast.stat().st_size < 1.25 * slow.stat().st_size


@pytest.mark.parametrize(
    ("pictures", "reason", "message"),
    [
        ([], "no_frames", "no frames to write"),
        ([np.zeros((63, 64, 3), np.uint8)], "unencodable", r"frame 0 is uint8 \(63, 64, 3\)"),
        ([np.zeros((64, 63, 3), np.uint8)], "unencodable", "even sides"),
        ([np.zeros((64, 64, 3))], "unencodable", "frame 0 is float64"),
        ([np.zeros((64, 64), np.uint8)], "unencodable", r"\(64, 64\)"),
        (
            [np.zeros((64, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)],
            "unencodable",
            r"frame 1 is uint8 \(32, 64, 3\), the first \(64, 64, 3\)",
        ),
    ],
)
def test_pictures_that_cannot_be_written_leave_the_old_file(tmp_path, pictures, reason, message):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with pytest.raises(VideoError, match=message) as caught:
        write_video(path, pictures, fps=10)
    assert caught.value.reason == reason
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
