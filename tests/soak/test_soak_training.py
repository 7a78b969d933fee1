"""Training killed at random moments (fault F8)."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up import contents
from trials import trials

from memfeat.errors import MemfeatError
from memfeat.runs import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(6 * 3600)]
KIND = "training killed at random moments"
SEEDS = (0, 1, 2)
TRAIN = f"""
import os, sys
sys.path.insert(0, "tests")
from made_up import config, dataset
from memfeat.training import train
os.chdir(sys.argv[1])
made, labels = dataset()
print("ready", flush=True)
train(made, labels, config("run", max_epochs=40, patience_epochs=40, seeds={SEEDS}))
"""


def begun(folder: Path) -> subprocess.Popen[str]:
    """Start training in a process of its own; return once it is about to begin."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", TRAIN, folder]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_training_killed_at_any_moment_ends_like_an_uninterrupted_one(tmp_path, tally):
    row = tally.row(KIND)
    generator = random.Random(0)
    with begun(tmp_path / "whole") as process:
        start = time.perf_counter()
        assert process.wait() == 0
        seconds = time.perf_counter() - start
    whole = contents(tmp_path / "whole" / "run")
    kills = 0
    for trial in range(trials(KIND)):
        folder = tmp_path / str(trial)
        with begun(folder) as process:
            time.sleep(generator.uniform(0, seconds))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        unreadable = count_unreadable(folder / "run")
        with begun(folder) as resumed:
            failed = resumed.wait() != 0
        left = contents(folder / "run")
        lost = sum(left.get(name) != content for name, content in whole.items())
        row.count(
            lost=lost, doubled=len(set(left) - set(whole)), unreadable=unreadable, uncaught=failed
        )
    row.note = f"{kills} killed before they ended"


def count_unreadable(run: Path) -> int:
    """Count finished seeds whose checkpoint cannot be read, and JSON files cut short."""
    bad = 0
    for seed in SEEDS:
        member = run / f"seed-{seed}"
        if (member / "metrics.json").is_file():
            try:
                Run.load(member).regressors()
                Run.load(member).predictions()
            except MemfeatError:
                bad += 1
    for path in run.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            bad += 1
    return bad
