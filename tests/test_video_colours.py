"""What pixel formats, tags and containers say of colours, held against the numbers that went in."""

import struct

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from clips import numbered_clip, numbers_in, refusal, write_clip
from PIL import Image

from memfeat.video import VideoReader, write_video

RED = (200, 60, 40)
# Kr and Kb of ITU-R BT.601 and BT.709.
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)
TAG_601, TAG_709, YCGCO, BT2020_CL, ICTCP = 6, 1, 8, 10, 14  # ITU-T H.273


def read(path, **arguments):
    """Return the pixels, and the spent reader."""
    with VideoReader(path, **arguments) as reader:
        return np.stack([frame.pixels for frame in reader]), reader


def yuv_frame(height: int, width: int, rgb, weights) -> av.VideoFrame:
    """Return a frame of one colour, in limited range, by the definition of its matrix."""
    (kr, kb), (r, g, b) = weights, np.array(rgb) / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    levels = 16 + 219 * y, 128 + 112 * (b - y) / (1 - kb), 128 + 112 * (r - y) / (1 - kr)
    planes = np.round(levels).astype(np.uint8)[:, None, None].repeat(height, 1).repeat(width, 2)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), "yuv444p")


def retag(source, tag: int):
    """Copy a video into a Matroska file that names another matrix."""
    path = source.with_name("tagged.mkv")
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.codec_context.colorspace = tag
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace in (tag, 2)
    return path


@pytest.mark.parametrize(
    ("height", "width", "tag", "made"),
    [
        (720, 16, None, BT709),
        (1080, 16, None, BT709),
        (718, 16, None, BT601),
        (64, 1280, None, BT601),
        (720, 16, TAG_601, BT601),
        (64, 16, TAG_709, BT709),
        (720, 16, 0, BT709),  # "RGB", which these pixels are not
        (64, 16, 0, BT601),
        (720, 16, 3, BT709),  # reserved
    ],
)
def test_untagged_hd_is_bt_709_and_all_else_as_tagged_or_bt_601(tmp_path, height, width, tag, made):
    frame = yuv_frame(height, width, RED, made)
    path = write_clip(tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt="yuv444p")
    assert np.abs(read(retag(path, 2 if tag is None else tag))[0].astype(int) - RED).max() <= 2


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"qp": "0"}),
        ("libx265", {"x265-params": "lossless=1:log-level=none:pools=1"}),
        ("libvpx-vp9", {"lossless": "1"}),
    ],
)
@pytest.mark.parametrize(
    ("height", "tag", "made"), [(64, TAG_709, BT709), (720, TAG_601, BT601), (720, 2, BT709)]
)
def test_the_container_s_matrix_counts_where_the_pictures_name_none(
    tmp_path, codec, options, height, tag, made
):
    frame = yuv_frame(height, 64, RED, made)
    path = write_clip(tmp_path / "a.mkv", [frame], codec=codec, pix_fmt="yuv444p", options=options)
    assert np.abs(read(retag(path, tag))[0].astype(int) - RED).max() <= 2


@pytest.mark.parametrize("height", [64, 720])
def test_a_video_that_memfeat_writes_is_read_in_its_colours(tmp_path, height):
    write_video(tmp_path / "a.mp4", [np.full((height, 32, 3), RED, np.uint8)] * 2, fps=10, crf=4)
    assert np.abs(read(tmp_path / "a.mp4")[0].astype(int) - RED).max() <= 3


def test_untagged_hd_is_read_as_before_where_that_is_asked_for(tmp_path):
    frame = yuv_frame(720, 16, RED, BT601)
    path = write_clip(tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt="yuv444p")
    assert np.abs(read(path, untagged_hd="BT.601")[0].astype(int) - RED).max() <= 2
    assert np.abs(read(path)[0].astype(int) - RED).max() > 5


@pytest.mark.parametrize(
    ("tag", "name"), [(YCGCO, "YCgCo"), (BT2020_CL, "BT.2020"), (ICTCP, "ICtCp")]
)
def test_a_matrix_that_ffmpeg_cannot_use_is_named(tmp_path, tag, name):
    path = numbered_clip(tmp_path / "a.mp4", 2, colorspace=tag)
    error = refusal(path)
    assert error.reason == "unreadable"
    assert f"their matrix is tagged {name}" in str(error)


@pytest.mark.parametrize("pix_fmt", ["bgr0", "gray"])
@pytest.mark.parametrize("tag", [YCGCO, ICTCP])
def test_a_matrix_is_ignored_where_there_is_none_to_be_applied(tmp_path, pix_fmt, tag):
    path = retag(numbered_clip(tmp_path / "a.mkv", 3, codec="ffv1", pix_fmt=pix_fmt), tag)
    assert numbers_in(read(path)[0]) == [0, 1, 2]


def grey_frame(levels, bits: int, color_range: int) -> av.VideoFrame:
    plane = np.array(levels, np.uint16 if bits > 8 else np.uint8).repeat(16)[None].repeat(32, 0)
    frame = av.VideoFrame.from_ndarray(plane, "gray" if bits == 8 else f"gray{bits}le")
    frame.color_range = color_range
    return frame


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG, ColorRange.UNSPECIFIED])
def test_grey_of_limited_range_is_stretched_and_other_grey_is_not(tmp_path, bits, color_range):
    levels = np.array([16, 235, 0, 255, 126])  # of 8 bits
    frame = grey_frame(levels << bits - 8, bits, color_range)
    path = write_clip(
        tmp_path / "a.mkv",
        [frame],
        codec="ffv1",
        pix_fmt=frame.format.name,
        color_range=color_range,
    )
    stretched = color_range == ColorRange.MPEG
    wanted = ((levels - 16) * 255 / 219).round().clip(0, 255) if stretched else levels
    pixels, _ = read(path)
    assert (pixels == pixels[..., :1]).all()
    np.testing.assert_allclose(pixels[0, 16, 8::16, 0], wanted, atol=0 if stretched else 1)


# Transparency


def rgba(alpha: int) -> np.ndarray:
    """Draw a red picture whose blue hides in its left half."""
    picture = np.full((48, 64, 4), (*RED, alpha), np.uint8)
    picture[:, :32, 2] = 250
    return picture


@pytest.mark.parametrize("alpha", [0, 77, 255])
def test_the_fourth_byte_of_uncompressed_rgb_in_avi_is_not_alpha(tmp_path, alpha):
    path = write_clip(tmp_path / "a.avi", [rgba(alpha)] * 3, codec="rawvideo", pix_fmt="bgra")
    content = path.read_bytes()
    header = content.index(b"strf") + 8
    bits, compression = struct.unpack_from("<HI", content, header + 14)
    assert (bits, compression) == (32, 0)  # BI_RGB
    pixels, reader = read(path)
    np.testing.assert_array_equal(pixels, [rgba(0)[..., :3]] * 3)
    assert reader.warning is None


CLEAR = [
    ("a.mov", "qtrle", "argb", {}),
    ("b.mov", "rawvideo", "argb", {}),
    ("a.mkv", "ffv1", "yuva420p", {}),
    ("c.mov", "png", "rgba", {}),
    ("a.apng", "apng", "rgba", {}),
    ("a.webm", "libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "10"}),
    ("a.avi", "utvideo", "gbrap", {}),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options"), CLEAR)
def test_a_video_that_is_transparent_throughout_is_read_with_a_warning(
    tmp_path, name, codec, pix_fmt, options
):
    how = {"codec": codec, "pix_fmt": pix_fmt, "options": options}
    pixels, reader = read(write_clip(tmp_path / name, [rgba(0)] * 3, **how))
    assert pixels.max() < 3
    assert f"{str(tmp_path / name)!r} is transparent throughout" in reader.warning
    assert "convert it without its alpha channel" in reader.warning
    visible = rgba(0)
    visible[8:24, 8:24, 3] = 255
    pixels, reader = read(write_clip(tmp_path / name, [rgba(0), rgba(0), visible], **how))
    assert pixels[2].max() > 100
    assert reader.warning is None


def test_a_gif_that_shows_nothing_is_warned_of(tmp_path):
    pictures = [Image.new("RGBA", (40, 30), (n, 0, 0, 0)) for n in range(3)]
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    assert "is transparent throughout" in read(path)[1].warning
