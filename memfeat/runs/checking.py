"""Whether a run's files, which may come from a stranger, hold what their readers rely on."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from memfeat.config import Printed, Settings, Split
from memfeat.errors import RunError, short_repr
from memfeat.metrics import Metrics
from memfeat.runs.files import RECOVER

# A split's entry of `metrics.json`: `Metrics`, and of several seeds which.
_FIELDS: dict[str, Any] = {
    **{field.name: (field.type, ...) for field in fields(Metrics)},
    "undefined": (Printed | None, ...),
    "seeds": (tuple[int, ...], ()),
}
_Figures = create_model("_Figures", __base__=Settings, **_FIELDS)


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
        field = short_repr(".".join(map(str, problem["loc"])))
        value = short_repr(problem["input"])
        raise RunError(
            f"{path} is damaged: {field} is {value}: {problem['msg']}; {RECOVER}"
        ) from error
