"""The files of a run folder: their names, and JSON read back and checked."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from memfeat.config import Printed, Settings, TrainConfig
from memfeat.errors import RunError, short_repr
from memfeat.manifest import Split
from memfeat.metrics import Metrics

CONFIG = "config.json"
SPEC = "cache_spec.json"
HISTORY = "history.jsonl"
MODEL = "model.safetensors"
FINETUNED = "i3d.safetensors"  # in a folder of `memfeat finetune`: an encoder's weights
PREDICTIONS = "predictions.csv"
FAMILIAR = "familiar.safetensors"  # what the training videos are like
FOLDS = "folds.csv"  # of a run with folds: which one a video is in
PROVENANCE = "provenance.json"
METRICS = "metrics.json"
KEPT = (SPEC, MODEL, HISTORY, FAMILIAR, FOLDS, PROVENANCE, METRICS)  # by a run that is handed on
CARD = "README.md"  # of a run that is handed on: its model card
SUMS = "SHA256SUMS"  # and the checksum of each file
ABLATION = "ablation.json"  # the table of a grid, in the folder above its runs
TRANSFER = "transfer.json"  # the table of pairs of datasets
NO_SOURCE = "no `dataset` column in the manifest says whose"  # in place of the scores' source
STREAMS = "streams"  # key of SPEC's list, where there are several caches
RECOVER = "restore it, or delete the run folder and train again"


def seed_folders(folder: Path, config: TrainConfig) -> list[Path]:
    """Return the folder of each seed of a run: the run folder itself if there is only one."""
    return [folder / f"seed-{seed}" for seed in config.seeds] if config.seeds[1:] else [folder]


def fold_folders(folder: Path, config: TrainConfig) -> list[Path]:
    """Return the folder of each fold's model, in one of a seed: that itself without folds."""
    return [folder / f"fold-{number + 1}" for number in range(config.folds)] or [folder]


def pair_folder(folder: Path, trained_on: str, evaluated_on: str) -> Path:
    """Return the folder of a pair's predictions, below that of `transfer.json`."""
    return folder / "pairs" / f"{trained_on}-to-{evaluated_on}".replace(" ", "-")


def table_path(folder: Path, name: str, split: str | None = None) -> Path:
    """Return where a grid's table is or goes to: `name`, or one of its own for a second split."""
    path = folder / name
    if split is None or not path.is_file() or read_object(path).get("split") == split:
        return path
    return path.with_stem(f"{path.stem}-{split}")


def path_for_table(folder: Path, name: str, table: Mapping[str, Any]) -> Path:
    """Return where to write a grid's table: beside a whole one, if rows of this one failed.

    It is the same path before and after the table was written.

    Raises:
        RunError: the table that is there is damaged.
    """
    path = table_path(folder, name, table.get("split"))
    if table["failed"] and path.is_file() and not read_object(path).get("failed"):
        return path.with_stem(f"{path.stem}-incomplete")
    return path


def is_complete(folder: Path) -> bool:
    """Return whether `folder` holds a finished run."""
    return (folder / METRICS).is_file()


def require_same_run(
    folder: Path, there: Mapping[str, Any], here: Mapping[str, Any], *others: str
) -> None:
    """Refuse to write into a folder that holds a run of other settings.

    `there` are its settings, `here` those to compare; `others` is what else differs, in words.

    Raises:
        RunError: lists all that differs.
    """
    differences = [
        f"{name} is {there.get(name)!r} there and {value!r} here"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if differences or others:
        raise RunError(
            f"{folder} already holds another run: {'; '.join([*differences, *others])}. Give "
            "another folder with --run, or delete that one"
        )


def read_text(path: Path) -> str:
    """Read one of a run's files as UTF-8, with its line ends as they are.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; {RECOVER}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read one of a run's JSON files.

    Raises:
        RunError: it is missing, damaged, or holds no object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}; {RECOVER}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds {text[:40]!r}, not an object; {RECOVER}")
    return value


class _Epoch(BaseModel):
    """A line of HISTORY, as far as it is drawn."""

    epoch: int
    train_l1: float
    dev_l1: float
    best: bool


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read a run's epochs.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return [
            _Epoch.model_validate_json(line).model_dump() for line in read_text(path).splitlines()
        ]
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"]
        raise RunError(f"{path} is damaged: {why}; {RECOVER}") from error


class _FoldFigures(Settings):
    """One fold's entry in METRICS."""

    fold: int
    n: int
    plcc: float | None
    srocc: float | None
    mse: float | None


# One split's entry in METRICS: the fields of `Metrics`, and the seeds where there are several; of
# all folds together also the groups and each fold's figures.
_FIELDS: dict[str, Any] = {
    **{field.name: (field.type, ...) for field in fields(Metrics)},
    "undefined": (Printed | None, ...),
    "seeds": (tuple[int, ...], ()),
    "groups": (int | None, None),
    "per_fold": (tuple[_FoldFigures, ...], ()),
}
_Figures = create_model("_Figures", __base__=Settings, **_FIELDS)


class _Provenance(BaseModel):
    """The part of PROVENANCE that is used; the rest is only shown."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    datasets: tuple[Printed, ...] = ()
    versions: dict[Printed, Printed] = {}
    baseline: Printed | None = None
    best_epoch: int | tuple[int, ...] | None = None
    parameters: int | None = None
    seconds: float | None = None
    data_sha256: str = ""
    training_sha256: str = ""
    model_sha256: str = ""


FORMATS: Mapping[str, TypeAdapter[Any]] = {
    METRICS: TypeAdapter(dict[Literal[Split, "folds"], _Figures]),
    PROVENANCE: TypeAdapter(_Provenance),
}


def read_checked(
    path: Path, kind: TypeAdapter[Any] | None = None, recover: str = RECOVER
) -> dict[str, Any]:
    """Read one of a run's JSON files and check its types, by default those of `FORMATS`.

    Raises:
        RunError: it is missing or damaged; names the field, its value, and how to `recover` it.
    """
    content = read_object(path)
    try:
        (kind or FORMATS[path.name]).validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = short_repr(".".join(map(str, problem["loc"])))
        why = f"{field} is {short_repr(problem['input'])}: {problem['msg']}"
        raise RunError(f"{path} is damaged: {why}; {recover}") from error
    return content
