"""Every seeded fault of `faults.py` makes at least one dbt test fail: `make test` tries two, `make test-full` all."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.mutations.faults import FAULTS, MONEY, OVERVIEW, SALES, ModelFault
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.dbt import dbt_environment

TryOut = Callable[[ModelFault], dict[str, Any]]

SAMPLE = {
    next(fault for fault in FAULTS if fault.file == OVERVIEW),
    next(fault for fault in FAULTS if fault.file == SALES),
}
REFUSED = "Constraint Error"
"""How the warehouse says that a row breaks the contract of its model: that is a test, too."""


@pytest.fixture(scope="module")
def try_out(company: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TryOut]:
    """Builds a small company's warehouse with a fault in one file, and tells what failed."""
    place = tmp_path_factory.mktemp("mutations")
    settings = company.model_copy(update={"warehouse_home": place / "home"})
    original, copy = Home.of(company), Home.of(settings)
    shutil.copytree(original.keys, copy.keys)
    shutil.copytree(original.extensions, copy.extensions)
    built = place / "built.duckdb"
    shutil.copy(original.warehouse, built)
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.mutations.worker", str(PROJECT_ROOT), str(place / "project"), str(built)],
        cwd=PROJECT_ROOT,
        env=dbt_environment(settings) | {"PYTHONPATH": str(PROJECT_ROOT), "DBT_PARTIAL_PARSE": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(fault: ModelFault) -> dict[str, Any]:
        assert worker.stdin is not None and worker.stdout is not None
        question = dataclasses.asdict(fault) | {"models": fault.selected}
        worker.stdin.write(json.dumps(question) + "\n")
        worker.stdin.flush()
        answer: dict[str, Any] = json.loads(worker.stdout.readline() or '{"error": "the worker ended"}')
        assert "error" not in answer, answer["error"]
        return answer

    try:
        yield ask
    finally:
        worker.kill()
        worker.wait()


def _caught(answer: dict[str, Any]) -> list[str]:
    """The tests that failed. A model that does not run at all proves nothing."""
    return [
        name
        for resource, name, status, message in answer["failed"]
        if (resource in {"test", "unit_test"} and status == "fail") or REFUSED in message
    ]


def test_the_faults_are_thirty_and_each_is_one_change() -> None:
    assert len(FAULTS) >= 30
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_old_text_of_a_fault_stands_in_its_file(fault: ModelFault) -> None:
    text = (PROJECT_ROOT / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, "the model has changed: write the fault anew"
    assert fault.old != fault.new


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=() if fault in SAMPLE else pytest.mark.slow, id=fault.name) for fault in FAULTS],
)
def test_a_fault_is_caught(fault: ModelFault, try_out: TryOut) -> None:
    answer = try_out(fault)
    assert _caught(answer), f"no test noticed: {fault.breaks}; {answer}"
    print(f"{answer['seconds']} s: {', '.join(_caught(answer))}")


@pytest.mark.slow
def test_a_change_that_breaks_nothing_is_not_caught(try_out: TryOut) -> None:
    """Otherwise the faults above would be caught by a build that always fails."""
    harmless = ModelFault(
        OVERVIEW, "-- money is summed over captured", "-- amounts are summed over captured", "nothing"
    )
    assert try_out(harmless)["failed"] == []


@pytest.mark.slow
def test_a_model_that_does_not_run_is_not_a_fault_caught(try_out: TryOut) -> None:
    broken = ModelFault(MONEY, "), 4) as", "), 4 as", "the SQL", models=("rpt_daily_overview",))
    answer = try_out(broken)
    assert answer["failed"] and not _caught(answer)
