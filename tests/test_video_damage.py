"""Videos that are damaged or cut short, and those that only look so."""

import struct

import av
import numpy as np
import pytest
from bad_videos import FASTSTART, noise
from clips import numbered_clip, packets_of, read, read_frames, refusal, write_clip, write_streams
from field_pictures import write_fields

from memfeat.video import VideoReader


@pytest.mark.parametrize(
    ("suffix", "expected"), [("mp4", 60), ("mov", 60), ("avi", None), ("mkv", None), ("flv", None)]
)
def test_a_file_cut_short_is_truncated(tmp_path, suffix, expected):
    muxer = FASTSTART if suffix in ("mp4", "mov") else None
    path = write_clip(tmp_path / f"clip.{suffix}", noise(60), gop_size=6, muxer=muxer)
    whole = read_frames(path).pixels
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
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


def replace_packets(path, packets, change):
    content = bytearray(path.read_bytes())
    for number in packets:
        start, size = packets_of(path)[number]
        content[start : start + size] = change(content[start : start + size])
    path.write_bytes(content)


def test_one_packet_that_does_not_decode_is_enough(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 20, codec="mpeg4", gop_size=1)
    replace_packets(path, [7], lambda packet: b"\xff" * len(packet))
    reader, numbers = read(path)
    assert numbers == [*range(7), *range(8, 20)]
    assert (reader.frames_expected, reader.reason) == (20, "packet_errors")
    assert read(path, max_frames=15)[0].reason == "packet_errors"
    assert read(path, max_frames=5)[0].reason is None


def test_damage_that_the_decoder_papers_over_is_reported(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", noise(20), codec="mpeg4", gop_size=1)
    replace_packets(path, [7], lambda packet: packet[: len(packet) // 2].ljust(len(packet), b"\0"))
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
        lambda packet: (
            (len(packet) - 4).to_bytes(4, "big") + filler + b"\xff" * (len(packet) - 7) + b"\x80"
        ),
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


def test_sound_that_goes_on_longer_does_not_make_the_pictures_truncated(tmp_path):
    path = tmp_path / "clip.flv"
    write_streams(path, 1.7, range(30))
    with av.open(str(path)) as container:
        assert container.duration > 1.6 * av.time_base
    reader, numbers = read(path)
    assert numbers == list(range(30))
    assert reader.reason is None


def streams_of(path):
    try:
        with av.open(str(path)) as container:
            return {stream.type for stream in container.streams}
    except av.FFmpegError:
        return set()


def test_a_video_cut_within_its_header_is_not_taken_for_sound(tmp_path):
    """FFmpeg shows the tracks that it has come to, and calls one of unknown type data."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_streams(whole, 1.0, range(30), options=FASTSTART)
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


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("each", [True, False])
def test_fields_in_packets_of_their_own_are_whole_frames(tmp_path, suffix, each):
    """Broadcasts are often so; a packet for each field is twice as many as frames."""
    rows = np.arange(64)[:, None] % 2 * 100
    shades = np.arange(12)[:, None, None] * 8 + 32
    lumas = np.broadcast_to(rows + shades, (12, 64, 64)).astype(np.uint8)
    path = write_fields(tmp_path / f"clip.{suffix}", lumas, each=each)
    with VideoReader(path) as reader:
        frames = np.stack([frame.pixels for frame in reader])
    wanted = ((lumas.astype(float) - 16) * 255 / 219).round()
    np.testing.assert_allclose(frames, np.repeat(wanted[..., None], 3, axis=3), atol=1)
    assert reader.reason is None
    assert "interlaced" in reader.warning


def cut_out(source, target, keyframe):
    """Copy what begins at a keyframe, counted from 0, without decoding, as editors do."""
    with (
        av.open(str(source)) as whole,
        av.open(str(target), "w", options={"use_editlist": "0"}) as cut,
    ):
        stream = cut.add_stream_from_template(whole.streams.video[0])
        keys = 0
        for packet in whole.demux(video=0):
            keys += packet.is_keyframe
            if packet.size and keys > keyframe:
                packet.stream = stream
                cut.mux(packet)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_pictures_that_lead_where_a_video_was_cut_out_are_not_missing(tmp_path, codec, suffix):
    """They need those before the cut; no decoder hands them out (RASL pictures in HEVC)."""
    common = "keyint=24:min-keyint=24:scenecut=0:bframes=7:b-adapt=0"
    options = {
        "libx264": {"x264-params": f"{common}:open-gop=1"},
        "libx265": {"x265-params": f"{common}:open-gop=1:log-level=none:pools=1"},
    }[codec]
    source = numbered_clip(tmp_path / "whole.mp4", 60, codec=codec, options=options)
    path = tmp_path / f"cut.{suffix}"
    cut_out(source, path, 1)
    reader, numbers = read(path)
    assert 16 < numbers[0] <= 24
    assert numbers == list(range(numbers[0], 60))
    assert len(packets_of(path)) > len(numbers) + 3
    assert reader.reason is None
