"""Every control has a test that exists, says what asks for it, and is on the page."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from warehouse.core.settings import PROJECT_ROOT
from warehouse.privacy.controls import NOT_RUN, Control, load_controls, with_results

CONTROLS = load_controls()


def exists(test: str) -> bool:
    file, _, function = test.partition("::")
    path = PROJECT_ROOT / file
    if not path.is_file():
        return False
    names = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    return function in names if function else any(name.startswith("test_") for name in names)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.id)
def test_every_control_has_tests_that_exist(control: Control) -> None:
    assert control.tests
    assert [test for test in control.tests if not exists(test)] == []
    assert control.control
    assert any(name in control.regulation for name in ("GDPR", "PCI DSS"))


def test_a_test_that_is_gone_is_noticed() -> None:
    assert not exists("tests/security/test_attacks.py::test_nobody_wrote")
    assert not exists("tests/security/test_nothing.py")


def test_controls_have_different_ids() -> None:
    assert len({control.id for control in CONTROLS}) == len(CONTROLS) >= 20


def test_every_security_test_belongs_to_a_control() -> None:
    files = {test.partition("::")[0] for control in CONTROLS for test in control.tests}
    here = {f"tests/security/{path.name}" for path in (PROJECT_ROOT / "tests" / "security").glob("test_*.py")}
    assert here - files == set()


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({}, NOT_RUN),
        ({"t.py::a": ["passed", "2024-01-01"]}, NOT_RUN),
        ({"t.py::a": ["passed", "2024-01-02"], "t.py::b[x]": ["passed", "2024-01-01"]}, "passed 2024-01-01"),
        ({"t.py::a": ["passed", "2024-01-02"], "t.py::b[x]": ["failed", "2024-01-01"]}, "failed 2024-01-01"),
        ({"t.py::a": ["skipped", "2024-01-02"], "t.py::b": ["passed", "2024-01-01"]}, "skipped 2024-01-02"),
        ({"t.py::a": ["passed", "2024-01-02"], "t.py::bc": ["passed", "2024-01-01"]}, NOT_RUN),
    ],
)
def test_the_last_result_is_no_better_than_its_worst_test(
    tmp_path: Path, results: dict[str, list[str]], said: str
) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    (control,) = with_results([Control("c", "c", "GDPR", ("t.py::a", "t.py::b"))], file)
    assert control.last_result == said
