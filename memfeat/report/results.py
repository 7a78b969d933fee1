"""The content of `ablation.json` and `transfer.json`: typed, and refused when damaged."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from memfeat.metrics import Interval
from memfeat.runs import IN_FOLDS
from memfeat.runs.files import read_checked


def of_split(split: str) -> str:
    """Return a split's name to follow "the videos"."""
    return "of all folds" if split == IN_FOLDS else f"of the {split} split"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


P = TypeVar("P", bound=_Part)


class Paper(_Part):
    """What the paper reports for a row."""

    plcc: float | None = None
    srocc: float | None = None


class RowMetrics(_Part):
    """A row's metrics: mean over seeds, `*_std` over seeds, `*_interval` of 95 % over videos."""

    plcc: float | None
    srocc: float | None
    mse: float | None
    plcc_std: float | None
    srocc_std: float | None
    mse_std: float | None
    plcc_interval: Interval | None
    srocc_interval: Interval | None
    mse_interval: Interval | None
    paper: Paper | None


class Comparison(_Part):
    """A row's SROCC minus the reference row's, on the same resampled videos."""

    srocc: float | None
    interval: Interval | None


class Row(RowMetrics):
    """One system of a grid."""

    name: str
    kind: Literal["model", "baseline", "control", "ensemble", "scorer"]
    encoder: str
    weights: str
    aggregator: str
    head: str
    seeds: tuple[int, ...]
    versus: Comparison | None
    frames_kept: float = 1.0
    parameters: int | None
    seconds: float | None
    run: str
    undefined: str | None = None


class Failed(_Part):
    """A system without a result."""

    name: str
    error: str


class Ceiling(_Part):
    """The best that any model can reach; its MSE is known in simulations alone."""

    what: str
    plcc: float | None
    srocc: float | None
    srocc_interval: Interval | None
    mse: float | None = None


class Table(_Part):
    """A whole `ablation.json`."""

    title: str
    split: str
    n: int
    best: str | None
    reference: str | None
    rows: tuple[Row, ...]
    failed: tuple[Failed, ...]
    ceiling: Ceiling | None
    split_half: Ceiling | None = None
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    versions: dict[str, str | None]
    groups: int | None = None

    @property
    def over(self) -> str:
        """What intervals are over."""
        return "groups of videos" if self.groups else "videos"

    @property
    def ranked(self) -> tuple[Row, ...]:
        """Rows by SROCC, the best first, the undefined last."""
        return tuple(sorted(self.rows, key=lambda r: (r.srocc is None, -(r.srocc or 0.0))))

    @property
    def attainable(self) -> Ceiling | None:
        """The known ceiling, or else the one estimated from people's answers."""
        estimated = self.split_half if self.split_half and self.split_half.srocc else None
        return self.ceiling or estimated

    @property
    def best_model(self) -> Row | None:
        """The model of the highest SROCC; baselines and controls do not count."""
        models = (row for row in self.ranked if row.kind == "model" and row.srocc is not None)
        return next(models, None)


class Dataset(_Part):
    """A dataset that models were evaluated on."""

    scores: tuple[str, ...]
    manifest: Path


class Recalibrated(_Part):
    """The error that is left after a linear recalibration."""

    slope: float
    intercept: float
    mse: float | None
    mse_std: float | None
    mse_interval: Interval | None


class PairRow(RowMetrics):
    """The model of one dataset on a split of another, or of its own."""

    trained_on: str
    evaluated_on: str
    split: str
    n: int
    bias: float | None
    bias_std: float | None
    recalibrated: Recalibrated | None

    @property
    def pair(self) -> str:
        """The pair in words."""
        return f"{self.trained_on} to {self.evaluated_on}"


class FailedPair(_Part):
    """A pair without a result."""

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


def read_result(path: Path, kind: type[P]) -> P:
    """Read an `ablation.json` or `transfer.json`.

    Raises:
        RunError: it is missing or damaged; names the first field that is wrong.
    """
    recover = f"run the same `memfeat {path.stem}` again to write the table anew"
    return kind.model_validate(read_checked(path, TypeAdapter(kind), recover))
