from pathlib import Path

import pytest
from click.testing import CliRunner

from memfeat.cli import main
from memfeat.config import ExtractConfig, TrainConfig, build
from memfeat.errors import ConfigError
from memfeat.storage import Url, parse_location
from memfeat.storage.locations import name_below


@pytest.mark.parametrize(
    "text", ["s3://bucket/x//y", "memory://videos/v.mp4", "https://host/m.csv?token=a/b#c"]
)
def test_settings_carry_a_url_untouched_to_json_and_back(text):
    config = build(TrainConfig, {"manifest": text, "cache": [text, "local"]}, "test")
    assert config.manifest == Url(text)
    again = build(TrainConfig, config.model_dump(mode="json"), "test")
    assert again == config
    assert again.cache == (Url(text), Path("local"))


def test_a_url_joins_a_path_as_a_folder_does():
    folder = Url.of("s3://bucket/data/")
    assert str(folder / "clips/../v 1.mp4") == "s3://bucket/data/v 1.mp4"
    assert str(folder / "../v.mp4") == "s3://bucket/v.mp4"
    assert str(Url.of("s3://bucket/a//b") / "./v.mp4") == "s3://bucket/a//b/v.mp4"
    assert folder / "/local/v.mp4" == Path("/local/v.mp4")
    assert Path("cache") / folder == folder
    assert (
        str(Url.of("https://host/data") / "50% off#1.mp4")
        == "https://host/data/50%25%20off%231.mp4"
    )


def test_a_url_has_the_name_suffix_and_parent_of_its_file():
    url = Url.of("https://host/data/m.jsonl?version=1.csv")
    assert (url.name, url.suffix, str(url.parent)) == ("m.jsonl", ".jsonl", "https://host/data")
    assert Url.of("s3://bucket/what?.csv").name == "what?.csv"
    assert str(Url.of("memory://m.csv").parent / "v.mp4") == "memory:///v.mp4"
    assert str(Url.of("file:///m.csv").parent / "v.mp4") == "file:///v.mp4"


def test_what_lies_below_a_root_is_called_by_the_rest():
    assert name_below(Url("s3://b/cache/i3d/a"), Url("s3://b/cache")) == "i3d/a"
    assert name_below(Path("cache/i3d"), Path("cache")) == "i3d"
    assert name_below(Url("s3://b/x"), Path("cache")) == "s3://b/x"


@pytest.mark.parametrize("text", ["s3://", "s3:///", "s3://user:secret@host/x", "s3://b/\0"])
def test_a_url_that_names_nothing_or_holds_a_password_is_refused(text):
    with pytest.raises(ValueError, match=r"it is not a URL|it holds a password"):
        parse_location(text)
    with pytest.raises(ConfigError, match="cache = "):
        build(ExtractConfig, {"manifest": "m.csv", "cache": text}, "test")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--run", "s3://b/run"],
        ["predict", "runs/mine", "clip.mp4", "-o", "s3://b/scores.csv"],
        ["cache", "import", "x.npz", "-o", "s3://b/cache", "--name", "x"],
        ["manifest", "from", "videomem", "data", "-o", "s3://b/m.csv"],
    ],
    ids=" ".join,
)
def test_what_has_to_be_on_this_machine_is_refused_as_a_url(arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "is a URL; name a file or folder on this machine" in result.stderr
    with pytest.raises(ConfigError, match="run = 's3://b/run' is not allowed: it is a URL"):
        build(TrainConfig, {"manifest": "m", "cache": "c", "run": "s3://b/run"}, "test")
