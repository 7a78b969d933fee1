"""Where a video ends: before its sound, with a picture that stands still, or before its file."""

from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest
from bad_videos import FASTSTART, noise
from clips import number_picture, numbered_clip, read, write_clip

from memfeat.errors import VideoError
from memfeat.video import PARTIAL, VideoReader

FRAMES, TICKS = 20, 25
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
PIX_FMTS = {"gif": "rgb8", "apng": "rgb24"}
# Suffix, codecs of pictures and sound, and options of the container.
KINDS = [
    ("mp4", "libx264", "aac", {}),
    ("mp4", "libx264", "aac", FRAGMENTED),
    ("mkv", "libx264", "aac", {}),
    ("avi", "mpeg4", "mp2", {}),
    ("flv", "libx264", "aac", {}),
    ("nut", "mpeg4", "mp2", {}),
    ("ts", "libx264", "aac", {}),
    ("mpg", "mpeg2video", "mp2", {}),
    ("rm", "rv20", "ac3", {}),
    ("wmv", "wmv2", "mp2", {}),
]
every_kind = pytest.mark.parametrize(("suffix", "codec", "sound", "muxer"), KINDS, ids=str)


def film(path, codec, muxer, *, sound=None, seconds=0.0, last=0, subtitle=None):
    """Write 20 numbers, with silence of so many seconds, or a last frame of so many."""
    with av.open(str(path), "w", options=muxer) as container:
        video = container.add_stream(codec, rate=TICKS)
        video.width, video.height = 160, 64
        video.pix_fmt = PIX_FMTS.get(codec, "yuv420p")
        video.codec_context.gop_size = 5
        video.codec_context.max_b_frames = 0
        streams = [container.add_stream(sound, rate=44100, layout="mono")] if seconds else []
        texts = [container.add_mux_stream("subrip")] if subtitle else []
        packets = []
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(number_picture(number), "rgb24")
            frame = frame.reformat(format=video.pix_fmt, threads=1)
            frame.pts, frame.time_base = number, Fraction(1, TICKS)
            packets += video.encode(frame)
        packets += video.encode(None)
        if last:
            packets[-1].duration = int(last / packets[-1].time_base)
        for stream in streams:
            silence = np.zeros((1, int(44100 * seconds)), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
            resampler = av.AudioResampler(stream.format, stream.layout, 44100)
            for part in resampler.resample(frame):
                packets += stream.encode(part)
            packets += stream.encode(None)
        for stream in texts:
            packet = av.Packet(b"hello")
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = int(1000 * subtitle[0])
            packet.duration = int(1000 * subtitle[1])
            packets.append(packet)
        for packet in sorted(packets, key=lambda each: (each.dts or 0) * each.time_base):
            container.mux(packet)
    return path


def cut(path):
    """Keep about 60 %; of an MP4 so much that it ends within a box."""
    content = path.read_bytes()
    size = int(0.6 * len(content))
    path.write_bytes(content[: content.index(b"mdat", size) + 9 if b"moof" in content else size])


@every_kind
def test_sound_that_outlasts_the_pictures_leaves_them_whole(tmp_path, suffix, codec, sound, muxer):
    path = film(tmp_path / f"a.{suffix}", codec, muxer, sound=sound, seconds=5.0)
    reader, numbers = read(path)
    assert (numbers, reader.reason) == (list(range(FRAMES)), None)


@every_kind
def test_a_last_picture_that_stands_still_is_the_end(tmp_path, suffix, codec, sound, muxer):
    for seconds in (0.0, 0.7):
        path = film(tmp_path / f"a.{suffix}", codec, muxer, sound=sound, seconds=seconds, last=8)
        reader, numbers = read(path)
        assert (numbers, reader.reason) == (list(range(FRAMES)), None)


@pytest.mark.parametrize("subtitle", [(0.1, 9.0), (6.0, 2.0)])
def test_subtitles_that_outlast_the_pictures_leave_them_whole(tmp_path, subtitle):
    path = film(tmp_path / "a.mkv", "libx264", {}, subtitle=subtitle)
    without_tags(path)
    reader, numbers = read(path)
    assert (numbers, reader.reason) == (list(range(FRAMES)), None)


@pytest.mark.parametrize("tags", [True, False])
def test_a_subtitle_that_lasts_longer_does_not_hide_that_a_file_is_cut(tmp_path, tags):
    path = film(tmp_path / "a.mkv", "libx264", {}, subtitle=(0.0, 9.0))
    if not tags:
        without_tags(path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"hello") + 500])
    reader, numbers = read(path)
    assert 2 < len(numbers) < 18
    assert reader.reason == "truncated"


def without_tags(path):
    """Rename the tags of a Matroska file in which the muxer says how long each track is."""
    content = path.read_bytes()
    assert b"DURATION" in content
    path.write_bytes(content.replace(b"DURATION", b"XURATION"))
    with av.open(str(path)) as container:
        assert "DURATION" not in container.streams.video[0].metadata


def test_a_matroska_file_that_says_how_long_all_of_it_is_may_have_longer_sound(tmp_path):
    path = film(tmp_path / "a.mkv", "libx264", {}, sound="aac", seconds=6.0)
    without_tags(path)
    reader, numbers = read(path)
    assert (numbers, reader.reason) == (list(range(FRAMES)), None)


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize(
    ("suffix", "codec", "sound", "muxer"),
    [kind for kind in KINDS if kind[0] in ("mkv", "flv", "rm") or kind[3] == FRAGMENTED],
)
def test_a_file_with_sound_that_is_cut_short_is_truncated(
    tmp_path, suffix, codec, sound, muxer, tags
):
    path = film(tmp_path / f"a.{suffix}", codec, muxer, sound=sound, seconds=0.8)
    if suffix == "mkv" and not tags:
        without_tags(path)
    cut(path)
    reader, numbers = read(path)
    assert 2 < len(numbers) < 18
    assert reader.reason == "truncated"


@pytest.mark.parametrize("filling", [bytes, np.random.default_rng(0).bytes])
@pytest.mark.parametrize("suffix", ["mkv", "flv", "avi"])
def test_an_end_that_was_never_written_is_missing(tmp_path, suffix, filling):
    """As of a download for which room was made first."""
    path = numbered_clip(
        tmp_path / f"a.{suffix}", 60, codec="mpeg4" if suffix == "avi" else "libx264"
    )
    content = path.read_bytes()
    written = len(content) * 7 // 10
    path.write_bytes(content[:written] + filling(len(content) - written))
    reader, numbers = read(path)
    assert 2 < len(numbers) < 58
    assert reader.reason in ("truncated", "packet_errors")


# What stands behind the video

JOINED = [
    ("mp4", "libx264", {}),
    ("mp4", "libx264", FASTSTART),
    ("mov", "mpeg4", {}),
    ("flv", "libx264", {}),
    ("flv", "flv1", {}),
    ("flv", "libx264", {"flvflags": "no_duration_filesize"}),
    ("wmv", "wmv2", {}),
    ("apng", "apng", {}),
]
READ_ON = [
    ("mkv", "libx264", {}),
    ("webm", "libvpx", {}),
    ("avi", "mpeg4", {}),
    ("mxf", "mpeg2video", {}),
    ("h264", "libx264", {}),
    ("gif", "gif", {}),
]


def two_files(folder, suffix, codec, muxer):
    """Write the numbers 0 to 19, and 100 to 119."""
    how = {"codec": codec, "pix_fmt": PIX_FMTS.get(codec, "yuv420p"), "muxer": muxer, "ticks": 25}
    first = numbered_clip(folder / f"first.{suffix}", 20, **how)
    second = write_clip(folder / f"second.{suffix}", map(number_picture, range(100, 120)), **how)
    return first.read_bytes(), second.read_bytes()


@pytest.mark.parametrize(("suffix", "codec", "muxer"), JOINED)
def test_a_second_file_behind_the_first_makes_it_partial(tmp_path, suffix, codec, muxer):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"".join(two_files(tmp_path, suffix, codec, muxer)))
    reader, numbers = read(path)
    assert numbers == list(range(20))
    assert reader.reason == "trailing_data"
    assert read(path, max_frames=20)[0].reason is None


@pytest.mark.parametrize(("suffix", "codec", "muxer"), READ_ON)
def test_a_second_file_that_is_read_too_is_no_matter(tmp_path, suffix, codec, muxer):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"".join(two_files(tmp_path, suffix, codec, muxer)))
    reader, numbers = read(path)
    assert numbers == [*range(20), *range(100, 120)]
    assert reader.reason is None


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "flv", "gif", "apng"])
def test_other_bytes_behind_the_end_are_told_of_and_padding_is_not(tmp_path, suffix):
    codec = {"avi": "mpeg4", "gif": "gif", "apng": "apng"}.get(suffix, "libx264")
    how = {"codec": codec, "pix_fmt": PIX_FMTS.get(codec, "yuv420p")}
    path = numbered_clip(tmp_path / f"a.{suffix}", 20, **how)
    whole = path.read_bytes()
    assert read(path)[0].reason is None
    path.write_bytes(whole + bytes(70_000))
    assert read(path)[0].reason is None
    path.write_bytes(whole + np.random.default_rng(0).bytes(70_000))
    reader, numbers = read(path)
    assert (numbers, reader.reason) == (list(range(20)), "trailing_data")


def test_boxes_of_an_mp4_that_hold_no_video_may_stand_anywhere(tmp_path):
    path = numbered_clip(tmp_path / "a.mp4", 20)
    whole = path.read_bytes()
    for kind in (b"free", b"skip", b"uuid", b"mdat", b"meta"):
        path.write_bytes(whole + (5008).to_bytes(4, "big") + kind + b"\x17" * 5000)
        reader, numbers = read(path)
        assert (numbers, reader.reason) == (list(range(20)), None)


@every_kind
def test_mutants_of_joined_files_end_in_a_reason(tmp_path, suffix, codec, sound, muxer):
    path = film(tmp_path / f"a.{suffix}", codec, muxer, sound=sound, seconds=1.0, last=3)
    content, generator = path.read_bytes() * 2, np.random.default_rng(5)
    for number in range(40):
        mutant = bytearray(content)
        for place in generator.integers(0, len(mutant) if number % 2 else 400, 20):
            mutant[place] = generator.integers(0, 256)
        start, end = sorted(generator.integers(0, len(mutant), 2))
        if number % 3 == 0:
            del mutant[start:end]
        path.write_bytes(mutant)
        with suppress(VideoError):
            assert read(path)[0].reason in (None, *PARTIAL)


@pytest.mark.parametrize("kept", [4, 7, 8])
def test_a_fragmented_mp4_that_ends_within_a_box_is_truncated(tmp_path, kept):
    path = film(tmp_path / "a.mp4", "libx264", FRAGMENTED)
    content = path.read_bytes()
    box = content.index(b"moof", len(content) // 2) - 4
    path.write_bytes(content[: box + kept])
    assert read(path)[0].reason == "truncated"


@pytest.mark.parametrize("codec", ["gif", "apng"])
def test_an_animation_that_ends_within_a_picture_is_truncated(tmp_path, codec):
    path = tmp_path / f"a.{codec}"
    write_clip(path, noise(6), codec=codec, pix_fmt=PIX_FMTS[codec])
    content = path.read_bytes()
    for kept in range(len(content) // 2, len(content) * 9 // 10, len(content) // 40):
        path.write_bytes(content[:kept])
        with VideoReader(path) as reader:
            assert 1 < len(list(reader)) < 7
        assert reader.reason == "truncated", kept


def test_a_gif_without_a_trailer_is_whole(tmp_path):
    path = write_clip(tmp_path / "a.gif", noise(4), codec="gif", pix_fmt="rgb8")
    content = path.read_bytes()
    assert content[-1:] == b";"
    path.write_bytes(content[:-1])
    with VideoReader(path) as reader:
        assert len(list(reader)) == 4
    assert reader.reason is None


def test_dv_that_ends_within_a_frame_is_truncated(tmp_path):
    """FFmpeg fills the rest of the frame up, without a word."""
    pictures = [np.full((576, 720, 3), level, np.uint8) for level in (50, 90, 200)]
    path = write_clip(tmp_path / "a.dv", pictures, codec="dvvideo", ticks=25)
    content = path.read_bytes()
    assert len(content) == 3 * 144_000
    for kept, reason in ((432_000, None), (288_000, None), (360_000, "truncated")):
        path.write_bytes(content[:kept])
        with VideoReader(path) as reader:
            list(reader)
        assert reader.reason == reason
