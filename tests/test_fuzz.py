"""Damaged files never give a traceback, a hang or wrong data (fault F13).

The short version of what `make soak` runs at length: see `fuzzing.py` for what is read of each kind
and how it is judged, and `soak/` for the long version.
"""

import json
from pathlib import Path

import pytest
from fuzzing import KINDS, judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfeat.config import (
    AblationConfig,
    ExtractConfig,
    FinetuneConfig,
    Settings,
    TrainConfig,
    TransferConfig,
    build,
    read_pipeline,
)
from memfeat.errors import ConfigError, ManifestError
from memfeat.manifest import find_problems, read_manifest
from memfeat.storage import format_rows

SHORT = sorted(set(KINDS) - {"reports"})  # those draw a page each, and are left to the long version


@pytest.mark.parametrize("kind", SHORT)
def test_f13_a_damaged_file_is_refused_in_one_line_or_read_right(kind, tmp_path):
    tally = judge(kind, tmp_path, 60)
    assert tally.bad == {}, tally.details
    assert tally.tried >= 60
    assert len(tally.verdicts) > 1, "every mutant ended alike, so nothing was tried"


# Structured input: text that is laid out well, and means anything.

LOOSE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "0.5", "1e999", "nan", "-0", "1_0", "train", "dev", "a/b", "..", "é"]),
    st.floats().map(repr),
)
COLUMNS = ["video_id", "path", "score", "split", "n_annotations", "caption"]


@LOOSE
@given(rows=st.lists(st.tuples(*[CELLS] * len(COLUMNS)), max_size=4))
def test_f13_a_table_of_any_cells_is_read_or_refused_in_one_line_each(tmp_path, rows):
    path = tmp_path / "m.csv"
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    try:
        path.write_bytes(format_rows(path, COLUMNS, named))
    except UnicodeEncodeError:
        return
    check_manifest(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@LOOSE
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, JSON)), max_size=3))
def test_f13_json_lines_of_any_values_are_read_or_refused_in_one_line_each(tmp_path, rows):
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_manifest(path)


@pytest.mark.parametrize("depth", [*range(100, 1000, 60), 5_000, 100_000])
def test_f13_values_in_many_brackets_are_refused(tmp_path, depth):
    path = tmp_path / "m.jsonl"
    row = {"video_id": "a", "path": "a.mp4", "split": "dev", "score": 0}
    path.write_text(json.dumps(row).replace('"score": 0', '"score": ' + "[" * depth + "]" * depth))
    (problem,) = check_manifest(path)
    assert "line 1" in problem


def check_manifest(path: Path) -> tuple[str, ...]:
    """Check that each problem is one line, and that what is read obeys the rules."""
    problems = find_problems(path)
    for problem in problems:
        assert str(path) in problem
        assert len(problem.splitlines()) == 1
        assert len(problem) < 5000
    if problems:
        with pytest.raises(ManifestError):
            read_manifest(path)
    else:
        found = read_manifest(path).records
        assert all(record.score is None or 0 <= record.score <= 1 for record in found)
        assert len({record.video_id for record in found}) == len(found)
    return problems


SETTINGS: list[type[Settings]] = [
    AblationConfig,
    ExtractConfig,
    FinetuneConfig,
    TrainConfig,
    TransferConfig,
]


@LOOSE
@given(data=st.data(), kind=st.sampled_from(SETTINGS))
def test_f13_settings_of_any_values_are_built_or_refused_in_one_line(data, kind):
    names = st.sampled_from(list(kind.model_fields)) | st.text(max_size=6)
    values = data.draw(st.dictionaries(names, JSON, max_size=6))
    try:
        built = build(kind, values, "options")
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert set(values) <= set(kind.model_fields)
        assert kind.model_validate(built.model_dump(mode="json")) == built


@LOOSE
@given(text=st.text(max_size=60) | st.text("[]{}='\"\\.#\n a1train", max_size=60))
def test_f13_a_pipeline_of_any_text_is_read_or_refused_in_one_line(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        read_pipeline(path)
    except ConfigError as error:
        assert str(path) in str(error)
        assert len(str(error).splitlines()) == 1
