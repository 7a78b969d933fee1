"""A frame's pixels: size, colours, transparency, and which way up they are."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import number_picture, numbered_clip, numbers_in, read, read_frames, write_clip
from PIL import Image
from skimage import data
from torchvision.transforms import functional as transforms

from memfeat.video import VideoReader, crop_square, resize

CORNERS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}


def corner_picture(height: int, width: int) -> np.ndarray:
    """Draw red, green / blue, white quarters."""
    quarters = np.array([[CORNERS["R"], CORNERS["G"]], [CORNERS["B"], CORNERS["W"]]], np.uint8)
    return quarters.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def corners_of(pixels: np.ndarray) -> str:
    height, width, _ = pixels.shape
    names = [
        min(CORNERS, key=lambda name: np.abs(np.int16(CORNERS[name]) - pixels[y, x]).sum())
        for y in (height // 4, height * 3 // 4)
        for x in (width // 4, width * 3 // 4)
    ]
    return "{}{}/{}{}".format(*names)


def turned_clip(path: Path, matrix: Sequence[float]) -> Path:
    """Write three pictures of RG/BW, with a display matrix."""
    write_clip(path, [corner_picture(32, 64)] * 3)
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(value * 65536) for value in matrix)
    # In tkhd the matrix stands 44 bytes after the box's name.
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "seen"),  # matrix a, b, c, d as in ISO 14496-12, 6.2.2; the stored picture is RG/BW
    [
        pytest.param((1, 0, 0, 1), "RG/BW", id="0"),
        pytest.param((0, 1, -1, 0), "BR/WG", id="90 clockwise"),
        pytest.param((-1, 0, 0, -1), "WB/GR", id="180"),
        pytest.param((0, -1, 1, 0), "GW/RB", id="270 clockwise"),
        pytest.param((-1, 0, 0, 1), "GR/WB", id="mirrored"),
        pytest.param((1, 0, 0, -1), "BW/RG", id="upside down"),
        pytest.param((0, 1, 1, 0), "RB/GW", id="transposed"),
    ],
)
def test_the_display_matrix_turns_and_mirrors(tmp_path, matrix, seen):
    path = turned_clip(tmp_path / "turned.mp4", matrix)
    pixels = read_frames(path).pixels
    assert pixels.shape == ((3, 64, 32, 3) if matrix[0] == 0 else (3, 32, 64, 3))
    assert [corners_of(picture) for picture in pixels] == [seen] * 3
    assert corners_of(read_frames(path, size=20).pixels[0]) == seen
    with VideoReader(path, size=20) as reader:
        list(reader)
    assert reader.warning is None
    assert reader.frame_size == pixels.shape[2:0:-1], "as it is shown, whatever it is resized to"
    with av.open(str(path)) as container:  # FFmpeg's own reading, in degrees counterclockwise
        frame = next(container.decode(video=0))
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0:
        stored = frame.to_ndarray(format="rgb24", threads=1)
        np.testing.assert_array_equal(np.rot90(stored, frame.rotation // 90), pixels[0])


@pytest.mark.parametrize(
    ("degrees", "warned"), [(45, True), (100, True), (-20, True), (90.5, False), (-0.5, False)]
)
def test_pictures_to_be_shown_aslant_are_read_with_a_warning(tmp_path, degrees, warned):
    a, b = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    reader, _ = read(turned_clip(tmp_path / "turned.mp4", (a, b, -b, a)))
    assert (reader.warning is not None) is warned
    assert not warned or "turned.mp4' is to be shown aslant" in reader.warning


def white_noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize("picture", [data.astronaut, data.cat, white_noise])
def test_resize_is_pil_s_antialiased_bicubic_within_one_grey_level(picture, size):
    """But for a few values in a million, which are two off."""
    pixels = picture()
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    resized = resize(pixels, size)
    assert resized.shape == (size, size, 3)
    assert resized.dtype == np.uint8
    difference = np.abs(resized.astype(int) - np.asarray(image))
    assert difference.max() <= 2
    assert (difference == 2).mean() < 2e-5
    assert difference.mean() < 0.01


def test_resize_takes_views_and_read_only_pictures_and_enlarges():
    pixels = data.astronaut()[100:140, 50:80]
    pixels.flags.writeable = False
    image = Image.fromarray(pixels[::-1]).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.abs(resize(pixels[::-1], 96).astype(int) - np.asarray(image)).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("odd.mkv", "ffv1", "yuv420p"),
        ("odd-4:2:2.mkv", "ffv1", "yuv422p"),
        ("4:4:4.mp4", "libx264", "yuv444p"),
        ("10-bit.mkv", "ffv1", "yuv420p10le"),
        ("10-bit-4:4:4.mov", "prores_ks", "yuv444p10le"),
        ("full-range.avi", "mjpeg", "yuvj420p"),
        ("grey.mkv", "ffv1", "gray"),
        ("16-bit-rgb.mkv", "ffv1", "gbrp16le"),
    ],
)
def test_odd_sizes_and_other_pixel_formats_give_the_right_colours(tmp_path, name, codec, pix_fmt):
    picture = np.full((37, 51, 3), (200, 120, 40), np.uint8)
    if codec == "prores_ks":
        picture = picture[:36, :50]
    path = write_clip(
        tmp_path / name, [np.ascontiguousarray(picture)] * 3, codec=codec, pix_fmt=pix_fmt
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].format.name.startswith(pix_fmt[:6])
    pixels = read_frames(path).pixels
    assert pixels.shape == (3, *picture.shape)
    luma = 0.299 * 200 + 0.587 * 120 + 0.114 * 40
    wanted = (luma,) * 3 if pix_fmt == "gray" else (200, 120, 40)
    assert np.abs(pixels - np.array(wanted)).max() < 6


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("alpha.mov", "qtrle", "argb", {}),
        ("alpha.apng", "apng", "rgba", {}),
        ("alpha.webm", "libvpx-vp9", "yuva420p", {"auto-alt-ref": "0", "crf": "10"}),
        ("alpha8.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0", "crf": "10", "b": "1M"}),
        ("alpha.mkv", "ffv1", "yuva444p10le", {}),
    ],
)
def test_alpha_is_composited_on_black(tmp_path, name, codec, pix_fmt, options):
    picture = np.full((48, 64, 4), (200, 100, 60, 255), np.uint8)
    picture[:24, 32:, 3] = 128
    picture[24:, 32:, 3] = 0
    path = write_clip(tmp_path / name, [picture] * 3, codec=codec, pix_fmt=pix_fmt, options=options)
    pixels = read_frames(path).pixels
    assert len(pixels) == 3
    for picture in pixels:
        assert np.abs(picture[12, 16] - np.array([200, 100, 60])).max() < 6
        assert np.abs(picture[12, 48] - np.array([100, 50, 30])).max() < 6
        assert picture[36, 48].max() < 3


def test_a_transparent_gif_is_composited_on_black(tmp_path):
    path = tmp_path / "transparent.gif"
    pictures = []
    for x in range(3):
        picture = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
        picture.paste((255, 255, 255, 255), (10 * x, 10, 10 * x + 10, 20))
        pictures.append(picture)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    pixels = read_frames(path).pixels
    for x, picture in enumerate(pixels):
        assert picture[15, 10 * x + 5].min() > 250
        assert picture.sum() == picture[10:20, 10 * x : 10 * x + 10].sum() > 0


def test_a_size_change_in_mid_stream_is_resized_per_frame(tmp_path):
    small = [number_picture(n, 64, 160) for n in range(5)]
    large = [number_picture(n, 128, 240) for n in range(5, 10)]
    first = write_clip(tmp_path / "a.h264", small)
    second = write_clip(tmp_path / "b.h264", large)
    path = tmp_path / "both.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with VideoReader(path) as reader:
        assert [frame.pixels.shape[0] for frame in reader] == [64] * 5 + [128] * 5
    for frames, shape in (
        (read_frames(path, size=48), (10, 48, 48, 3)),
        (read_frames(path), (10, 64, 160, 3)),
    ):
        assert frames.pixels.shape == shape
        assert numbers_in(frames.pixels) == list(range(10))


def test_non_square_pixels_are_read_as_they_are_stored(tmp_path):
    path = numbered_clip(tmp_path / "wide.mp4", 5, sample_aspect_ratio=Fraction(2, 1))
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    frames = read_frames(path)
    assert frames.pixels.shape == (5, 64, 160, 3)
    assert numbers_in(frames.pixels) == list(range(5))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_read_with_a_warning(tmp_path, transfer, name):
    path = numbered_clip(tmp_path / "hdr.mp4", 3, color_trc=transfer)
    reader, numbers = read(path)
    assert numbers == [0, 1, 2]
    assert f"HDR ({name}) and is read without tone mapping" in reader.warning


@pytest.mark.parametrize("pix_fmt", ["grayf32le", "gbrpf32le"])
def test_floating_point_pictures_keep_their_levels(tmp_path, pix_fmt):
    """FFmpeg's scaler takes 0.25 of floating-point grey for 56, as if its range were limited."""
    levels = np.array([-0.5, 0, 0.25, 0.5, 0.75, 1, 2], np.float32).repeat(8)[None].repeat(16, 0)
    stored = levels if pix_fmt == "grayf32le" else np.repeat(levels[..., None], 3, axis=2)
    frame = av.VideoFrame.from_ndarray(stored, pix_fmt)
    path = write_clip(tmp_path / "clip.mov", [frame], codec="exr", pix_fmt=pix_fmt)
    (pixels,) = read_frames(path).pixels
    wanted = np.array([0, 0, 64, 128, 191, 255, 255])
    np.testing.assert_allclose(pixels[4, 4::8], np.repeat(wanted[:, None], 3, axis=1), atol=1)


def test_interlaced_video_is_read_with_a_warning(tmp_path):
    options = {"x264-params": "tff=1", "flags": "+ildct"}
    combed = numbered_clip(tmp_path / "combed.mp4", 3, options=options)
    reader, numbers = read(combed)
    assert numbers == [0, 1, 2]
    assert "combed.mp4' is interlaced and is read without deinterlacing" in reader.warning
    assert read(numbered_clip(tmp_path / "plain.mp4", 3))[0].warning is None


@pytest.mark.parametrize(
    ("stereo_mode", "warning"),
    [("left_right", "(side by side"), ("top_bottom", "(top and bottom"), ("mono", None)],
)
def test_several_views_in_a_picture_are_read_with_a_warning(tmp_path, stereo_mode, warning):
    flat, path = numbered_clip(tmp_path / "flat.mkv", 3), tmp_path / "clip.mkv"
    with av.open(str(flat)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.metadata["stereo_mode"] = stereo_mode
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    reader, numbers = read(path)
    assert numbers == [0, 1, 2]
    assert reader.warning is None if warning is None else warning in reader.warning


@pytest.mark.parametrize(
    ("packing", "layout"),  # of ITU-T H.264, table D-8
    [
        (0, "checkerboard"),
        (1, "interleaved columns"),
        (2, "interleaved lines"),
        (3, "side by side"),
        (4, "top and bottom"),
        (5, "frame alternate"),
        (6, None),  # plain
        (-1, None),
    ],
)
def test_several_views_that_h264_itself_tells_of_are_read_with_a_warning(tmp_path, packing, layout):
    options = {"x264-params": f"frame-packing={packing}"}
    path = numbered_clip(tmp_path / "clip.mp4", 3, options=options)
    for arguments in ({}, {"first_frame": 2}, {"max_frames": 2}):
        reader, _ = read(path, **arguments)
        assert reader.frames_decoded == arguments.get("max_frames", 3)
        assert reader.warning is None if layout is None else f"({layout})" in reader.warning


@pytest.mark.parametrize("shape", [(64, 160), (161, 63), (90, 121), (32, 32)])
def test_cropping_takes_what_torchvision_takes(shape):
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = torch.from_numpy(picture).permute(2, 0, 1)
    short = transforms.resize(image, [32], transforms.InterpolationMode.BICUBIC, antialias=True)
    expected = transforms.center_crop(short, [32]).permute(1, 2, 0).numpy()
    found = crop_square(picture, 32)
    assert found.shape == (32, 32, 3)
    # Of noise, whose neighbours differ by 85 levels on average; torchvision rounds otherwise.
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=2)


def test_a_reader_crops_where_it_is_asked_to(tmp_path):
    path = write_clip(tmp_path / "v.mp4", [corner_picture(32, 64)] * 2)
    with VideoReader(path, size=16, crop=True) as reader:
        pictures = [frame.pixels for frame in reader]
    stored = read_frames(path).pixels
    for picture, frame in zip(pictures, stored, strict=True):
        np.testing.assert_array_equal(picture, crop_square(frame, 16))
        assert corners_of(picture) == "RG/BW"
