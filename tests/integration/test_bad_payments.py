"""Bad input is quarantined or flagged by rule and counted; it stops no build, and no row of it is lost.

A built company is told things that cannot be: they are landed as they would land, and the whole project is built on
them with all its tests.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from expectations import run_landing, run_publishing
from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import run_dbt

ISSUES = {
    "refund_exceeds_capture",
    "refund_without_payment",
    "refund_in_another_currency",
    "dispute_without_payment",
    "payout_with_unknown_movement",
    "illegal_status_transition",
    "milestones_out_of_order",
    "event_after_its_production",
    "fraud_report_without_payment",
    "unknown_currency",
    "more_decimals_than_the_currency",
    "payment_without_exchange_rate",
}
"""What the bad input below must be counted as."""


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(row)


def _tell(
    connection: duckdb.DuckDBPyConnection, landed_at: datetime, number: int, event_type: str, **told: Any
) -> None:
    """One message of the stream, landed."""
    event = {
        "event_id": f"BAD-{number}",
        "event_type": event_type,
        "schema_version": 1,
        "source_system": "oltp",
        "occurred_at": "2024-01-15T00:00:00.000Z",
        "reason": None,
        "actor": "system",
        "attributes": {},
    } | told
    connection.execute(
        f"insert into {CATALOG}.raw_stream.payments_transactions "
        "(kafka_topic, kafka_partition, kafka_offset, produced_at, message_key, document, _row_hash, _landed_at,"
        " _load_id) values ('payments.transactions', 99, ?, ?, 'BAD', ?, md5(?), ?, 'bad')",
        [number, landed_at, json.dumps(event), str(number), landed_at],
    )


def _plant(connection: duckdb.DuckDBPyConnection) -> None:
    landed_at = datetime.now(UTC)  # after all that the company has landed
    payment, currency, amount, captured_at = _one(
        connection,
        f"select s.transaction_id, s.currency_code, s.amount, s.captured_at from {CATALOG}.public.fct_sales as s "
        f"inner join {CATALOG}.intermediate.int_transaction_milestones as m using (transaction_key) "
        "where s.source_system = 'oltp' and s.status_code = 'captured' and s.currency_code = 'EUR' "
        "and m.captured_amount is not null order by s.transaction_id limit 1",
    )
    known = {"transaction_id": payment, "currency_code": currency}
    before, after = ({"occurred_at": (captured_at + timedelta(days=days)).isoformat()} for days in (-1, 1))
    ahead = (landed_at + timedelta(hours=12)).isoformat()
    unknown = {"transaction_id": "TXN-NOBODY", "currency_code": "EUR"}
    refund = {"attributes": {"refund_id": "RFD-BAD-1"}}
    _tell(connection, landed_at, 1, "refund.succeeded", amount=str(amount * 2), **known, **refund, **before)
    _tell(connection, landed_at, 2, "refund.succeeded", amount="1.00", **unknown, attributes={"refund_id": "RFD-BAD-2"})
    _tell(
        connection, landed_at, 3, "refund.succeeded", transaction_id=payment, currency_code="JPY", amount="1",
        attributes={"refund_id": "RFD-BAD-3"},
    )  # fmt: skip
    _tell(connection, landed_at, 4, "dispute.opened", amount="5.00", **unknown, attributes={"dispute_id": "DSP-BAD"})
    _tell(connection, landed_at, 5, "fraud.reported", amount="5.00", **unknown, attributes={"report_id": "FRR-BAD"})
    _tell(
        connection, landed_at, 6, "payout.paid", transaction_id=None, amount="7.00", currency_code="EUR",
        attributes={"payout_id": "PO-BAD", "merchant_id": "MERCHANT001", "movement_ids": ["CAP-NOBODY"]},
    )  # fmt: skip
    # authorized a day after it was captured, and declined by a clock that runs ahead: no lifecycle allows it
    _tell(connection, landed_at, 7, "payment.authorized", amount=str(amount), **known, **after)
    _tell(connection, landed_at, 8, "payment.declined", amount=str(amount), occurred_at=ahead, **known)
    for name, values in {"unknown": ("XXQ", "10"), "decimals": ("JPY", "10.5")}.items():
        code, value = values
        for table in ("transaction", "transaction_history"):
            connection.execute(
                f"insert into {CATALOG}.raw_oltp.{table} by name select * replace ("
                f"'TXN-BAD-{name}' as transaction_id, '{code}' as currency_code, {value}::decimal(18, 4) as amount, "
                f"0::decimal(18, 4) as tax, md5('{name}') as _row_hash, timestamptz '{landed_at}' as _landed_at) "
                f"from {CATALOG}.raw_oltp.transaction where transaction_id = ?",
                [payment],
            )


@pytest.fixture(scope="module")
def spoiled(company: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The company's warehouse after the bad input, built and tested."""
    settings = company.model_copy(update={"warehouse_home": tmp_path_factory.mktemp("spoiled")})
    original, copy = Home.of(company), Home.of(settings)
    shutil.copytree(original.keys, copy.keys)
    shutil.copytree(original.extensions, copy.extensions)
    shutil.copy(original.warehouse, copy.warehouse)
    with open_warehouse(settings) as connection:
        _plant(connection)
    assert not run_landing(settings).failed
    run_dbt(settings, ["build", "--exclude-resource-type", "unit_test"])
    return settings


def test_every_kind_of_bad_input_is_counted(spoiled: Settings) -> None:
    with open_warehouse(spoiled, read_only=True) as connection:
        counted = dict(
            connection.execute(
                f"select issue, sum(occurrences_count) from {CATALOG}.ops.ops_data_issues group by issue"
            ).fetchall()
        )
    assert counted.keys() >= ISSUES, f"not counted: {sorted(ISSUES - counted.keys())}"


def test_no_row_of_it_is_lost_and_the_published_border_holds(spoiled: Settings) -> None:
    with open_warehouse(spoiled, read_only=True) as connection:
        connection.execute(f"use {CATALOG}.public")
        payments = "select count(*), sum(amount) from fct_sales where transaction_id like 'TXN-BAD-%'"
        assert _one(connection, payments) == (2, Decimal("20.5"))
        refunds = "select count(*), count_if(is_orphan) from fct_refund where refund_id like 'RFD-BAD-%'"
        assert _one(connection, refunds) == (3, 1)
    assert not run_publishing(spoiled).failed
