"""The page of Table 2: its numbers, Figure 2's scatters and Figure 3's worst predictions."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from test_report import Page
from test_transfer import RECIPE, RULES, grid, make

from memfeat.ablation.transfer import plan_transfer, run_transfer
from memfeat.errors import RunError
from memfeat.report import write_report
from memfeat.runs import pair_folder, read_predictions
from memfeat.video import read_frames, write_video


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two datasets whose even clips can be looked at, each trained on, with the paper's figures."""
    home = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(5)
    for name in RULES:
        make(home, name)
    for number in range(0, 23, 2):
        tiles = generator.integers(0, 256, (6, 3, 4, 3), dtype=np.uint8)
        write_video(home / f"v{number}.mp4", tiles.repeat(16, axis=1).repeat(16, axis=2), fps=5)
    paper = [{"trained_on": "one", "evaluated_on": "two", "split": "dev", "srocc": 0.452}]
    config = grid(home, paper=paper)
    run_transfer(config, plan_transfer(config, RECIPE))
    return config.run


@pytest.fixture(scope="module")
def table(study):
    return json.loads((study / "transfer.json").read_text())


@pytest.fixture(scope="module")
def page(study):
    return Page(write_report(study))


def test_every_number_of_the_table_is_the_results(page, table):
    rows = page.table("Trained on")[1:]
    assert len(rows) == len(table["rows"]) == 8
    for cells, row in zip(rows, table["rows"], strict=True):
        texts = [cell["text"].strip() for cell in cells[:3]]
        assert texts == [row["trained_on"], row["evaluated_on"], row["split"]]
        again = row["recalibrated"]
        expected = [row["n"]]
        for values, name in ((row, "srocc"), (row, "plcc")):
            expected += [values[name], values[f"{name}_std"], *values[f"{name}_interval"]]
        expected += [row["bias"], row["bias_std"]]
        for values in (row, again):
            expected += [values["mse"], values["mse_std"], *values["mse_interval"]]
        expected += [row["paper"]["srocc"]] if row["paper"] else []
        assert [float(value) for cell in cells for value, _ in cell["data"]] == expected


def test_each_pair_has_a_scatter_of_each_split(page):
    labels = [svg["aria-label"] for svg in page.of("svg")]
    counts = {"dev": 6, "test": 5}
    assert labels == [
        f"Scatter plot of {a} to {b}, {split} split: measured against predicted score of "
        f"{counts[split]} videos"
        for split in counts
        for a in RULES
        for b in RULES
    ]


def test_each_pair_shows_its_worst_with_prediction_and_truth_in_brackets(page, study):
    section = page.words.partition("Worst predictions one to one")[2]
    for a in RULES:
        for b in RULES:
            words = f"The videos of {b}'s dev split that the model of {a} is most wrong about."
            assert words in section
            part = section.partition(words)[2]
            columns = read_predictions(pair_folder(study, a, b) / "predictions.csv")
            dev = np.flatnonzero(np.array(columns.split) == "dev")
            errors = np.abs(columns.prediction - columns.score)[dev]
            worst = dev[np.argsort(-errors)[:3]]
            shown = [
                f"{columns.prediction[i]:.3f} ({columns.score[i]:.3f}) {columns.video_id[i]}"
                for i in worst
            ]
            places = [part.index(text) for text in shown]
            assert places == sorted(places)


def test_the_pictures_are_frames_of_those_videos(page, study):
    assert page.of("img")
    for attrs in page.of("img"):
        name = attrs["alt"].removeprefix("A frame of ")
        shown = np.asarray(Image.open(BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))))
        frames = read_frames(study.parent / f"{name}.mp4").pixels.astype(float)
        distances = np.sort(np.abs(frames - shown).mean((1, 2, 3)))
        assert distances[0] < 12 < distances[1]
    assert page.words.count("video not on this disk") + len(page.of("img")) == 12


def test_what_the_result_rests_on_is_said_before_it(page):
    before = page.words.partition("Results Mean over seeds")[0]
    assert "RANDOM WEIGHTS" in before
    for name in RULES:
        assert f"scores of {name}: made up by rule {name}, not from people" in before


def test_the_page_needs_nothing_but_itself_and_its_ids_are_unique(page):
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object"}
    for _, attributes in page.elements:
        for attribute, value in attributes.items():
            if attribute in ("src", "href"):
                assert value.startswith(("#", "data:image/"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for attrs in page.of("a")} | {attrs["href"] for attrs in page.of("use")}
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_pairs_without_a_result_are_listed_and_a_page_without_any_stands(study, table, tmp_path):
    failed = {"trained_on": "one", "evaluated_on": "gone", "error": "there is no cache <b>gone</b>"}
    bare = table | {"rows": [], "failed": [failed], "runs": {}, "notes": []}
    (tmp_path / "transfer.json").write_text(json.dumps(bare))
    page = Page(write_report(tmp_path))
    assert "one to gone: there is no cache <b>gone</b>" in page.words
    assert "1 more have no result" in page.words
    assert not page.of("svg")


def test_a_damaged_result_is_refused_with_the_field_and_the_command(table, tmp_path):
    damaged = json.loads(json.dumps(table))
    damaged["rows"][2]["bias"] = "much"
    (tmp_path / "transfer.json").write_text(json.dumps(damaged))
    with pytest.raises(RunError, match=r"'rows\.2\.bias' is 'much'.*`memfeat transfer` again"):
        write_report(tmp_path)
