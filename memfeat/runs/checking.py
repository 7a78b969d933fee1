"""Whether a run's files, which may come from a stranger, hold what their readers rely on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from memfeat.config import Printed, Settings, Split
from memfeat.errors import RunError
from memfeat.metrics import Interval
from memfeat.runs.files import RECOVER
from memfeat.tables import shown


class _Figures(Settings):
    """A split's entry of `metrics.json`: `Metrics`, and of several seeds which."""

    n: int
    plcc: float | None
    srocc: float | None
    mse: float | None
    bias: float | None
    plcc_std: float | None
    srocc_std: float | None
    mse_std: float | None
    plcc_interval: Interval | None
    srocc_interval: Interval | None
    mse_interval: Interval | None
    undefined: Printed | None
    seeds: tuple[int, ...] = ()


class _Provenance(BaseModel):
    """What readers rely on of `provenance.json`; whatever else it holds is only shown."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    datasets: tuple[Printed, ...] = ()
    versions: dict[Printed, Printed] = {}
    parameters: int | None = None
    seconds: float | None = None
    data_sha256: str = ""
    model_sha256: str = ""


_METRICS = TypeAdapter(dict[Split, _Figures])
_PROVENANCE = TypeAdapter(_Provenance)


def check_metrics(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a `metrics.json` that is not figures by split.

    Raises:
        RunError: names the file, the field and the value.
    """
    _check(_METRICS, path, content)


def check_provenance(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a `provenance.json` in which something that is read is of another kind.

    Raises:
        RunError: names the file, the field and the value.
    """
    _check(_PROVENANCE, path, content)


def _check(kind: TypeAdapter[Any], path: Path, content: Mapping[str, Any]) -> None:
    try:
        kind.validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = shown(".".join(map(str, problem["loc"])))
        raise RunError(
            f"{path} is damaged: {field} is {shown(problem['input'])}: {problem['msg']}; {RECOVER}"
        ) from error
