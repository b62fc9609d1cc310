"""Every numbered invariant holds on a built warehouse, and its test fails once the fault it stands for is planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from tests.integration.planted_faults import FAULTS, PlantedFault
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.settings import PROJECT_ROOT, Settings
from warehouse.dbt import run_dbt

Node = dict[str, Any]

HAS_MODELS = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25}
"""Invariants of the design whose models exist."""
GENERIC = {1: ["unique_grain"], 4: ["relationships"], 6: ["non_overlapping_intervals", "one_current_row"]}
"""Those that generic tests hold."""
MARTS = "public"


@pytest.fixture(scope="module")
def copied(company: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of the built warehouse, so that what is planted stays here."""
    settings = company.model_copy(update={"warehouse_home": tmp_path_factory.mktemp("invariants")})
    original, copy = Home.of(company), Home.of(settings)
    shutil.copytree(original.keys, copy.keys)
    shutil.copytree(original.extensions, copy.extensions)
    shutil.copy(original.warehouse, copy.warehouse)
    return settings


@pytest.fixture(scope="module")
def tests(copied: Settings) -> dict[str, Node]:
    """Every dbt test of the project with its compiled SQL, by name."""
    run_dbt(copied, ["compile", "--select", "resource_type:test"])
    manifest = json.loads((Home.of(copied).dbt_target / "manifest.json").read_text(encoding="utf-8"))
    return {
        node["name"]: node | {"model": manifest["nodes"].get(node.get("attached_node") or "", {})}
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test"
    }


@pytest.fixture
def connection(copied: Settings, tests: dict[str, Node]) -> Iterator[duckdb.DuckDBPyConnection]:
    """The copy, in a transaction that is rolled back; opened after dbt has let go of it."""
    with open_warehouse(copied) as opened:
        opened.execute("begin")
        yield opened
        opened.execute("rollback")


def failing_rows(connection: duckdb.DuckDBPyConnection, test: Node) -> int:
    """How many rows the test returns."""
    row = connection.execute(f"select count(*) from (\n{test['compiled_code']}\n) as failures").fetchone()
    return int(row[0]) if row else 0


def plant(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run the statement; a fault that touches no row would prove nothing."""
    row = connection.execute(statement).fetchone()
    assert row is not None
    assert row[0] > 0, "the fault found no row to spoil"


def of_marts(tests: dict[str, Node], kinds: list[str]) -> list[Node]:
    """The generic tests of these kinds on marts."""
    return [
        test
        for test in tests.values()
        if (test.get("test_metadata") or {}).get("name") in kinds and test["model"].get("schema") == MARTS
    ]


def test_every_invariant_that_has_models_has_a_test_and_a_fault(tests: dict[str, Node]) -> None:
    singular = [name for name, test in tests.items() if not test.get("test_metadata")]
    numbered = {int(name.split("_")[1]) for name in singular if name.startswith("invariant_")}
    generic = {number for number, kinds in GENERIC.items() if of_marts(tests, kinds)}
    assert numbered | generic == HAS_MODELS
    assert {fault.invariant for fault in FAULTS} == numbered


def test_25_reads_every_mart(tests: dict[str, Node]) -> None:
    marts = {f"model.payments_warehouse.{path.stem}" for path in (PROJECT_ROOT / "models/marts").rglob("*.sql")}
    assert set(tests["invariant_25_no_personal_data_in_published_text"]["depends_on"]["nodes"]) == marts


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.invariant}: {fault.fault}")
def test_a_planted_fault_is_found(
    fault: PlantedFault, tests: dict[str, Node], connection: duckdb.DuckDBPyConnection
) -> None:
    test = tests[fault.test]
    before = failing_rows(connection, test)
    assert before == 0 or test["config"]["severity"].lower() == "warn", f"{fault.test} fails on good data"
    plant(connection, fault.statement)
    assert failing_rows(connection, test) > before


def test_1_every_grain_test_of_a_mart_sees_a_row_twice(
    tests: dict[str, Node], connection: duckdb.DuckDBPyConnection
) -> None:
    grains = of_marts(tests, GENERIC[1])
    assert len(grains) >= 18
    for test in grains:
        mart = _mart(test)
        assert failing_rows(connection, test) == 0, test["name"]
        plant(connection, f"insert into {mart} select * from {mart} limit 1")
        assert failing_rows(connection, test) > 0, test["name"]


def test_4_every_key_of_a_mart_is_tested_and_sees_a_stranger(
    tests: dict[str, Node], connection: duckdb.DuckDBPyConnection
) -> None:
    references = of_marts(tests, GENERIC[4])
    tested = {(test["model"]["name"], test["column_name"]) for test in references}
    for test in references:
        mart, column = _mart(test), test["column_name"]
        assert failing_rows(connection, test) == 0, test["name"]
        stranger = "-99" if column.endswith(("date_key", "time_key")) else "'stranger'"
        plant(connection, f"update {mart} set {column} = {stranger} where rowid = (select min(rowid) from {mart})")
        assert failing_rows(connection, test) > 0, test["name"]
        # the next key is judged on good data again: facts refer to one another
        connection.execute("rollback")
        connection.execute("begin")
    keys = connection.execute(
        "select table_name, column_name from information_schema.columns "
        "where table_schema = ? and column_name like '%\\_key' escape '\\' and "
        "(table_name like 'fct\\_%' escape '\\' or table_name like 'rpt\\_%' escape '\\')",
        [MARTS],
    ).fetchall()
    # a mart's own key refers to nothing: it is what the mart's rows are told apart by
    own = {(test["model"]["name"], test["column_name"]) for test in of_marts(tests, ["unique"])} | {
        (test["model"]["name"], test["test_metadata"]["kwargs"]["columns"][0])
        for test in of_marts(tests, ["unique_grain"])
        if len(test["test_metadata"]["kwargs"]["columns"]) == 1
    }
    assert set(keys) - tested <= own
    assert {pair for pair in tested if pair[0].startswith(("fct_", "rpt_"))} <= set(keys)


def test_6_every_history_sees_two_versions_at_once(
    tests: dict[str, Node], connection: duckdb.DuckDBPyConnection
) -> None:
    intervals = of_marts(tests, GENERIC[6])
    assert {test["model"]["name"] for test in intervals} == {
        "dim_customer_history", "dim_merchant_history", "dim_product_history",
    }  # fmt: skip
    for mart in {_mart(test) for test in intervals}:
        checks = [test for test in intervals if _mart(test) == mart]
        assert {check["test_metadata"]["name"] for check in checks} == set(GENERIC[6])
        for check in checks:
            assert failing_rows(connection, check) == 0, check["name"]
        plant(
            connection,
            f"insert into {mart} select * replace (valid_from + interval 1 second as valid_from) "
            f"from {mart} where is_current limit 1",
        )
        for check in checks:
            assert failing_rows(connection, check) > 0, check["name"]


def _mart(test: Node) -> str:
    return f"{test['model']['schema']}.{test['model']['name']}"
