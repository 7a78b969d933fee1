"""The report's scatter, read back from its SVG as somebody would from the axes."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from memfeat.report.scatter import LAYERS, scatter

VIDEOS = 57


@pytest.fixture
def scores():
    generator = np.random.default_rng(7)
    truth = generator.uniform(0.31, 0.97, VIDEOS)
    return truth, truth + generator.normal(0, 0.2, VIDEOS)


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def axes(svg):
    """Return the lines through the printed ticks: from places in the picture to scores."""
    grid = [numbers(path.attrib["d"]) for path in svg.iter("path") if path.get("class") == "grid"]
    across = [each for each in svg.iter("text") if each.get("text-anchor") == "middle"]
    beside = [each for each in svg.iter("text") if each.get("text-anchor") == "end"]
    under = [each for each in across if each.get("class") is None]
    places = [(float(each.attrib["x"]), float(each.text)) for each in under]
    heights = [(line[4], float(each.text)) for line, each in zip(grid, beside, strict=True)]
    assert len(places) == len(heights) == len(grid) > 2
    for line, (x, _) in zip(grid, places, strict=True):
        assert line[0] == x, "a tick's number stands under its line"
    return [np.polynomial.Polynomial.fit(*zip(*each, strict=True), 1) for each in (places, heights)]


def dots(svg):
    """Return each dot's place, in the videos' order."""
    (group,) = [each for each in svg.iter("g") if each.get("class") == "videos"]
    layers = [np.reshape(numbers(p.attrib["d"].replace("h0", "")), (-1, 2)) for p in group]
    found = np.empty((sum(map(len, layers)), 2))
    for first, layer in enumerate(layers):
        found[first::LAYERS] = layer
    return found.T


def test_dots_read_off_the_axes_are_the_scores_and_predictions(scores):
    svg = ElementTree.fromstring(scatter("a", 0, *scores).svg)
    to_score, to_prediction = axes(svg)
    x, y = dots(svg)
    pixel = abs(to_score(1) - to_score(0))
    np.testing.assert_allclose(to_score(x), scores[0], atol=0.2 * pixel)
    np.testing.assert_allclose(to_prediction(y), scores[1], atol=0.2 * pixel)


def test_the_dashed_line_is_where_both_are_equal(scores):
    svg = ElementTree.fromstring(scatter("a", 0, *scores).svg)
    to_score, to_prediction = axes(svg)
    (line,) = [each for each in svg.iter("path") if each.get("class") == "equal"]
    for x, y in np.reshape(numbers(line.attrib["d"]), (2, 2)):
        assert to_score(x) == pytest.approx(to_prediction(y), abs=2e-3)


def test_the_edges_that_the_script_reads_are_those_of_the_axes(scores):
    drawn = scatter("a", 0, *scores)
    svg = ElementTree.fromstring(drawn.svg)
    (frame,) = [each for each in svg.iter("path") if each.get("class") == "axis"]
    left, top, bottom, right = numbers(frame.attrib["d"])
    to_score, to_prediction = axes(svg)
    found = [to_score(left), to_score(right), to_prediction(bottom), to_prediction(top)]
    assert found == pytest.approx([drawn.low, drawn.high] * 2, abs=2e-3)
    assert drawn.low < min(map(np.min, scores)) < max(map(np.max, scores)) < drawn.high


def test_the_measures_beside_it_are_scipys(scores):
    truth, prediction = scores
    measures = scatter("a", 0, truth, prediction).measures
    assert measures.n == VIDEOS
    assert measures.srocc == pytest.approx(spearmanr(truth, prediction).statistic)
    assert measures.plcc == pytest.approx(pearsonr(truth, prediction).statistic)
    assert measures.mse == pytest.approx(np.mean((truth - prediction) ** 2))


@pytest.mark.parametrize(
    ("videos", "why"), [(9, "the predictions are constant"), (1, "needs at least 3")]
)
def test_of_constant_predictions_or_a_single_video_there_is_a_picture_and_no_correlation(
    videos, why
):
    truth = np.linspace(0.4, 0.6, videos)
    drawn = scatter("a", 0, truth, np.full(videos, 0.5))
    assert (drawn.measures.srocc, drawn.measures.plcc) == (None, None)
    assert why in drawn.measures.undefined
    to_score, to_prediction = axes(ElementTree.fromstring(drawn.svg))
    x, y = dots(ElementTree.fromstring(drawn.svg))
    np.testing.assert_allclose(to_score(x), truth, atol=1e-3)
    np.testing.assert_allclose(to_prediction(y), 0.5, atol=1e-3)


def test_without_a_video_there_are_axes_alone():
    drawn = scatter("a", 0, np.empty(0), np.empty(0))
    axes(ElementTree.fromstring(drawn.svg))
    assert not next(ElementTree.fromstring(drawn.svg).iter("g"))
