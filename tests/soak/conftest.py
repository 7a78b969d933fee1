"""Gathers what the soak tests count, and ends with one table of it."""

from collections.abc import Iterator
from typing import Any

import pytest
from trials import RESULT, Row, table, write

ROWS: list[Row] = []


class Tally:
    """Makes a row of the table for a kind, and asserts in the end that nothing forbidden is in."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def row(self, kind: str) -> Row:
        """Begin a row; it is in the table whatever becomes of the test."""
        row = Row(kind)
        self.rows.append(row)
        ROWS.append(row)
        return row


@pytest.fixture
def tally() -> Iterator[Tally]:
    made = Tally()
    yield made
    for row in made.rows:
        assert row.tried, f"{row.kind}: nothing was tried"
        assert row.forbidden == {}, row.note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if ROWS:
        write(ROWS)
        terminalreporter.section("what was tried, and what came of it")
        for line in table(ROWS):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"written to {RESULT}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if any(row.forbidden for row in ROWS) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
