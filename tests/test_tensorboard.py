"""`--tensorboard`, as TensorBoard itself reads it."""

import json
import sys

import pytest
from commands import ok, run

QUICK = ["--max-epochs", "3", "--bootstrap", "0", "--device", "cpu", "--learning-rate", "0.01"]
SYSTEM = ["--aggregator", "avg", "--head", "linear", "--seeds", "0-1"]


def command(studied, folder):
    data = ["--manifest", studied / "m.csv", "--cache", studied / "cache"]
    return ["train", *data, *QUICK, *SYSTEM, "--run", folder / "run", "--tensorboard", folder / "t"]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_each_seeds_epochs_are_logged_as_the_history_has_them(studied, tmp_path):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="`make test-extras`"
    )
    ok(*command(studied, tmp_path))
    for seed in ("seed-0", "seed-1"):
        events = reading.EventAccumulator(str(tmp_path / "t/run" / seed)).Reload()
        text = (tmp_path / "run" / seed / "history.jsonl").read_text()
        history = [json.loads(line) for line in text.splitlines()]
        assert len(history) == 3
        for name in ("learning_rate", "train_l1", "dev_l1", "dev_srocc"):
            found = [(each.step, each.value) for each in events.Scalars(name)]
            expected = [(row["epoch"] + 1, pytest.approx(row[name])) for row in history]
            assert found == expected


def test_without_tensorboard_it_says_what_to_install_before_it_trains(
    studied, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = run(*command(studied, tmp_path))
    assert result.exit_code == 2
    assert "pip install 'memfeat[tensorboard]'" in result.stderr
    assert not (tmp_path / "run").exists()
