"""What `ablation.json` and `transfer.json` hold: typed, and refused when damaged."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from memfeat.errors import RunError, short_repr
from memfeat.runs import read_object

Interval = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


P = TypeVar("P", bound=_Part)


class Comparison(_Part):
    """A row's SROCC minus the reference row's, on the same resampled videos."""

    srocc: float | None
    interval: Interval | None


class Paper(_Part):
    """What the paper reports for a row."""

    plcc: float | None = None
    srocc: float | None = None


class Row(_Part):
    """One system: means over seeds, `*_std` their spread, `*_interval` 95 % over videos."""

    name: str
    kind: Literal["model", "baseline", "control"]
    encoder: str
    weights: str
    aggregator: str
    head: str
    seeds: tuple[int, ...]
    plcc: float | None
    srocc: float | None
    mse: float | None
    plcc_std: float | None
    srocc_std: float | None
    mse_std: float | None
    plcc_interval: Interval | None
    srocc_interval: Interval | None
    mse_interval: Interval | None
    versus: Comparison | None
    frames_kept: float = 1.0
    paper: Paper | None
    parameters: int | None
    seconds: float | None
    run: str
    undefined: str | None = None


class Failed(_Part):
    """A cell that gave no result."""

    name: str
    error: str


class Ceiling(_Part):
    """The best that any model can reach, where a simulation knows it."""

    what: str
    plcc: float | None
    srocc: float | None
    srocc_interval: Interval | None
    mse: float | None


class SplitHalf(_Part):
    """The best that any model can reach, estimated from how people's answers agree."""

    what: str
    plcc: float | None
    srocc: float | None
    srocc_interval: Interval | None


class Table(_Part):
    """A whole ablation."""

    title: str
    split: str
    n: int
    best: str | None
    reference: str | None
    rows: tuple[Row, ...]
    failed: tuple[Failed, ...]
    ceiling: Ceiling | None
    split_half: SplitHalf | None = None
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    versions: dict[str, str | None]

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Rows by SROCC, the best first, the undefined last."""
        known = [row for row in self.rows if row.srocc is not None]
        unknown = [row for row in self.rows if row.srocc is None]
        return (*sorted(known, key=lambda row: -(row.srocc or 0.0)), *unknown)

    @property
    def attainable(self) -> Ceiling | SplitHalf | None:
        """The ceiling to draw and to tell: the known one, or else the one from people."""
        from_people = self.split_half if self.split_half and self.split_half.srocc else None
        return self.ceiling or from_people

    @property
    def best_model(self) -> Row | None:
        """The model of the highest SROCC; baselines and controls do not count."""
        models = [row for row in self.ranked if row.kind == "model" and row.srocc is not None]
        return models[0] if models else None


class Dataset(_Part):
    """A dataset that models were evaluated on."""

    scores: tuple[str, ...]
    manifest: Path


class Recalibrated(_Part):
    """What is left of the error after a linear recalibration."""

    slope: float
    intercept: float
    mse: float | None
    mse_std: float | None
    mse_interval: Interval | None


class PairRow(_Part):
    """A dataset's model on a split of another, or of its own."""

    trained_on: str
    evaluated_on: str
    split: str
    n: int
    plcc: float | None
    srocc: float | None
    mse: float | None
    bias: float | None
    plcc_std: float | None
    srocc_std: float | None
    mse_std: float | None
    bias_std: float | None
    plcc_interval: Interval | None
    srocc_interval: Interval | None
    mse_interval: Interval | None
    recalibrated: Recalibrated | None
    paper: Paper | None

    @property
    def pair(self) -> str:
        """The pair in words."""
        return f"{self.trained_on} to {self.evaluated_on}"


class FailedPair(_Part):
    """A pair that gave no result."""

    trained_on: str
    evaluated_on: str
    error: str


class Pairs(_Part):
    """A whole `transfer.json`."""

    title: str
    datasets: dict[str, Dataset]
    splits: tuple[str, ...]
    rows: tuple[PairRow, ...]
    failed: tuple[FailedPair, ...]
    runs: dict[str, str]
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    versions: dict[str, str | None]


def read_table(path: Path) -> Table:
    """Read an `ablation.json`.

    Raises:
        RunError: it is missing or damaged; the message names the first field that is wrong.
    """
    return _read(path, Table, "memfeat ablation")


def read_pairs(path: Path) -> Pairs:
    """Read a `transfer.json`.

    Raises:
        RunError: it is missing or damaged; the message names the first field that is wrong.
    """
    return _read(path, Pairs, "memfeat transfer")


def _read(path: Path, kind: type[P], command: str) -> P:
    try:
        return kind.model_validate(read_object(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise RunError(
            f"{path} is damaged: {field} is {short_repr(problem['input'])}: {problem['msg']}; run "
            f"the same `{command}` again, it writes the table anew"
        ) from error
