"""Which reports an erasure may change: those that read what pointed at the person, however far up it is read."""

from __future__ import annotations

from typing import Any

import pytest

from warehouse.erasure.reports import affected_reports

COLUMNS = {
    ("public", "fct_sales"): ["transaction_id", "customer_key", "amount"],
    ("public", "dim_customer"): ["customer_key", "country"],
    ("public", "fct_feedback"): ["transaction_id", "customer_key", "rating"],
}


def model(name: str, sql: str, *reads: str, kind: str = "table", path: str = "marts/fact/") -> dict[str, Any]:
    return {
        "resource_type": "model",
        "path": f"{path}{name}.sql",
        "schema": "public",
        "alias": name,
        "config": {"materialized": kind},
        "compiled_code": sql,
        "depends_on": {"nodes": list(reads)},
    }


def report(name: str, sql: str, *reads: str) -> dict[str, Any]:
    return model(name, sql, *reads, path="marts/reporting/")


FACTS = {name: model(name, "select 1") for _, name in COLUMNS}


@pytest.mark.parametrize(
    ("sql", "reads", "affected"),
    [
        ("select sum(amount) from fct_sales", ["fct_sales"], False),
        ("select count(distinct customer_key) from fct_sales", ["fct_sales"], True),
        ("select count(*) from dim_customer", ["dim_customer"], True),  # it lost a row
        ("select avg(rating) from fct_feedback", ["fct_feedback"], True),  # so did this, payment or not
        ("select sum(n) from by_customer", ["by_customer"], True),  # a view that counts people
        ("select device_network from fct_sales", ["fct_sales"], True),
    ],
)
def test_what_reads_the_person_is_affected(sql: str, reads: list[str], affected: bool) -> None:
    view = model("by_customer", "select customer_key, count(*) as n from fct_sales", "fct_sales", kind="view")
    nodes = {**FACTS, "by_customer": view, "rpt": report("rpt", sql, *reads)}
    assert affected_reports(nodes, COLUMNS) == (["rpt"] if affected else [])


def test_a_report_of_an_affected_report_comes_after_it() -> None:
    nodes = {
        **FACTS,
        "a_last": report("a_last", "select sum(n) from first_one", "first_one"),
        "first_one": report("first_one", "select count(*) as n from dim_customer", "dim_customer"),
    }
    assert affected_reports(nodes, COLUMNS) == ["first_one", "a_last"]


def test_without_compiled_sql_nothing_is_guessed() -> None:
    nodes = {**FACTS, "rpt": report("rpt", "select 1", "fct_sales")}
    del nodes["rpt"]["compiled_code"]
    with pytest.raises(KeyError):
        affected_reports(nodes, COLUMNS)
