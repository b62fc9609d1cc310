"""The reference data set, as it is written out: exact, complete and coherent."""

from __future__ import annotations

import csv
from collections import defaultdict
from decimal import Decimal
from typing import Any

import iso4217
import orjson
import pytest
from bson import Decimal128

from warehouse.simulation import reference
from warehouse.simulation.rates import ecb_rates
from warehouse.simulation.stores.documents import INDEXES
from warehouse.simulation.stores.oltp import TABLES

EVER_CAPTURED = {"captured", "refunded", "partially_refunded", "disputed", "charged_back"}


def rows(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(reference.oltp_csv(table).decode().splitlines()))


def events() -> list[dict[str, Any]]:
    return [orjson.loads(value) for _, value, _ in reference.messages()]


def test_exactly_two_rows_exceed_one_hundred() -> None:
    found = [
        (row["transaction_id"], row["merchant_id"], row["customer_id"], Decimal(row["amount"]), Decimal(row["tax"]))
        for row in rows("transaction")
        if Decimal(row["amount"]) > 100
    ]
    assert found == [
        ("TXN001", "MERCHANT001", "CUSTOMER001", Decimal("120.50"), Decimal("10.00")),
        ("TXN003", "MERCHANT003", "CUSTOMER003", Decimal("150.00"), Decimal("12.50")),
    ]


def test_exactly_three_products_sold_more_than_one_hundred() -> None:
    units: defaultdict[str, int] = defaultdict(int)
    for row in rows("transaction"):
        if row["status_code"] in EVER_CAPTURED:
            units[row["product_id"]] += int(row["quantity"])
    named = {row["product_id"]: (row["product_name"], row["category"]) for row in rows("product")}
    assert {named[product]: sold for product, sold in units.items() if sold > 100} == {
        ("Laptop", "Electronics"): 150,
        ("T-Shirt", "Clothing"): 500,
        ("Apple", "Groceries"): 10_000,
    }
    assert len(units) > 3


def test_units_that_were_never_captured_would_change_the_totals() -> None:
    """Otherwise the definition of total_sell would not be tested by the reference rows."""
    never = {row["product_id"] for row in rows("transaction") if row["status_code"] not in EVER_CAPTURED}
    assert {"PRODUCT001", "PRODUCT002", "PRODUCT003"} <= never


def test_every_status_occurs_in_its_table_and_in_the_payments() -> None:
    assert {row["status_code"] for row in rows("status")} == {row["status_code"] for row in rows("transaction")}
    assert len(rows("status")) == 10


def test_amounts_are_price_times_quantity() -> None:
    price = {row["product_id"]: Decimal(row["unit_price"]) for row in rows("product")}
    for row in rows("transaction"):
        assert Decimal(row["amount"]) == price[row["product_id"]] * int(row["quantity"])


def test_four_documents_of_which_one_is_fraudulent_and_large() -> None:
    documents = reference.documents("Transactions")

    def amount(document: dict[str, Any]) -> Decimal:
        value = document["amount"]
        return value.to_decimal() if isinstance(value, Decimal128) else Decimal(str(value))

    assert len(documents) == 4
    [found] = [d for d in documents if amount(d) > 500 and d["status"] == "fraudulent"]
    assert (found["transaction_id"], found["customer_id"], found["merchant_id"]) == ("TX1005", "CUST005", "MERCH003")
    assert (found["amount"], found["fraud_score"]) == (890.5, 0.75)


def test_every_table_and_collection_has_reference_rows() -> None:
    assert all(rows(table) for table in TABLES)
    assert all(reference.documents(collection) for collection in INDEXES)


def test_references_between_tables_hold() -> None:
    keys = {table: {row[key] for row in rows(table)} for table, key in TABLES.items()}
    for table, column, parent in [
        ("customer", "location_id", "location"),
        ("merchant", "location_id", "location"),
        ("merchant", "settlement_currency", "currency"),
        ("product", "merchant_id", "merchant"),
        ("product", "currency_code", "currency"),
        ("device", "customer_id", "customer"),
        ("payment_method", "customer_id", "customer"),
        ("transaction", "merchant_id", "merchant"),
        ("transaction", "customer_id", "customer"),
        ("transaction", "payment_method_id", "payment_method"),
        ("transaction", "product_id", "product"),
        ("transaction", "device_id", "device"),
        ("transaction", "location_id", "location"),
        ("transaction", "currency_code", "currency"),
        ("transaction", "status_code", "status"),
    ]:
        assert {row[column] for row in rows(table) if row[column]} <= keys[parent], (table, column)


def test_currencies_are_those_of_iso_4217() -> None:
    expected = {
        code: (f"{entry['CcyNbr']:03d}", entry["CcyNm"], int(entry["CcyMnrUnts"]))
        for code, entry in iso4217.raw_table.items()
        if code and entry["CcyMnrUnts"].isdigit()
    }
    assert expected == {
        row["currency_code"]: (row["numeric_code"], row["currency_name"], int(row["minor_unit"]))
        for row in rows("currency")
    }


def test_exchange_rates_are_those_of_the_ecb() -> None:
    for document in reference.documents("currency_exchange_rates"):
        assert document["base"] == "EUR"
        assert document["rates"] == ecb_rates()[document["date"].date()]


@pytest.mark.parametrize("source", ["oltp", "mongodb"])
def test_every_reference_payment_has_its_events(source: str) -> None:
    told = {event["transaction_id"] for event in events() if event["source_system"] == source} - {None}
    stored = (
        {row["transaction_id"] for row in rows("transaction")}
        if source == "oltp"
        else {document["transaction_id"] for document in reference.documents("Transactions")}
    )
    assert told == stored


def test_events_tell_the_final_status() -> None:
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    refunded: defaultdict[str, Decimal] = defaultdict(Decimal)
    for event in events():
        kinds[event["transaction_id"]].add(event["event_type"])
        if event["event_type"] == "refund.succeeded":
            refunded[event["transaction_id"]] += Decimal(event["amount"])
    for row in rows("transaction"):
        identifier, status, amount = row["transaction_id"], row["status_code"], Decimal(row["amount"])
        assert ("payment.captured" in kinds[identifier]) == (status in EVER_CAPTURED)
        assert ("payment.blocked" in kinds[identifier]) == (status == "blocked")
        assert ("dispute.lost" in kinds[identifier]) == (status == "charged_back")
        assert ("dispute.opened" in kinds[identifier]) == (status in ("disputed", "charged_back"))
        assert (refunded[identifier] == amount) == (status == "refunded")
        assert (0 < refunded[identifier] < amount) == (status == "partially_refunded")


def test_payouts_pay_their_movements() -> None:
    moved: dict[str, Decimal] = {}
    sign = {"payment.captured": 1, "fee.charged": -1, "refund.succeeded": -1, "dispute.opened": -1}
    movement_keys = ("movement_id", "capture_id", "fee_id", "refund_id")
    payouts = []
    for event in events():
        attributes = event["attributes"]
        if event["event_type"] == "payout.paid":
            payouts.append(event)
        elif event["event_type"] in sign:
            name = next(attributes[key] for key in movement_keys if key in attributes)
            moved[name] = sign[event["event_type"]] * Decimal(event["amount"])
    paid = [name for payout in payouts for name in payout["attributes"]["movement_ids"]]
    assert sorted(paid) == sorted(moved)
    for payout in payouts:
        assert sum(moved[name] for name in payout["attributes"]["movement_ids"]) == Decimal(payout["amount"])


def test_event_ids_are_unique() -> None:
    identifiers = [event["event_id"] for event in events()]
    assert len(set(identifiers)) == len(identifiers)
