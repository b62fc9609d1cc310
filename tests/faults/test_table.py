"""docs/faults.md is the table that the tests prove, whole."""

from __future__ import annotations

from tests.faults.table import PAGE, render, shown_by


def test_every_fault_is_shown_by_a_test() -> None:
    assert [fault for fault, tests in shown_by().items() if not tests] == []


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run python -m tests.faults.table"
