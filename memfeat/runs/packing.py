"""Handing a run on: a copy without paths of the machine that made it, and a model card."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from memfeat.errors import RunError
from memfeat.runs.fetching import is_packed, write_sums
from memfeat.runs.files import (
    CARD,
    CONFIG,
    KEPT,
    PREDICTIONS,
    read_object,
)
from memfeat.runs.run import Run
from memfeat.storage import atomic_replace, write_atomically, write_json

CITATION = (
    "Agarla, M., Celona, L., Schettini, R. (2022). Predicting Video Memorability Using a Model "
    "Pretrained with Natural Language Supervision. MediaEval."
)
LIMITS = (
    "It predicts scores of the kind that it learned from, for videos like those that it learned "
    "from; `memfeat predict` says how familiar a video is. A high score is no proof: pictures "
    "unlike any that it was trained on can score high."
)


def pack_run(run: Run, output: Path, *, predictions: bool = False) -> Path:
    """Copy a run, without absolute paths, and with a model card and checksums.

    Args:
        run: a trained run.
        output: the folder to make; or a file, if it ends in .zip.
        predictions: whether `predictions.csv` goes with it, which repeats the dataset's scores;
            without it a score has no interval and no percentile.

    Returns:
        `output`.

    Raises:
        RunError: `output` is there already, or a file of the run is missing.
        OSError: it cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunError(f"{output} is there already; name one that is not")
    if not is_packed(output):
        _write_copy(run, output, predictions)
        return output
    with TemporaryDirectory() as folder, atomic_replace(output) as part:
        _write_copy(run, Path(folder) / output.stem, predictions)
        _zip(Path(folder) / output.stem, part)
    return output


def _write_copy(run: Run, output: Path, predictions: bool) -> None:
    for folder in dict.fromkeys((run.folder, *run.members, *run.parts)):
        target = output / folder.relative_to(run.folder)
        target.mkdir(parents=True, exist_ok=True)
        for name in (*KEPT, *([PREDICTIONS] if predictions else [])):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        config = read_object(folder / CONFIG)
        caches = config["cache"] if isinstance(config["cache"], list) else [config["cache"]]
        names = [_name(cache) for cache in caches]
        paths = {"manifest": _name(config["manifest"]), "run": output.name}
        config |= paths | {"cache": names if len(names) > 1 else names[0]}
        write_json(target / CONFIG, config)
    write_atomically(output / CARD, model_card(run).encode())
    write_sums(output)


def _zip(folder: Path, target: Path) -> None:
    """Write a folder's files as an archive whose bytes follow from them alone."""
    with ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = ZipInfo(path.relative_to(folder).as_posix())  # dated 1980
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())


def _name(location: str) -> str:
    return location.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def model_card(run: Run) -> str:
    """Return a run's model card, in Markdown as Hugging Face has it."""
    return "\n".join(_card(run)) + "\n"


def _card(run: Run) -> Iterator[str]:
    config, own = run.config, run.provenance
    yield "---\nlibrary_name: memfeat\ntags:\n- video-memorability\n---\n"
    yield f"# {config.system} on {' + '.join(spec.encoder for spec in run.specs)}\n"
    yield "Predicts how memorable a video is, as a score in [0, 1]:\n"
    yield "```console\n$ memfeat predict FOLDER clip.mp4\n```\n"
    yield "## What it is made of\n"
    yield from (f"- {line}" for line in run.sources())
    for spec in run.specs:
        yield f"- weights of {spec.encoder}: SHA-256 `{spec.weights_sha256}`"
    seeds = ", ".join(map(str, config.seeds))
    yield f"- seeds {seeds}" if not run.baseline else f"- {run.baseline}, fitted by scikit-learn"
    if run.baseline == "svr":
        yield "- it holds features of training videos, its support vectors"
    yield f"- made with memfeat {own.get('versions', {}).get('memfeat', 'of unknown version')}"
    yield "\nThe scores' dataset has a licence of its own, which this model may fall under.\n"
    yield "## How good it is\n"
    yield "| split | videos | SROCC | 95 % interval | PLCC | MSE |\n|---|---|---|---|---|---|"
    for split, values in run.metrics.items():
        low_high = values["srocc_interval"]
        interval = "-" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}"
        srocc, plcc, mse = (_figure(values[name]) for name in ("srocc", "plcc", "mse"))
        yield f"| {split} | {values['n']} | {srocc} | {interval} | {plcc} | {mse} |"
    how = "The model saw train while it learned, and dev chose its epoch or hyperparameters."
    if config.folds:
        how = "It averages a model of each fold; `folds` judges each on videos that it did not see."
    yield f"\n{how}\n"
    yield f"## Limits\n\n{LIMITS}\n"
    settings = json.loads(config.model_dump_json(exclude={"manifest", "cache", "run"}))
    yield "## How it was trained\n\n```json\n" + json.dumps(settings, indent=2) + "\n```\n"
    yield f"## Cite\n\n{CITATION}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
