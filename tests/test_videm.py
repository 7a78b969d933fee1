"""A made-up VIDEM folder, from its files to a run file by the commands of the how-to."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_datasets import movie, render, videm, videm_extras, youtube_id

from memfeat.cache import Cache
from memfeat.cli import main
from memfeat.datasets.submission import read_numbers
from memfeat.errors import ExitCode, ManifestError
from memfeat.runs import Run

PAGE = Path("docs/how-to/adverts.md").absolute()
PIPELINES = Path("pipelines").absolute()
COUNTS = (21, 4)
RUN_FILE = "me26videm_team_run1.csv"
CELL = "cells/ViT-avg+svr"
NOT_HERE = ("ViT-L-14-336", "minilm")  # caches whose weights `make test` does not have


def invoke(words: list[str]):
    return CliRunner().invoke(main, words)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which the commands of the how-to were run, all but the one that needs MiniLM."""
    home = tmp_path_factory.mktemp("home")
    made = videm(home / "data" / "VIDEM", COUNTS, render)
    videm_extras(home / "data" / "VIDEM", made)
    movie(home / "data" / "films")
    shutil.copytree(PIPELINES, home / "pipelines")
    pipeline = home / "pipelines" / "videm.toml"
    quick = pipeline.read_text().replace("[train]", "[train]\nmax_epochs = 2\nbootstrap = 50")
    quick = quick.replace("folds = 5", "folds = 3").replace('seeds = "0-2"', 'seeds = "0"')
    pipeline.write_text(quick)
    commands = re.findall(r"^\$ (memfeat .*)", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 10
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for command in commands:
            words = shlex.split(command.replace(" /data/", f" {home}/data/"))[1:]
            if "sentence/all-MiniLM-L6-v2" in words:
                continue
            result = invoke(words)
            expected = ExitCode.SOME_VIDEOS_FAILED if words[0] == "extract" else ExitCode.DONE
            assert result.exit_code == expected, f"{command}\n{result.output}"
    return home


def test_the_run_file_names_every_advert_of_the_list_once_with_both_scores(home):
    rows = list(csv.DictReader((home / RUN_FILE).read_text().splitlines()))
    wanted = [youtube_id(number) for number in range(21, 25)]
    assert [row["id"] for row in rows] == wanted
    assert [row["video_id"] for row in rows] == [str(number) for number in range(1021, 1025)]
    assert list(rows[0]) == ["video_id", "id", "memorability_score", "brand_memorability"]
    for column, run in (("memorability_score", "videm"), ("brand_memorability", "videm-brand")):
        folder = home / "runs" / run / CELL
        parts = [Run.load(folder / f"fold-{n}").predictions().of(wanted) for n in range(1, 4)]
        expected = np.mean([part.prediction for part in parts], axis=0).clip(0, 1)
        assert [float(row[column]) for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)
    sources = (home / f"{RUN_FILE}.sources.txt").read_text()
    assert "VIDEM, MediaEval 2025-26, memorability of the advert" in sources
    assert "VIDEM, MediaEval 2025-26, memorability of the brand" in sources


def test_the_grid_is_between_folds_of_channels_and_names_the_cache_that_is_not_there(home):
    table = json.loads((home / "runs/videm/ablation.json").read_text())
    assert table["split"] == "folds"
    assert {row["name"].split()[0] for row in table["rows"]} == {"ViT", "efficientnet-lite0"}
    systems = ("avg+mlp", "avg+ridge", "avg+svr")
    alone = {f"{cache} {system}" for cache in NOT_HERE for system in systems}
    both = {"ViT + minilm ViT and text", "ViT + minilm avg+ridge", "ViT + minilm avg+svr"}
    assert {each["name"] for each in table["failed"]} == alone | both
    assert all(each["missing_cache"] for each in table["failed"])
    errors = " ".join(each["error"] for each in table["failed"])
    assert re.search(r"--encoder ViT-L-14-336 .*--sampler fps:2 .*--max-seconds 60", errors)
    assert (
        "--encoder sentence/all-MiniLM-L6-v2 --text title --text /data/VIDEM/devset-stt" in errors
    )
    assert "The videos are of 5 groups by 'group', and intervals are over groups." in table["notes"]
    assert table["n"] == 20  # one has no video


def test_only_the_first_minute_is_read(home):
    assert Cache.open(home / "cache/videm/efficientnet-lite0").spec.max_seconds == 60


def test_a_run_file_of_adverts_needs_the_brands_run_and_the_organisers_list(home, monkeypatch):
    monkeypatch.chdir(home)
    memorability, brand = (f"runs/{name}/{CELL}" for name in ("videm", "videm-brand"))
    command = ["submission", memorability, "--layout", "videm", "-o", "none.csv"]
    refused = invoke([*command, "--brand", brand])
    assert refused.exit_code == ExitCode.USAGE
    assert "give --layout videm, --brand RUN and --ids FILE together" in refused.output
    Path("more.csv").write_text("id,video_id\nstranger,7\n")
    refused = invoke([*command, "--brand", brand, "--ids", "more.csv"])
    assert refused.exit_code == ExitCode.ERROR
    assert "1 of the 1 videos have no prediction: 'stranger'" in refused.output
    listed = ["id,video_id", *(f"{youtube_id(number)},{number}" for number in range(21, 25))]
    Path("fewer.csv").write_text("\n".join(listed[:3]))
    done = invoke([*command, "--brand", brand, "--ids", "fewer.csv"])
    assert done.exit_code == ExitCode.DONE, done.output
    assert (
        f"not in fewer.csv, and so not in the run file: 2 videos: {youtube_id(23)}" in done.output
    )
    Path("twice.csv").write_text("\n".join([*listed[:3], listed[2]]))
    refused = invoke([*command, "--brand", brand, "--ids", "twice.csv"])
    assert f"{youtube_id(22)!r} is listed twice" in refused.output


@pytest.mark.parametrize("number", ["7", "77"])
def test_an_advert_is_listed_once_whatever_its_number(tmp_path, number):
    path = tmp_path / "ids.csv"
    path.write_text(f"id,video_id\nadvert,{number}\nadvert,{number}\n")
    with pytest.raises(ManifestError, match="line 3: 'advert' is listed twice"):
        read_numbers(path)
