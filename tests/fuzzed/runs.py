"""Run folders: weights are those that the training wrote, numbers those in the files."""

import csv
import io
import json
from pathlib import Path

import torch
from click.testing import CliRunner
from made_up import config, dataset

from fuzzed import REFUSED, SOUND, WRONG, Files, Read, check_result
from memfeat.cli import main
from memfeat.runs import Run
from memfeat.training import train


def runs(folder: Path) -> Files:
    made, labels = dataset()
    run = train(made, labels, config(folder, max_epochs=2, aggregator="linear-avg"))
    weights = run.regressors()[0].state_dict()

    for path in sorted(folder.iterdir()):

        def read(damaged: bytes, path: Path = path) -> str:
            found = Run.load(folder)
            found.sources()
            predicted = found.predictions()
            loaded = found.regressors()[0].state_dict()
            # Every module has the same weights: those that the training wrote.
            if not all(torch.equal(value, weights[name]) for name, value in loaded.items()):
                return WRONG
            written = {
                "metrics.json": found.metrics,
                "provenance.json": found.provenance,
            }
            if path.name in written and written[path.name] != json.loads(damaged):
                return WRONG
            if path.name == "predictions.csv":
                rows = list(csv.DictReader(io.StringIO(damaged.decode(), newline="")))
                told = [(row["video_id"], float(row["prediction"])) for row in rows]
                columns = zip(predicted.video_id, predicted.prediction.tolist(), strict=True)
                return SOUND if told == list(columns) else WRONG
            return SOUND

        yield path, read


def reports(folder: Path) -> Files:
    runner = CliRunner()
    for path, read_run in runs(folder):
        if path.suffix in (".json", ".csv"):

            def read(damaged: bytes, read_run: Read = read_run) -> str:
                result = runner.invoke(main, ["report", str(folder), "-o", f"{folder}.html"])
                check_result(result)
                return read_run(damaged) if result.exit_code == 0 else REFUSED

            yield path, read
