import re
import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.textpath import TextPath
from PIL import Image

from memfeat.errors import ConfigError
from memfeat.figures.plots import IntervalRow, intervals
from memfeat.figures.style import inline_svg, is_warning, picture_format, save
from memfeat.prediction.strip import strip_indices
from memfeat.prediction.timeline import draw_timeline, timeline_svg

SOURCES = ["features: made-up, 4-d", "scores: made up, not from people"]
BLUE, VERMILION = (0, 114, 178), (200, 78, 0)


@dataclass(frozen=True)
class Clip:
    pts_seconds: np.ndarray
    weights: np.ndarray | None
    effect: np.ndarray | None
    effect_undefined: str | None = None
    window: int = 1
    score: float = 0.734
    score_std: float | None = 0.012
    ratings: np.ndarray | None = None


def clip(effect, weights=True):
    effect = np.asarray(effect, float)
    times = 0.5 + np.arange(len(effect)) / 25
    return Clip(times, np.cos(times * 9) if weights else None, effect)


def grey(indices):
    return {index: np.full((36, 64, 3), 128, np.uint8) for index in indices}


def timeline(found, folder, picture="svg", title="clip.mp4", sources=SOURCES):
    path = folder / f"timeline.{picture}"
    draw_timeline(found, grey(strip_indices(found)), path, title=title, sources=sources)
    return path.read_bytes()


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def holds(png, colour):
    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(-1) < 8).sum())


def rows():
    return [
        IntervalRow("bigru+mlp", "model", 0.71, (0.6, 0.8), paper=0.7100),
        IntervalRow("avg+ridge", "baseline", 0.5, (0.3, 0.65)),
        IntervalRow("bigru+mlp on shuffled labels", "control", -0.02, (-0.2, 0.15)),
        IntervalRow("constant", "model", None, None),
    ]


def table_picture(picture, folder):
    path = folder / f"intervals.{picture}"
    save(intervals(rows(), label="SROCC", ceiling=0.9, ceiling_interval=(0.85, 0.93)), path)
    return path.read_bytes()


def timeline_picture(picture, folder):
    return timeline(clip(np.sin(np.arange(30))), folder, picture)


@pytest.mark.parametrize("picture", ["png", "svg"])
@pytest.mark.parametrize("draw", [timeline_picture, table_picture])
def test_the_same_input_gives_the_same_bytes_whatever_the_users_settings(draw, picture, tmp_path):
    first = draw(picture, tmp_path)
    with matplotlib.rc_context({"font.size": 31, "axes.grid": True, "svg.hashsalt": None}):
        assert draw(picture, tmp_path) == first


def test_files_carry_no_date_and_no_software_version(tmp_path):
    png = timeline_picture("png", tmp_path)
    position, chunks = 8, set()
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        chunks.add(png[position + 4 : position + 8])
        position += length + 12
    assert b"IDAT" in chunks
    assert not chunks & {b"tIME", b"tEXt", b"zTXt", b"iTXt"}
    assert b"CreationDate" not in timeline_picture("pdf", tmp_path)
    assert b"metadata" not in timeline_picture("svg", tmp_path)


@pytest.mark.parametrize(("sign", "there", "absent"), [(1, BLUE, VERMILION), (-1, VERMILION, BLUE)])
def test_bars_are_blue_where_a_frame_raises_the_score_and_vermilion_where_it_lowers_it(
    sign, there, absent, tmp_path
):
    found = clip(sign * (1 + np.arange(8)) * 1e-4)
    png = timeline(found, tmp_path, "png", sources=["features: CLIP"])
    assert holds(png, there) > 1000
    assert holds(png, absent) == 0


def test_bars_stand_at_their_frames_and_are_as_tall_as_their_effect():
    effect = np.array([0.0, 0.0, 0.004, 0.0, -0.002, 0.0])
    bare = draw_bars(effect)
    columns = {colour: np.nonzero(bare[colour].any(0))[0] for colour in (BLUE, VERMILION)}
    width = (columns[BLUE][-1] - columns[BLUE][0]) / 0.86
    assert (columns[VERMILION][0] - columns[BLUE][0]) / width == pytest.approx(2, abs=0.05)
    heights = {colour: bare[colour].sum(0).max() for colour in (BLUE, VERMILION)}
    assert heights[BLUE] / heights[VERMILION] == pytest.approx(2, rel=0.05)


def draw_bars(effect):
    """Masks of the bars alone: no frames beneath, so no lines or borders in their colours."""
    stream = BytesIO()
    draw_timeline(clip(effect, weights=False), {}, stream, title="", sources=[])
    pixels = np.asarray(Image.open(BytesIO(stream.getvalue())).convert("RGB")).astype(int)
    return {colour: np.abs(pixels - colour).max(-1) < 8 for colour in (BLUE, VERMILION)}


def test_the_title_tells_the_score_with_its_spread_and_sources_not_from_people_are_loud(tmp_path):
    """Names are drawn as they stand, and what the font lacks becomes a square."""
    svg = timeline(clip([0.1, -0.1]), tmp_path, title="$x_1$ <b>&日.mp4")
    styles = {each.text: each.get("style") for each in ET.fromstring(svg).iter() if each.text}
    assert "$x_1$ <b>&□.mp4: predicted score 0.734 ± 0.012 over seeds" in styles
    assert "font-weight: 700" not in styles[SOURCES[0]]
    assert "font-weight: 700" in styles[SOURCES[1]]
    assert "#c84e00" in styles[SOURCES[1]]
    one_seed = replace(clip(np.sin(np.arange(400))), score_std=None, window=2)
    lines = texts(timeline(one_seed, tmp_path))
    assert "clip.mp4: predicted score 0.734" in lines
    assert any("without 2 frames in a row" in line for line in lines)


@pytest.mark.parametrize(
    ("line", "loud"),
    [
        ("features: ViT-B-32 with RANDOM WEIGHTS: its features carry no learned content", True),
        ("scores: memfeat demo: rendered clips, scores from a formula, not from people", True),
        ("CONTROL: trained on shuffled scores, so that nothing could be learnt", True),
        ("features: ViT-L-14-336, openai weights (CLIP, OpenAI's image-text pairs), 1024-d", False),
        ("scores: Memento10k", False),
    ],
)
def test_loud_is_what_must_not_pass_for_the_real_thing(line, loud):
    assert is_warning(line) == loud


def test_without_weights_there_is_no_weight_panel_and_the_picture_says_so(tmp_path):
    with_panel = texts(timeline(clip([0.1, -0.1]), tmp_path))
    without = texts(timeline(clip([0.1, -0.1], weights=False), tmp_path))
    assert "weight" in with_panel
    assert "weight" not in without
    assert any("no weights of their own" in line for line in without)


def test_an_undefined_effect_shows_its_reason(tmp_path):
    found = Clip(np.zeros(1), np.ones(1), None, "the clip has one frame")
    assert "the clip has one frame" in texts(timeline(found, tmp_path))


def test_the_strip_shows_ten_frames_evenly_spread_with_the_strongest_among_them():
    effect = np.zeros(100)
    effect[37], effect[71] = 0.01, -0.02
    chosen = strip_indices(clip(effect))
    assert len(chosen) == 10
    assert {0, 37, 71, 99} <= set(chosen)
    assert list(chosen) == sorted(chosen)
    assert max(np.diff(chosen)) <= 20
    assert strip_indices(clip(np.zeros(3))) == (0, 1, 2)
    assert strip_indices(Clip(np.zeros(1), None, None, "one frame")) == (0,)


def test_every_chosen_frame_is_in_the_strip_at_its_time(tmp_path):
    found = clip(np.linspace(-1, 1, 50))
    svg = timeline(found, tmp_path)
    assert svg.count(b"<image") == 10
    for index in strip_indices(found):
        shown = f"{found.pts_seconds[index]:.2f} s"
        assert any(line.startswith(shown) for line in texts(svg) if line)


def test_intervals_name_every_row_and_every_kind_there_is(tmp_path):
    shown = texts(table_picture("svg", tmp_path))
    for text in [*(row.name for row in rows()), "undefined", "model", "control", "the paper"]:
        assert text in shown
    assert "ceiling" in shown
    save(intervals(rows()[:1], label="SROCC"), tmp_path / "b.svg")
    assert not {"ceiling", "control", "baseline"} & set(texts((tmp_path / "b.svg").read_bytes()))


def test_an_inline_figure_takes_the_pages_colours_and_refers_to_nothing_outside():
    figure = intervals(rows(), label="<SROCC>", ceiling=0.9)
    svg = inline_svg(figure, 'a "table" <of> rows', "one")
    root = ET.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", 'a "table" <of> rows')
    assert "var(--blue)" in svg
    assert "#0072b2" not in svg
    assert "http" not in svg
    assert "&lt;SROCC&gt;" in svg
    references = [element.get("href") for element in root.iter() if element.get("href")]
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert references
    assert all(reference.removeprefix("#") in ids for reference in references)
    other = {e.get("id") for e in ET.fromstring(inline_svg(figure, "", "two")).iter()}
    assert ids & other <= {None}


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.txt"])
def test_another_suffix_is_refused_before_anything_is_drawn(name, tmp_path):
    with pytest.raises(ConfigError, match=r"end its name in one of \.png, \.svg, \.pdf"):
        draw_timeline(clip([1.0]), {}, tmp_path / name, title="", sources=[])
    assert not list(tmp_path.iterdir())
    assert picture_format(Path("A.PNG")) == "png"


def test_drawing_needs_no_pyplot_whose_state_is_global():
    assert not [path for path in Path("memfeat").rglob("*.py") if "pyplot" in path.read_text()]


def paths(svg):
    """The paths of an SVG by the colour that fills them, as boxes: left, right, top, bottom."""
    boxes = {"blue": [], "vermilion": []}
    for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        shown = element.get("style", "")
        for name, colour in (("blue", "#0072b2"), ("vermilion", "#c84e00")):
            if f"fill: {colour}" in shown or f"fill: var(--{name})" in shown:
                for part in element.get("d").split("M")[1:]:
                    numbers = np.array(re.findall(r"[\d.]+", part), float).reshape(-1, 2)
                    boxes[name].append([*np.ptp(numbers, axis=0), *numbers.min(axis=0)])
    return {name: np.array(found) for name, found in boxes.items()}


def test_the_timeline_of_a_page_is_that_of_the_picture(tmp_path):
    """Bar for bar: the same colours, widths and heights, in the page's own scale."""
    found = clip(np.random.default_rng(5).normal(0, 0.001, 40))
    drawn = timeline(found, tmp_path)
    picture = paths(drawn)
    inline = timeline_svg(found, "one").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    page = paths(inline)
    for name, bars in picture.items():
        assert len(bars) == len(page[name]) > 10
        assert (bars[:, 1] > 0).all()
        for column in (0, 1):  # widths and heights
            scale = page[name][:, column].sum() / bars[:, column].sum()
            np.testing.assert_allclose(page[name][:, column], bars[:, column] * scale, atol=0.05)
    labels = [each for each in texts(inline) if re.fullmatch("\\W?0\\.\\d+", each)]
    assert len(set(labels)) == len(labels) > 2
    assert set(labels) <= set(texts(drawn))
    assert "raised most by the frames at" in ET.fromstring(inline).get("aria-label")


@pytest.mark.parametrize("seconds", [0.2, 2.0, 2.6, 30.0, 4000.0])
def test_times_below_a_pages_timeline_do_not_touch_each_other(seconds):
    found = replace(clip(np.ones(20)), pts_seconds=np.linspace(0, seconds, 20, endpoint=False))
    svg = timeline_svg(found, "one").replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    labels = [
        (float(each.get("x")), TextPath((0, 0), each.text, size=8).get_extents().width)
        for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        if re.fullmatch(r"[\d.]+ s", each.text)
    ]
    assert len(labels) >= 2
    for (left, wide), (right, other) in pairwise(labels):
        assert right - left > (wide + other) / 2 + 5
