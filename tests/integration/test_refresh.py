"""The whole sequence on real servers: what is in the marts is what is at the sources, once, and nothing personal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pymongo import MongoClient

from warehouse import servers, simulation
from warehouse.core.database import open_published, open_warehouse
from warehouse.core.paths import Home
from warehouse.core.settings import Settings
from warehouse.examples import run_examples
from warehouse.privacy.members import IDENTIFYING
from warehouse.refresh import refresh
from warehouse.report import last_report

EMAIL = re.compile(rb"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
NUMBER = re.compile(rb"\+?[0-9][0-9 ().-]{6,25}[0-9]")
EVER_CAPTURED = ("captured", "refunded", "partially_refunded", "disputed", "charged_back")
MONGODB_STATUS = {"approved": "captured", "review": "authorized", "fraudulent": "blocked"}


def rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Rows from what readers see."""
    with open_published(settings) as connection:
        return connection.execute(sql).fetchall()


def source_rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Rows from PostgreSQL."""
    with psycopg.connect(str(servers.resolve(settings).postgres_uri)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def documents(company: Settings) -> Iterator[Any]:
    """The company's MongoDB."""
    with MongoClient[dict[str, Any]](str(servers.resolve(company).mongodb_uri)) as client:
        yield client["stripe_nosql"]


def test_the_three_example_queries_give_exactly_the_rows_of_the_design(reference: Settings) -> None:
    postgres, mongodb, warehouse = run_examples(reference, servers.resolve(reference))
    assert sorted(postgres.rows) == [
        ("TXN001", "MERCHANT001", "CUSTOMER001", Decimal("120.50"), Decimal("10.00")),
        ("TXN003", "MERCHANT003", "CUSTOMER003", Decimal("150.00"), Decimal("12.50")),
    ]
    assert mongodb.rows == [("TX1005", "CUST005", "MERCH003", 890.5, 0.75)]
    assert sorted(warehouse.rows) == [
        ("Apple", "Groceries", 10000),
        ("Laptop", "Electronics", 150),
        ("T-Shirt", "Clothing", 500),
    ]
    with MongoClient[dict[str, Any]](str(servers.resolve(reference).mongodb_uri)) as client:
        assert client["stripe_nosql"]["Transactions"].count_documents({}) == 4


def test_every_payment_of_both_databases_is_one_sale(company: Settings, documents: Any) -> None:
    expected = {
        "oltp": source_rows(company, "select count(*) from transaction")[0][0],
        "mongodb": documents["Transactions"].count_documents({}),
    }
    found = dict(rows(company, "select source_system, count(*) from fct_sales group by source_system"))
    assert found == expected
    assert dict(rows(company, "select source_system, count(*) from fct_fraud group by source_system")) == expected


def test_sums_per_currency_and_status_equal_postgresql(company: Settings) -> None:
    expected = source_rows(
        company, "select currency_code, status_code, count(*), sum(amount), sum(tax) from transaction group by 1, 2"
    )
    found = rows(
        company,
        "select currency_code, status_code, count(*), sum(amount), sum(tax) from fct_sales "
        "where source_system = 'oltp' group by 1, 2",
    )
    assert sorted(found) == sorted(expected)


def test_sums_per_currency_and_status_equal_mongodb(company: Settings, documents: Any) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    counted: Counter[tuple[str, str]] = Counter()
    for document in documents["Transactions"].find({}, {"amount": 1, "status": 1, "currency.code": 1}):
        group = (document["currency"]["code"], MONGODB_STATUS[document["status"]])
        # Decimal128, double, int and numeric text, by their shortest decimal form
        expected[group] += Decimal(str(document["amount"]))
        counted[group] += 1
    found = rows(
        company,
        "select currency_code, status_code, count(*), sum(amount) from fct_sales "
        "where source_system = 'mongodb' group by 1, 2",
    )
    assert {(c, s): n for c, s, n, _ in found} == dict(counted)
    assert {(c, s): amount for c, s, _, amount in found} == dict(expected)


def test_units_per_product_equal_postgresql(company: Settings) -> None:
    expected = source_rows(
        company,
        "select product_id, sum(quantity) from transaction where status_code = any(array"
        f"{list(EVER_CAPTURED)}) and product_id is not null group by 1",
    )
    found = rows(company, "select product_id, total_sell from dim_product where total_sell > 0")
    assert sorted(found) == sorted(expected)


def test_fraudulent_documents_are_detections(company: Settings, documents: Any) -> None:
    expected = documents["Transactions"].count_documents({"status": "fraudulent"})
    found = rows(company, "select count(*) from fct_sales where source_system = 'mongodb' and status_code = 'blocked'")
    assert found == [(expected,)]
    assert expected > 0


def test_every_column_that_exists_is_declared(company: Settings) -> None:
    import json

    manifest = json.loads((Home.of(company).dbt_target / "manifest.json").read_text())
    declared = {
        (node["schema"], node["alias"], column)
        for node in manifest["nodes"].values()
        if node["resource_type"] in {"model", "seed"}
        for column in node["columns"]
    }
    with open_warehouse(company, read_only=True) as connection:
        existing = set(
            connection.execute(
                "select table_schema, table_name, column_name from information_schema.columns "
                "where table_schema in ('staging', 'intermediate', 'public', 'ops', 'reference')"
            ).fetchall()
        )
    assert not existing - declared
    assert not declared - existing


def personal_values(settings: Settings, documents: Any) -> set[bytes]:
    """Every card number, e-mail address and phone number of the simulated people, at the sources."""
    found = source_rows(
        settings,
        "select email from customer union select phone from customer union select card_number from payment_method",
    )
    values = {value.encode() for (value,) in found if value}
    for merchant in documents["merchants"].find({}, {"profile": 1, "beneficial_owners": 1}):
        people = [merchant.get("profile") or {}, *(merchant.get("beneficial_owners") or [])]
        for person in people:
            values |= {
                str(person[key]).encode() for key in ("support_email", "support_phone", "email") if person.get(key)
            }
    for text in [d.get("comment") for d in documents["customer_feedback"].find({}, {"comment": 1})]:
        values |= set(EMAIL.findall((text or "").encode()))
    return values


def compact(value: bytes) -> bytes:
    return re.sub(rb"[ ().-]", b"", value)


def leaks(content: bytes, values: set[bytes], numbers: set[bytes]) -> set[bytes]:
    """Which of the values a file holds; numbers with any spacing."""
    found = {match for match in EMAIL.findall(content) if match in values}
    return found | {match for match in NUMBER.findall(content) if compact(match) in numbers}


def test_no_personal_value_lies_anywhere_but_in_the_sources_and_the_vault(company: Settings, documents: Any) -> None:
    values = personal_values(company, documents)
    numbers = {compact(value) for value in values if b"@" not in value}
    assert len(values) > 500, "the company has people"
    home = Home.of(company)
    searched = 0
    for path in home.root.rglob("*"):
        if path.is_file() and home.servers not in path.parents and home.vault.parent != path.parent:
            content = path.read_bytes()
            searched += len(content)
            assert not leaks(content, values, numbers), f"{path.relative_to(home.root)} holds a personal value"
    assert searched > 1_000_000
    for opener in (open_warehouse(company, read_only=True), open_published(company)):
        with opener as connection:
            columns = connection.execute(
                "select table_schema, table_name, column_name from information_schema.columns "
                "where data_type in ('VARCHAR', 'JSON') and table_catalog = 'olap_strip_project'"
            ).fetchall()
            assert columns
            for schema, table, column in columns:
                text = connection.execute(
                    f'select string_agg(distinct "{column}"::varchar, chr(10)) from "{schema}"."{table}"'
                ).fetchone()
                content = (text[0] or "").encode() if text else b""
                assert not leaks(content, values, numbers), f"{schema}.{table}.{column} holds a personal value"


def test_the_search_for_personal_values_can_fail(company: Settings, documents: Any, tmp_path: Path) -> None:
    values = personal_values(company, documents)
    numbers = {compact(value) for value in values if b"@" not in value}
    email = next(value for value in sorted(values) if b"@" in value)
    phone = next(value for value in sorted(values) if value.startswith(b"+"))
    card = next(value for value in sorted(values) if value.isdigit())
    for planted in (email, phone, b"-".join(card[i : i + 4] for i in range(0, len(card), 4))):
        assert leaks(b"\x00binary " + planted + b" \xff", values, numbers)


def test_a_second_refresh_moves_nothing_and_the_next_day_only_itself(company: Settings, documents: Any) -> None:
    refresh(company)  # other tests may have built in this home since it was published
    before = last_report(company)
    assert before is not None
    again = refresh(company)
    ingest = next(step.detail for step in again.steps if step.step == "ingest")
    assert ingest["landed_rows"] == 0
    settled = {"landing expectations", "build", "publishing expectations", "publish"}
    assert {step.step for step in again.steps if step.status == "unchanged"} == settled
    known = rows(company, "select distinct run_id from ops.ops_run_steps")
    assert (before["run_id"],) in known, "the accounts are published all the same"
    named = rows(company, "select column_name from information_schema.columns where table_schema in ('ops', 'raw_ops')")
    assert len(named) > 20
    assert not {name for (name,) in named} & set(IDENTIFYING), "what is left of old accounts tells of nobody"
    documented = json.loads((Home.of(company).site / "data_docs" / "landing" / "report.json").read_text())
    assert documented["suites"] > 19, "the data docs stay those of the whole check"

    endpoints = servers.resolve(company)
    simulation.advance(company, endpoints, 1)
    moved = refresh(company)
    assert not any(step.status == "unchanged" for step in moved.steps)
    day = next(step.detail for step in moved.steps if step.step == "ingest")
    total = sum(table["source_rows"] for source in day["sources"].values() for table in source["tables"].values())
    assert 0 < day["landed_rows"] < total / 2
    test_every_payment_of_both_databases_is_one_sale(company, documents)
    test_sums_per_currency_and_status_equal_postgresql(company)
    test_sums_per_currency_and_status_equal_mongodb(company, documents)
    test_units_per_product_equal_postgresql(company)
