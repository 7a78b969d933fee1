"""What `make` would run, seen without running it."""

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def commands(*arguments: str) -> str:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace("\\\n", "")


def test_make_alone_prints_a_line_for_each_target():
    done = subprocess.run(["make"], capture_output=True, text=True, check=True)
    for target in ("demo", "extract", "train", "ablation", "table1-smoke", "test"):
        assert f"make {target} " in done.stdout


def test_the_demo_uses_one_extraction_whichever_target_asks_for_it():
    for target in ("demo", "extract", "train"):
        extractions = [line for line in commands(target).splitlines() if "memfeat extract" in line]
        assert len(extractions) == 1
        assert "memfeat extract pipelines/demo.toml" in extractions[0]
    ablation = commands("ablation")
    assert "memfeat extract" not in ablation
    assert "memfeat ablation pipelines/demo.toml --extract" in ablation


def test_another_dataset_gets_the_papers_encoder_and_table():
    train = commands("train", "DATASET=mine", "AGG=avg", "SEED=0-4")
    assert "memfeat demo" not in train
    assert "pipelines/extract.toml --manifest data_manifests/mine.csv" in train
    assert "--cache cache/mine/ViT-L-14-336 --encoder ViT-L-14-336" in train
    assert "--aggregator avg --head mlp --seeds 0-4" in " ".join(train.split())
    ablation = commands("ablation", "DATASET=mine")
    assert "memfeat demo" not in ablation
    assert "memfeat ablation pipelines/table1.toml --extract" in ablation
    assert "--cache-root cache/mine --run runs/table1-mine" in " ".join(ablation.split())
