"""How much of a video is read, and how large it may be: seconds, frames, pixels, images, memory."""

import gc
import math
import os
import re
import stat
import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from clips import (
    number_picture,
    numbered_clip,
    packets_of,
    read,
    refusal,
    write_clip,
    write_streams,
)
from PIL import Image
from processes import resident
from skimage import data

from memfeat.errors import ConfigError
from memfeat.video import VideoReader

SMALL = 64 * 160  # pixels of a numbered picture
EIGHT_K = (4320, 7680)


def frames_of(path, **arguments):
    with VideoReader(path, **arguments) as reader:
        return list(reader)


def numbers(path, **arguments):
    return read(path, **arguments)[1]


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("max_seconds", [0, -1, math.nan, math.inf, -math.inf], "a number"),
        ("max_pixels", [0, -1], "1 or more"),
        ("max_frames", [0, -3], "1 or more"),
        ("size", [0], "1 or more"),
    ],
)
def test_limits_that_leave_nothing_are_refused(tmp_path, name, values, allowed):
    for value in values:
        with pytest.raises(ConfigError, match=f"{name} = {value} is not allowed; give {allowed}"):
            VideoReader(tmp_path / "clip.mp4", **{name: value})


# Of MPEG-TS the first frame is shown at 1.4 s and some, by default.
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_max_seconds_keeps_what_is_shown_before_and_nothing_counts_as_missing(tmp_path, suffix):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = numbered_clip(tmp_path / f"clip.{suffix}", 60, codec=codec, max_b_frames=2, ticks=25)
    for limit, expected in ((1e-9, 1), (0.04, 1), (0.05, 2), (1, 25), (1.9, 48), (2.4, 60)):
        reader, numbers = read(path, max_seconds=limit)
        assert numbers == list(range(expected))
        assert reader.frames_decoded == expected
        assert reader.frames_expected in (expected, None)
        assert reader.reason is None


def test_max_seconds_goes_by_presentation_times(tmp_path):
    times = [0, 40, 80, 100, 400, 420, 1000, 1500, 1510, 1600]
    path = numbered_clip(tmp_path / "vfr.mkv", 10, times=times, ticks=1000)
    for limit in (0.1, 0.42, 0.421, 1.505, 1.6, 9):
        expected = [number for number, time in enumerate(times) if time < round(1000 * limit)]
        assert numbers(path, max_seconds=limit) == expected


def test_the_tighter_of_two_limits_holds(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 30)
    assert len(numbers(path, max_seconds=0.5, max_frames=7)) == 7
    assert len(numbers(path, max_seconds=0.2, max_frames=7)) == 6


def test_a_video_that_is_cut_after_the_last_second_wanted_is_whole(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 60, gop_size=6, muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-200])
    assert read(path)[0].reason == "truncated"
    assert read(path, max_seconds=0.5)[0].reason is None


def test_many_frames_take_the_memory_of_few(tmp_path, no_garbage_collector):
    """All of them would take 37 MB in RGB, and 12 MB as they are decoded."""
    path = write_clip(tmp_path / "clip.mp4", map(number_picture, range(1023)), codec="mpeg4")
    with VideoReader(path, size=None) as reader:
        frames = iter(reader)
        for _ in range(200):
            next(frames)
        before = resident()
        assert sum(1 for _ in frames) == 823
        assert resident() - before < 6e6


@pytest.fixture
def no_garbage_collector():
    """Large frames must not wait for it: it counts objects, not their bytes."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def eight_k(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "8k.mp4"
    return write_clip(path, [number_picture(683, *EIGHT_K)], options={"preset": "ultrafast"})


def test_a_frame_of_8k_is_read_where_so_many_pixels_are_allowed(eight_k):
    for limit in (math.prod(EIGHT_K), 10**15):
        assert numbers(eight_k, max_pixels=limit) == [683]
    assert frames_of(eight_k, size=224, max_pixels=1 << 26)[0].pixels.shape == (224, 224, 3)


def test_a_frame_of_8k_is_refused_before_there_is_memory_for_it(eight_k, tmp_path):
    """In a process of its own, which has not held a frame yet."""
    error = refusal(eight_k, max_pixels=1_000_000)
    assert error.reason == "too_large"
    assert "7680 x 4320, more than the 1000000 pixels that are allowed" in str(error)
    assert "--max-pixels" in str(error)
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this kernel does not tell the peak of memory anew")
    code = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from clips import refusal
from test_video_limits import frames_of, peak
small, large = map(Path, sys.argv[1:])
frames_of(small, size=32)  # what libraries take once
print(peak(lambda: refusal(large, max_pixels=1_000_000)), peak(lambda: frames_of(large, size=32)))
"""
    small = numbered_clip(tmp_path / "small.mp4", 2)
    command = [sys.executable, "-c", code, small, eight_k]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    refused, everything = map(int, done.stdout.split())
    assert everything > 1.5 * math.prod(EIGHT_K)  # a frame of YUV 4:2:0
    assert refused < 0.5 * math.prod(EIGHT_K)


def peak(act) -> int:
    """Return how far memory rose above what the process held before, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    act()
    highest = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(highest[1]) * 1024 - before


REALTIME = {"deadline": "realtime", "cpu-used": "8"}
X265 = {"x265-params": "log-level=none:pools=1"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "libx264", {}),
        ("clip.ts", "libx264", {}),
        ("clip.h264", "libx264", {}),
        ("clip.hevc", "libx265", X265),
        ("clip.webm", "libvpx-vp9", REALTIME),
        ("clip.mkv", "ffv1", {}),
        ("clip.avi", "mjpeg", {}),
        ("clip.mov", "mpeg4", {}),
        ("clip.m2v", "mpeg2video", {}),
        ("clip.gif", "gif", {}),
        ("clip.mp4", "libsvtav1", {"preset": "10"}),
    ],
)
def test_one_pixel_too_many_is_refused_and_so_are_many(tmp_path, monkeypatch, name, codec, options):
    monkeypatch.setenv("SVT_LOG", "0")
    formats = {"mjpeg": "yuvj420p", "gif": "rgb8"}
    how = {"codec": codec, "pix_fmt": formats.get(codec, "yuv420p"), "options": options}
    exact = numbered_clip(tmp_path / name, 8, **how)
    assert numbers(exact, max_pixels=SMALL) == list(range(8))
    assert refusal(exact, max_pixels=SMALL - 1).reason == "too_large"
    # So many more than one are for the codec itself to refuse, which tries frames at opening.
    large = write_clip(tmp_path / name, [number_picture(5, 1080, 1920)] * 2, **how)
    assert refusal(large, max_pixels=SMALL).reason == "too_large"


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("h264", "libx264", {}),
        ("hevc", "libx265", X265),
        ("mjpeg", "mjpeg", {}),
        ("m2v", "mpeg2video", {}),
        ("ivf", "libvpx", REALTIME),
        ("ivf", "libvpx-vp9", REALTIME),
        ("obu", "libsvtav1", {"preset": "10"}),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(128, 240), (1080, 1920)])
def test_a_video_that_grows_too_large_in_mid_stream_is_refused(
    tmp_path, monkeypatch, suffix, codec, options, height, width
):
    monkeypatch.setenv("SVT_LOG", "0")
    how = {"codec": codec, "pix_fmt": "yuvj420p" if codec == "mjpeg" else "yuv420p"}
    path = tmp_path / f"clip.{suffix}"
    content = b""
    for number, size in enumerate(((64, 160), (height, width))):
        pictures = [number_picture(number, *size)] * 2
        clip = write_clip(path, pictures, **how, options=options).read_bytes()
        content += clip[32:] if content and suffix == "ivf" else clip  # one header is enough
    path.write_bytes(content)
    sizes = [frame.pixels.shape[:2] for frame in frames_of(path, max_pixels=height * width)]
    assert sorted(set(sizes)) == [(64, 160), (height, width)]
    assert refusal(path, max_pixels=height * width - 1).reason == "too_large"
    assert refusal(path, max_pixels=SMALL).reason == "too_large"


def test_damage_is_not_taken_for_a_frame_that_is_too_large(tmp_path):
    path = numbered_clip(tmp_path / "clip.avi", 9, codec="mjpeg", pix_fmt="yuvj420p")
    places, generator = packets_of(path), np.random.default_rng(0)
    for _ in range(60):
        mutant = np.frombuffer(path.read_bytes(), np.uint8).copy()
        where = generator.integers(places[1][0], places[-1][0], 20)
        mutant[where] = generator.integers(0, 256, 20)
        (tmp_path / "mutant.avi").write_bytes(mutant.tobytes())
        with VideoReader(tmp_path / "mutant.avi", max_pixels=1 << 26) as reader:
            assert sum(1 for _ in reader) > 0


def test_a_few_bytes_that_claim_a_giant_picture_are_refused(tmp_path):
    path = numbered_clip(tmp_path / "clip.gif", 3, codec="gif", pix_fmt="rgb8")
    content = bytearray(path.read_bytes())
    struct.pack_into("<HH", content, 6, 16_000, 16_000)
    path.write_bytes(content)
    assert refusal(path, max_pixels=1 << 26).reason == "too_large"


IMAGES = ["jpg", "png", "webp", "bmp", "gif", "avif", "tif", "ppm"]


@pytest.mark.parametrize("suffix", IMAGES)
def test_an_image_is_a_video_of_one_frame_where_that_is_allowed(tmp_path, suffix):
    picture = data.astronaut()[::4, ::4]
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(picture).save(path)
    assert refusal(path).reason == "image"
    assert "--allow-images" in str(refusal(path))
    (frame,) = frames_of(path, allow_images=True, max_seconds=1, max_frames=1)
    assert (frame.pts_seconds, frame.pixels.shape) == (0, picture.shape)
    assert np.abs(frame.pixels - picture.astype(float)).mean() < 12  # a GIF has few colours
    assert read(path, allow_images=True, max_pixels=128 * 128)[0].reason is None
    assert refusal(path, allow_images=True, max_pixels=128 * 128 - 1).reason == "too_large"


def test_a_photo_is_turned_as_its_camera_says(tmp_path):
    photo = Image.fromarray(number_picture(77).swapaxes(0, 1))
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "the 0th row is the visual right-hand side": turn 90 degrees clockwise
    turned.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    (frame,) = frames_of(tmp_path / "photo.jpg", allow_images=True)
    assert frame.pixels.shape == (160, 64, 3)
    assert np.abs(frame.pixels - np.asarray(photo, float)).mean() < 3


def test_a_video_stays_one_where_images_are_allowed(tmp_path):
    path = numbered_clip(tmp_path / "moving.gif", 4, codec="gif", pix_fmt="rgb8")
    assert numbers(path, allow_images=True) == [0, 1, 2, 3]


def test_cover_art_is_skipped_where_it_stands_before_the_video(tmp_path):
    path = tmp_path / "clip.mp4"
    write_streams(path, range(4), 99)
    # The art is in `udta`, which goes in front of the tracks here.
    content = path.read_bytes()
    track, user = content.index(b"trak") - 4, content.index(b"udta") - 4
    (size,) = struct.unpack_from(">I", content, user)
    boxes = content[user : user + size] + content[track:user]
    path.write_bytes(content[:track] + boxes + content[user + size :])
    with av.open(str(path)) as container:
        assert container.streams[0].disposition & Disposition.attached_pic
    assert numbers(path) == [0, 1, 2, 3]


@pytest.mark.timeout(30)  # opening a pipe that nobody writes to would never end
@pytest.mark.parametrize("other", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_takes_a_video_s_place_while_it_is_opened_is_refused(tmp_path, monkeypatch, other):
    """The moment between looking and opening cannot be had otherwise than by a hook."""
    path = numbered_clip(tmp_path / "clip.mp4", 2)
    look = Path.stat

    def look_and_replace(self: Path, **arguments) -> os.stat_result:
        found = look(self, **arguments)
        if self == path and stat.S_ISREG(found.st_mode):
            path.unlink()
            other(path)
        return found

    monkeypatch.setattr(Path, "stat", look_and_replace)
    assert refusal(path).reason == "not_a_file"


def test_a_refused_file_is_closed(tmp_path):
    paths = [tmp_path / name for name in ("empty.mp4", "text.mp4", "folder.mp4", "picture.png")]
    paths[0].touch()
    paths[1].write_text("no video" * 99)
    paths[2].mkdir()
    Image.new("RGB", (8, 8)).save(paths[3])
    paths.append(numbered_clip(tmp_path / "clip.mp4", 2))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths:
        refusal(path, max_pixels=1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
