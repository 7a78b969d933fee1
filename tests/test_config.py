from pathlib import Path

import pytest
from pydantic import ValidationError

from memfeat.config import (
    AblationConfig,
    ExtractConfig,
    TrainConfig,
    TransferConfig,
    build,
    parse_seeds,
    read_pipeline,
)
from memfeat.errors import ConfigError, ExitCode

PIPELINES = sorted(Path("pipelines").glob("*.toml"))
TRAIN = {"manifest": "m.csv", "cache": "c"}


def test_the_defaults_are_the_papers_recipe():
    config = TrainConfig(manifest=Path("m"), cache=Path("c"))
    assert (config.aggregator, config.head) == (("bigru",), "mlp")
    assert (config.batch_size, config.max_epochs, config.patience_epochs) == (8, 100, 5)
    assert (config.learning_rate, config.learning_rate_decay) == (1e-4, 0.95)
    assert (config.decay_every_epochs, config.weight_decay) == (5, 0)
    assert (config.shuffle_frames, config.monitor) == (True, "l1")
    assert ExtractConfig(manifest=Path("m"), cache=Path("c")).encoder == "ViT-L-14-336"


def test_the_train_pipeline_spells_out_the_defaults():
    written = build(TrainConfig, read_pipeline(Path("pipelines/train.toml"))["train"], "test")
    default = TrainConfig(manifest=written.manifest, cache=written.cache)
    same = written.model_copy(update={"aggregators": {}, "heads": {}})
    assert same == default


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_every_shipped_pipeline_is_valid(path):
    tables = read_pipeline(path)
    assert tables
    for name, settings in {"ablation": AblationConfig, "transfer": TransferConfig}.items():
        if name in tables:
            build(settings, tables[name], str(path))
    for name, settings in {"extract": ExtractConfig, "train": TrainConfig}.items():
        if name in tables:
            build(settings, {"manifest": "any", "cache": "any", **tables[name]}, str(path))


@pytest.mark.parametrize(
    ("written", "seeds"),
    [("3", (3,)), (3, (3,)), ("0-4", (0, 1, 2, 3, 4)), ("0,2,7-8", (0, 2, 7, 8)), ([1, 2], (1, 2))],
)
def test_seeds_are_read_as_people_write_them(written, seeds):
    assert parse_seeds(written) == seeds
    assert TrainConfig(**TRAIN, seeds=written).seeds == seeds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lerning_rate": 1}, ["'lerning_rate'", "Did you mean 'learning_rate'"]),
        ({"batch_size": 0}, ["batch_size = 0", "greater than or equal to 1"]),
        ({"seeds": "a-b"}, ["seeds = 'a-b'", "write 0, 0-4 or 0,2,7"]),
        ({"seeds": [1, 1]}, ["seeds [1, 1] repeat"]),
        ({"seeds": []}, ["seeds = []", "at least 1"]),
        ({"seeds": "0-99999999999999999999"}, ["10000 seeds or more", "give fewer"]),
        ({"seeds": "\u00b2"}, ["are not numbers or ranges"]),
        ({"heads": {"a\nb": 3}}, [r"heads.'a\nb' = 3", "valid dictionary"]),
        ({"monitor": "loss"}, ["monitor = 'loss'", "'l1', 'srocc' or 'plcc'"]),
        ({"learning_rate": "fast"}, ["learning_rate = 'fast'", "number"]),
    ],
)
def test_a_bad_setting_names_file_field_value_and_rule_in_one_line(values, words):
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, TRAIN | values, "mine.toml [train]")
    for word in ["mine.toml [train]", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_missing_setting_names_its_flag():
    with pytest.raises(ConfigError, match="cache is missing; set it there or give --cache"):
        build(TrainConfig, {"manifest": "m.csv"}, "options")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[train\n", "is not a TOML file"),
        (b"[trian]\n", "Did you mean 'train'"),
        (b"train = 3\n", "write \\[train\\]"),
        (b"\xff\xfe", "is not a TOML file"),
        (b"a = " + b"[" * 5000, "is not a TOML file: .*recursion"),
        (b"a = 1" + b"0" * 5000, "is not a TOML file: .*4300 digits"),
        (b'extends = "\\u0000"', "name a pipeline file"),
        (b'extends = ""', "name a pipeline file"),
    ],
)
def test_a_broken_pipeline_is_refused_with_its_path(tmp_path, content, words):
    path = tmp_path / "p.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_pipeline(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["table1", "pipelines/table1.toml"])
def test_shipped_pipelines_are_found_wherever_memfeat_runs(tmp_path, monkeypatch, name):
    expected = read_pipeline(Path("pipelines/table1.toml"))
    monkeypatch.chdir(tmp_path)
    assert read_pipeline(Path(name)) == expected
    (tmp_path / "table1.toml").write_text("[train]\nmax_epochs = 3\n")
    assert read_pipeline(Path("table1.toml")) == {"train": {"max_epochs": 3}}
    with pytest.raises(ConfigError, match=r"nope: No such file .*one of .*table1, table1-smoke"):
        read_pipeline(Path("nope"))


def test_a_missing_pipeline_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read pipeline .*: No such file"):
        read_pipeline(tmp_path / "none.toml")


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_a_pipeline_that_extends_another_changes_what_it_names_and_no_more(tmp_path):
    write(tmp_path, "base.toml", "[train]\nhead = 'mlp'\nseeds = [1, 2]\nheads.mlp.hidden = [3]\n")
    middle = "extends = 'base.toml'\n[train]\nseeds = [7]\nheads.linear = {}\n"
    write(tmp_path, "middle.toml", middle)
    last = write(tmp_path, "last.toml", "extends = 'middle.toml'\n[extract]\nencoder = 'x'\n")
    heads = {"mlp": {"hidden": [3]}, "linear": {}}
    train = {"head": "mlp", "seeds": [7], "heads": heads}
    assert read_pipeline(last) == {"train": train, "extract": {"encoder": "x"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("extends = 'a.toml'", "comes back to itself"),
        ("extends = 'b.toml'", "b.toml: extends = 'a.toml' comes back to itself"),
        ("extends = 3", "extends = 3 is not allowed"),
        ("extends = 'none.toml'", "cannot read pipeline .*none.toml"),
    ],
)
def test_a_pipeline_cannot_extend_itself_or_what_is_no_file(tmp_path, content, words):
    write(tmp_path, "b.toml", "extends = 'a.toml'")
    with pytest.raises(ConfigError, match=words):
        read_pipeline(write(tmp_path, "a.toml", content))


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig(**TRAIN).head = "linear"
