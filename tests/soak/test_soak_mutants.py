"""Hundreds of mutants of every kind of file but videos (fault F13)."""

import pytest
from fuzzed import CRASHED, HUNG, UNCAUGHT, WRONG
from fuzzing import KINDS, judge
from trials import trials

pytestmark = [pytest.mark.soak, pytest.mark.timeout(6 * 3600)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutant_is_taken_for_right_or_ends_in_a_traceback(kind, tmp_path, tally):
    row = tally.row(f"mutants of {kind}")
    found = judge(kind, tmp_path, trials(row.kind), seed=1)
    row.tried, row.survived = found.tried, found.tried - sum(found.bad.values())
    row.lost = found.verdicts[WRONG]
    row.uncaught = sum(found.verdicts[verdict] for verdict in (UNCAUGHT, CRASHED, HUNG))
    row.note = ", ".join(f"{n} {verdict}" for verdict, n in sorted(found.verdicts.items()))
    assert found.bad == {}, found.details
