"""MPEG transport streams that were joined, and those of which a part was lost."""

import av
import numpy as np
import pytest
from bad_videos import noise
from clips import number_picture, read, write_clip

from memfeat.video import VideoReader

PACKET = 188
X265 = {"x265-params": "log-level=none:pools=1:bframes=0"}
CODECS = {
    "libx264": {"max_b_frames": 2},
    "libx265": {"options": X265},
    "mpeg2video": {"max_b_frames": 2},
}


def numbered(path, first: int, count: int = 20, **arguments):
    """Write a transport stream that shows numbers."""
    pictures = map(number_picture, range(first, first + count))
    return write_clip(path, pictures, **{"gop_size": 10, "ticks": 25} | arguments)


def packets_of(path, pid: int = 256) -> tuple[list[bytes], list[int]]:
    """Return all packets of a stream, and the numbers of those of a PID."""
    content = path.read_bytes()
    packets = [content[at : at + PACKET] for at in range(0, len(content), PACKET)]
    own = [n for n, p in enumerate(packets) if (p[1] & 31) << 8 | p[2] == pid and p[3] & 0x10]
    return packets, own


def counting_on(packets: list[bytes], own: list[int], start: int) -> bytes:
    """Let a PID's counter jump by 5 at its packet `start`."""
    for n in own[start:]:
        packet = bytearray(packets[n])
        packet[3] = packet[3] & 0xF0 | (packet[3] + 5) & 15
        packets[n] = bytes(packet)
    return b"".join(packets)


def starts_of(packets: list[bytes], own: list[int]) -> list[int]:
    """Return which of a PID's packets are the first of a frame."""
    return [place for place, n in enumerate(own) if packets[n][1] & 0x40]


def is_flagged(path) -> bool:
    """Return whether FFmpeg takes a packet for damaged."""
    with av.open(str(path)) as container:
        return any(packet.is_corrupt for packet in container.demux(video=0))


@pytest.mark.parametrize("codec", CODECS)
def test_joined_streams_whose_counters_start_anew_are_whole(tmp_path, codec):
    parts = [numbered(tmp_path / f"{n}.ts", n, codec=codec, **CODECS[codec]) for n in (0, 20, 40)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert is_flagged(path)
    reader, numbers = read(path)
    assert numbers == list(range(60))
    assert reader.reason is None
    assert read(path, max_frames=50)[0].reason is None


@pytest.mark.parametrize("start", [0, 10, 100, 1000])
def test_joined_streams_are_whole_whatever_their_times(tmp_path, start):
    first = numbered(tmp_path / "0.ts", 0)
    second = numbered(tmp_path / "1.ts", 20, times=range(start, start + 20))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    reader, numbers = read(path)
    assert (numbers, reader.reason) == (list(range(40)), None)


@pytest.mark.parametrize("codec", CODECS)
def test_a_counter_that_jumps_between_two_frames_is_no_damage(tmp_path, codec):
    path = numbered(tmp_path / "a.ts", 0, codec=codec, **CODECS[codec])
    packets, own = packets_of(path)
    for start in starts_of(packets, own)[5:12:3]:
        path.write_bytes(counting_on(list(packets), own, start))
        assert is_flagged(path)
        reader, numbers = read(path)
        assert (numbers, reader.reason) == (list(range(20)), None)


def test_an_announced_jump_of_a_counter_is_no_damage(tmp_path):
    path = numbered(tmp_path / "a.ts", 0, codec="mpeg2video")
    packets, own = packets_of(path)
    place = next(n for n in starts_of(packets, own)[5:] if packets[own[n]][3] & 0x20)
    packet = bytearray(packets[own[place]])
    packet[5] |= 0x80  # discontinuity_indicator
    packets[own[place]] = bytes(packet)
    path.write_bytes(counting_on(packets, own, place))
    assert not is_flagged(path)
    assert read(path)[0].reason is None


@pytest.mark.parametrize("codec", CODECS)
def test_every_packet_that_is_lost_is_noticed(tmp_path, codec):
    """Of frames of many packets and of one; but for the first frame, and the last."""
    pictures = [*noise(4), *[np.zeros((64, 96, 3), np.uint8)] * 4, *noise(4)]
    path = write_clip(tmp_path / "a.ts", pictures, codec=codec, ticks=25, **CODECS[codec])
    packets, own = packets_of(path)
    starts = starts_of(packets, own)
    assert len(starts) == 12
    for place in range(starts[1], starts[-1], 3):
        path.write_bytes(b"".join(packets[: own[place]] + packets[own[place] + 1 :]))
        with VideoReader(path) as reader:
            list(reader)
        assert reader.reason in ("packet_errors", "truncated"), place


@pytest.mark.parametrize("codec", CODECS)
def test_a_frame_that_is_lost_as_a_whole_is_noticed(tmp_path, codec):
    path = numbered(tmp_path / "a.ts", 0, codec=codec, **CODECS[codec])
    packets, own = packets_of(path)
    starts = starts_of(packets, own)
    lost = own[starts[7] : starts[8]]
    path.write_bytes(b"".join(p for n, p in enumerate(packets) if n not in lost))
    assert read(path)[0].reason == "packet_errors"


def test_a_packet_that_was_received_with_errors_is_noticed(tmp_path):
    path = numbered(tmp_path / "a.ts", 0)
    packets, own = packets_of(path)
    packet = bytearray(packets[own[9]])
    packet[1] |= 0x80  # transport_error_indicator
    packets[own[9]] = bytes(packet)
    path.write_bytes(b"".join(packets))
    assert read(path)[0].reason == "packet_errors"


def test_a_joined_stream_that_is_damaged_too_is_partial(tmp_path):
    parts = [numbered(tmp_path / f"{n}.ts", n, codec="libx265", options=X265) for n in (0, 20)]
    packets, own = packets_of(parts[1])
    place = next(n for n in range(30, len(own)) if not packets[own[n]][1] & 0x40)
    del packets[own[place]]
    path = tmp_path / "joined.ts"
    path.write_bytes(parts[0].read_bytes() + b"".join(packets))
    assert read(path)[0].reason == "packet_errors"


def test_streams_of_blu_ray_whose_packets_are_further_apart_are_read_alike(tmp_path):
    muxer = {"mpegts_m2ts_mode": "1"}
    parts = [numbered(tmp_path / f"{n}.m2ts", n, muxer=muxer).read_bytes() for n in (0, 20)]
    path = tmp_path / "joined.m2ts"
    path.write_bytes(b"".join(parts))
    reader, numbers = read(path)
    assert (numbers, reader.reason) == (list(range(40)), None)
    packets = [parts[0][at : at + 192] for at in range(0, len(parts[0]), 192)]
    own = [n for n, p in enumerate(packets) if (p[5] & 31) << 8 | p[6] == 0x1011 and p[7] & 0x10]
    del packets[own[len(own) // 2]]
    path.write_bytes(b"".join(packets))
    assert read(path)[0].reason == "packet_errors"


# Other PIDs


@pytest.mark.parametrize("count", [20, 400])
def test_a_stream_that_goes_on_with_other_pids_is_partial(tmp_path, count):
    """The longer one's second half stands behind what FFmpeg looks at first."""
    first = numbered(tmp_path / "0.ts", 0, count)
    muxer = {"mpegts_start_pid": "0x200", "mpegts_pmt_start_pid": "0x1100"}
    second = numbered(tmp_path / "1.ts", 500, muxer=muxer)
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    reader, numbers = read(path)
    assert numbers == list(range(count))
    assert reader.reason == "trailing_data"
    assert read(path, max_frames=count)[0].reason is None


def test_two_videos_beside_each_other_in_one_stream_are_whole(tmp_path):
    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg2video", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
        for number in range(30):
            for place, stream in enumerate(streams):
                if number < 25 or place:
                    frame = av.VideoFrame.from_ndarray(number_picture(number + 100 * place))
                    frame = frame.reformat(format="yuv420p", threads=1)
                    frame.pts = number
                    container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    reader, numbers = read(path)
    assert numbers == list(range(25))
    assert reader.reason is None


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [188, 5000, 200_000])
def test_padding_behind_a_transport_stream_is_fine(tmp_path, codec, size):
    path = numbered(tmp_path / "a.ts", 0, codec=codec, **CODECS[codec])
    null = bytes([0x47, 0x1F, 0xFF, 0x10]) + b"\xff" * 184
    whole = path.read_bytes()
    for padding in (null * (size // PACKET), bytes(size)):
        path.write_bytes(whole + padding)
        reader, numbers = read(path)
        assert (numbers, reader.reason) == (list(range(20)), None)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [100, 500, 70_000])
def test_bytes_that_are_no_packets_behind_a_transport_stream_are_told_of(tmp_path, codec, size):
    path = numbered(tmp_path / "a.ts", 0, codec=codec, **CODECS[codec])
    whole = path.read_bytes()
    for content in (b"PK\3\4" + np.random.default_rng(0).bytes(size), b"hello\n" * (size // 6)):
        path.write_bytes(whole + content)
        reader, numbers = read(path)
        assert (numbers, reader.reason) == (list(range(20)), "trailing_data")
        assert read(path, max_frames=20)[0].reason is None
        path.write_bytes(whole + bytes(size) + content)
        assert read(path)[0].reason == "trailing_data"


def test_bytes_behind_a_stream_of_blu_ray_are_told_of(tmp_path):
    path = numbered(tmp_path / "a.m2ts", 0, muxer={"mpegts_m2ts_mode": "1"})
    whole = path.read_bytes()
    assert len(whole) % 192 == 0
    for content, reason in ((b"", None), (bytes(999), None), (b"hello\n" * 99, "trailing_data")):
        path.write_bytes(whole + content)
        assert read(path)[0].reason == reason


def test_a_stream_that_goes_on_behind_zeros_is_read_on_and_is_damaged(tmp_path):
    path = numbered(tmp_path / "a.ts", 0)
    packets, own = packets_of(path)
    start = own[starts_of(packets, own)[10]]
    path.write_bytes(b"".join(packets[:start]) + bytes(200_000) + b"".join(packets[start:]))
    reader, numbers = read(path)
    assert numbers[-1] == 19
    assert reader.reason == "packet_errors"
