"""Controls, what asks for them, the tests that prove them (`controls.yml`), and how those ended when they last ran."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from warehouse.core.settings import PROJECT_ROOT

CONTROLS_FILE = Path(__file__).with_name("controls.yml")
RESULTS_FILE = PROJECT_ROOT / "target" / "test_results.json"
"""Test → [outcome, moment]: written by the test run itself (tests/conftest.py)."""
NOT_RUN = "not run here"


@dataclass(frozen=True)
class Control:
    """One control; `tests` are files of tests/ or functions in them."""

    id: str
    control: str
    regulation: str
    tests: tuple[str, ...]
    last_result: str = NOT_RUN


def load_controls(file: Path = CONTROLS_FILE) -> list[Control]:
    """The controls as declared.

    Raises:
        TypeError: an entry lacks something, or has something more.
    """
    declared: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["controls"]
    return [Control(**entry | {"tests": tuple(entry["tests"])}) for entry in declared]


def with_results(controls: list[Control], results_file: Path = RESULTS_FILE) -> list[Control]:
    """The same, each with how its tests ended when they last ran on this machine."""
    try:
        results: dict[str, list[str]] = json.loads(results_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return controls
    return [replace(control, last_result=_result(control, results)) for control in controls]


def _result(control: Control, results: dict[str, list[str]]) -> str:
    """Passed only when every test of the control ran and passed."""
    moments = []
    for test in control.tests:
        found = [value for name, value in results.items() if name == test or name.startswith((f"{test}::", f"{test}["))]
        if not found:
            return NOT_RUN
        moments += [moment for _, moment in found]
        for outcome in ("failed", "skipped"):
            if any(given == outcome for given, _ in found):
                return f"{outcome} {min(moments)}"
    return f"passed {min(moments)}"
