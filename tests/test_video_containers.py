"""What a container says beside its packets: track, cropping, colours, animations, repetitions."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from clips import number_picture, numbered_clip, numbers_in, read, read_frames, refusal, write_clip
from PIL import Image
from skimage import data

from memfeat.video import VideoReader

X265 = {"x265-params": "log-level=none:pools=1"}
ENTRIES = ("moov", "trak", "mdia", "minf", "stbl", "stsd")
HEADERS = {"stsd": 16, "avc1": 86, "hev1": 86}  # bytes of a box before those in it


def add_box(path, parents, kind: str, content: bytes) -> None:
    """Put a box at the end of another, of an MP4 whose index comes last."""
    box = struct.pack(">I4s", 8 + len(content), kind.encode()) + content
    whole = bytearray(path.read_bytes())
    start, grown = 0, []
    for name in parents:
        while whole[start + 4 : start + 8] != name.encode():
            start += struct.unpack_from(">I", whole, start)[0]
        grown.append(start)
        start += HEADERS.get(name, 8)
    (size,) = struct.unpack_from(">I", whole, grown[-1])
    end = grown[-1] + size
    for at in grown:
        struct.pack_into(">I", whole, at, struct.unpack_from(">I", whole, at)[0] + len(box))
    path.write_bytes(whole[:end] + box + whole[end:])


# Cropping

PHOTO = data.astronaut()[:64, :160]


def test_the_clean_aperture_of_an_mp4_is_what_is_read(tmp_path):
    """By ISO 14496-12, 12.1.4: 140 x 50 of 160 x 64 pixels, 4 left and 3 above of its centre."""
    path = write_clip(tmp_path / "a.mp4", [PHOTO] * 2, options={"crf": "4"})
    whole = read_frames(path).pixels
    clap = struct.pack(">8i", 140, 1, 50, 1, -8, 2, -3, 1)
    add_box(path, [*ENTRIES, "avc1"], "clap", clap)
    np.testing.assert_array_equal(read_frames(path).pixels, whole[:, 4:54, 6:146])
    assert read_frames(path, size=24).pixels.shape == (2, 24, 24, 3)


@pytest.mark.parametrize(
    ("element", "rows", "columns"),
    [
        ("54aa", slice(0, 55), slice(None)),  # PixelCropBottom
        ("54bb", slice(9, None), slice(None)),  # PixelCropTop
        ("54cc", slice(None), slice(9, None)),  # PixelCropLeft
        ("54dd", slice(None), slice(0, 151)),  # PixelCropRight
    ],
)
def test_the_cropping_of_a_matroska_track_is_applied(tmp_path, element, rows, columns):
    path = write_clip(tmp_path / "a.mkv", [PHOTO] * 2, codec="ffv1", sample_aspect_ratio=0)
    whole = read_frames(path).pixels
    content, display_unit = path.read_bytes(), bytes.fromhex("54b28104")
    assert content.count(display_unit) == 1
    path.write_bytes(content.replace(display_unit, bytes.fromhex(element + "8109")))
    np.testing.assert_array_equal(read_frames(path).pixels, whole[:, rows, columns])


# Dolby Vision


@pytest.mark.parametrize(
    ("profile", "compatibility", "warned"),
    [(5, 0, True), (8, 1, False), (8, 4, False), (7, 6, False), (10, 0, True), (10, 1, False)],
)
def test_dolby_vision_that_nothing_else_can_show_is_read_with_a_warning(
    tmp_path, profile, compatibility, warned
):
    path = numbered_clip(tmp_path / "a.mp4", 3, codec="libx265", options=X265)
    assert read(path)[0].warning is None
    record = struct.pack(">BBHB19x", 1, 0, profile << 9 | 6 << 3 | 0b101, compatibility << 4)
    add_box(path, [*ENTRIES, "hev1"], "dvcC" if profile < 8 else "dvvC", record)
    reader, numbers = read(path)
    assert numbers == [0, 1, 2]
    assert (reader.warning is not None) is warned
    if warned:
        assert "is Dolby Vision alone" in reader.warning
        assert "convert it to SDR" in reader.warning


# Tracks


def write_tracks(path, *tracks: tuple[range, Disposition]) -> None:
    """Write video tracks that show numbers, with their dispositions."""
    with av.open(str(path), "w") as container:
        streams = []
        for _, disposition in tracks:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for stream, (numbers, _) in zip(streams, tracks, strict=True):
            for number in numbers:
                frame = av.VideoFrame.from_ndarray(number_picture(number), "rgb24")
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt, threads=1)))
            container.mux(stream.encode(None))


NONE, DEFAULT = Disposition(0), Disposition.default


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize(
    ("dispositions", "wanted"),
    [
        ((NONE, DEFAULT, NONE), 1),
        ((DEFAULT, NONE, NONE), 0),
        ((NONE, DEFAULT, DEFAULT), 1),
        ((DEFAULT, DEFAULT, DEFAULT), 0),
    ],
)
def test_of_several_tracks_the_first_default_one_is_read(tmp_path, suffix, dispositions, wanted):
    path = tmp_path / f"a.{suffix}"
    shown = [range(100 * number, 100 * number + 5) for number in range(3)]
    write_tracks(path, *zip(shown, dispositions, strict=True))
    reader, numbers = read(path)
    assert numbers == list(shown[wanted])
    assert reader.reason is None


# Theora

# Red, blue, blue, blue, red, red and blue, 32 x 720 pixels at 25 frames a second, turned into 4:4:4
# by BT.601 with numpy, and into this by `ffmpeg -c:v libtheora -q:v 10`.
STILL = Path(__file__).parent / "data" / "still.ogv"
SHOWN = "RBBBRRB"
COLOURS = {"R": (200, 60, 40), "B": (20, 40, 220)}
LINES, COLOUR_SPACE = 17, 36  # bytes from the beginning of Theora's first header, 6.2


def ogg_checksum(page: bytes) -> int:
    """Return the checksum of a page whose own is zero, by RFC 3533, 6."""
    remainder = 0
    for byte in page:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x104C11DB7 if remainder >> 31 else 0)
    return remainder


def theora(path, lines: int, colour_space: int):
    """Write the clip with so many lines, and another colour space, in its header."""
    content = bytearray(STILL.read_bytes())
    header, end = content.index(b"\x80theora"), content.index(b"OggS", 4)
    content[header + LINES : header + LINES + 3] = lines.to_bytes(3, "big")
    content[header + COLOUR_SPACE] = colour_space
    content[22:26] = bytes(4)
    content[22:26] = ogg_checksum(content[:end]).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def test_an_empty_packet_of_theora_shows_the_last_picture_again(tmp_path):
    with av.open(str(STILL)) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    assert [size > 0 for size in sizes[:7]] == [True, True, False, False, True, False, True]
    with VideoReader(theora(tmp_path / "a.ogv", 718, 0)) as reader:
        frames = list(reader)
    assert (reader.frames_decoded, reader.reason, reader.warning) == (7, None, None)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(7) / 25)
    for frame, name in zip(frames, SHOWN, strict=True):
        assert np.abs(frame.pixels.astype(int) - COLOURS[name]).max() <= 3


def test_what_is_shown_again_counts_as_a_frame_where_only_some_are_wanted():
    reader, _ = read(STILL, max_frames=3)
    assert (reader.frames_decoded, reader.reason) == (3, None)
    with VideoReader(STILL, first_frame=2) as reader:
        assert [frame.pts_seconds for frame in reader] == pytest.approx(np.arange(2, 7) / 25)


@pytest.mark.parametrize(
    ("lines", "colour_space", "is_601"),
    [(718, 0, True), (718, 1, True), (720, 0, False), (720, 1, True), (720, 2, True)],
)
def test_theora_is_bt_601_unless_it_is_hd_of_no_colour_space(tmp_path, lines, colour_space, is_601):
    path = theora(tmp_path / "a.ogv", lines, colour_space)
    with VideoReader(path, max_frames=1) as reader:
        (frame,) = reader
    assert frame.pixels.shape == (lines, 32, 3)
    off = np.abs(frame.pixels.astype(int) - COLOURS["R"]).max()
    assert off <= 3 if is_601 else off > 9


def test_theora_that_was_joined_is_whole(tmp_path):
    """The headers of the second file are packets of the stream."""
    path = tmp_path / "a.ogv"
    path.write_bytes(STILL.read_bytes() + theora(tmp_path / "b.ogv", 720, 1).read_bytes())
    with VideoReader(path) as reader:
        frames = list(reader)
    assert reader.reason is None
    shown = ["R" if frame.pixels[0, 0, 0] > 128 else "B" for frame in frames]
    assert "".join(shown) == SHOWN * 2
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(14) / 25)


# Encryption


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_an_encrypted_mp4_is_called_so(tmp_path, codec):
    key = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "a7" * 16}
    muxer = {"encryption_scheme": "cenc-aes-ctr", **key}
    options = X265 if codec == "libx265" else {}
    path = numbered_clip(tmp_path / "a.mp4", 3, codec=codec, options=options, muxer=muxer)
    error = refusal(path)
    assert error.reason == "unreadable"
    assert "is encrypted (DRM); give a copy that is not" in str(error)


# Animations


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("allow_images", [False, True])
def test_an_animated_avif_is_a_video_of_all_its_pictures(tmp_path, mode, allow_images):
    pictures = [Image.fromarray(number_picture(number)).convert(mode) for number in range(7)]
    path = tmp_path / "a.avif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    with VideoReader(path, allow_images=allow_images) as reader:
        frames = list(reader)
    assert numbers_in(frame.pixels for frame in frames) == list(range(7))
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(7) / 25)
    assert (reader.frames_expected, reader.reason) == (7, None)
    assert (reader.warning is not None) is (mode == "RGBA")


@pytest.mark.parametrize("pictures", [1, 3])
def test_transparency_of_avif_is_not_applied_and_warned_of(tmp_path, pictures):
    path, clear = tmp_path / "a.avif", Image.new("RGBA", (64, 48), (250, 9, 9, 0))
    animated = {"save_all": True, "append_images": [clear] * (pictures - 1)} if pictures > 1 else {}
    clear.save(path, **animated)
    with VideoReader(path, allow_images=True) as reader:
        assert len(list(reader)) == pictures
    assert "has its transparency in a track of its own, which is not applied" in reader.warning


@pytest.mark.skipif("webp_anim" in av.formats_available, reason="this FFmpeg reads them")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("allow_images", [False, True])
def test_an_animated_webp_is_refused_with_what_to_do(tmp_path, mode, allow_images):
    pictures = [Image.fromarray(number_picture(number)).convert(mode) for number in range(3)]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    error = refusal(path, allow_images=allow_images)
    assert error.reason == "unreadable"
    assert "an animated WebP, which this FFmpeg cannot decode; convert it to" in str(error)


def test_a_still_webp_with_transparency_is_an_image(tmp_path):
    path = tmp_path / "a.webp"
    Image.fromarray(np.full((8, 8, 4), 99, np.uint8)).save(path)
    assert path.read_bytes()[12:16] in (b"VP8X", b"VP8L")
    assert refusal(path).reason == "image"


# Images of several tiles


def box(kind: str, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind.encode()) + content


def full_box(kind: str, version: int, *parts: bytes) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def boxes_of(content: bytes) -> dict[str, bytes]:
    found, start = {}, 0
    while start < len(content):
        size, kind = struct.unpack_from(">I4s", content, start)
        found[kind.decode()] = content[start + 8 : start + size]
        start += size
    return found


def write_tiles(path, tiles) -> None:
    """Write an AVIF of tiles side by side, as ISO/IEC 23008-12, 6.6.2.3, and phones do."""
    data, properties = [], {}
    for tile in tiles:
        Image.fromarray(tile).save(path, "AVIF", quality=100, subsampling="4:4:4")
        parts = boxes_of(path.read_bytes())
        properties = boxes_of(boxes_of(boxes_of(parts["meta"][4:])["iprp"])["ipco"])
        data.append(parts["mdat"])
    (height, width), count = tiles[0].shape[:2], len(tiles)
    data.insert(0, struct.pack(">BBBBHH", 0, 0, 0, count - 1, width * count, height))
    items = range(2, 2 + count)
    names = [struct.pack(">HH4sx", 1, 0, b"grid")]
    names += [struct.pack(">HH4sx", item, 0, b"av01") for item in items]
    described = box(
        "ipco",
        full_box("ispe", 0, struct.pack(">II", width * count, height)),
        full_box("ispe", 0, struct.pack(">II", width, height)),
        box("av1C", properties["av1C"]),
    )
    owned = [struct.pack(">HBB", 1, 1, 1), *(struct.pack(">HBBB", n, 2, 2, 0x83) for n in items)]
    type_box, meta = box("ftyp", b"avif", bytes(4), b"avifmif1miaf"), b""
    for _ in range(2):  # the second time it is known how long it is
        start, places = len(type_box) + len(meta) + 8, []
        for item, each in enumerate(data, 1):
            places.append(struct.pack(">HHHII", item, 0, 1, start, len(each)))
            start += len(each)
        meta = full_box(
            "meta",
            0,
            full_box("hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box("pitm", 0, struct.pack(">H", 1)),
            full_box("iloc", 0, struct.pack(">BBH", 0x44, 0, len(data)), *places),
            full_box(
                "iinf", 0, struct.pack(">H", len(names)), *(full_box("infe", 2, n) for n in names)
            ),
            full_box("iref", 0, box("dimg", struct.pack(f">HH{count}H", 1, count, *items))),
            box("iprp", described, full_box("ipma", 0, struct.pack(">I", len(owned)), *owned)),
        )
    path.write_bytes(type_box + meta + box("mdat", *data))


def test_an_image_of_several_tiles_is_refused_and_not_taken_for_its_first(tmp_path):
    path = tmp_path / "a.avif"
    write_tiles(path, [np.full((64, 96, 3), color, np.uint8) for color in COLOURS.values()])
    with Image.open(path) as image:
        assert image.size == (192, 64)
    assert refusal(path).reason == "image"
    error = refusal(path, allow_images=True)
    assert error.reason == "unreadable"
    assert "is an image of several tiles, which memfeat does not put together" in str(error)
