"""People and shops: plausible, free of anybody real, and the same at every telling."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from warehouse.simulation import people, shops
from warehouse.simulation.catalogue import CURRENCIES, cities, goods
from warehouse.simulation.reality import DAY
from warehouse.simulation.world import PRODUCTS_PER_MERCHANT, World

WORLD = World(seed=11, transactions=20_000, days=60, start=dt.date(2024, 1, 1))
CUSTOMERS = np.arange(1_000)
NOW = WORLD.moment(60)


def passes_luhn(number: str) -> bool:
    """ISO/IEC 7812-1 as on paper: double every second digit from the right, add the digits of the results."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0


def test_the_check_used_here_knows_good_from_bad() -> None:
    assert passes_luhn("4242424242424242")
    assert not passes_luhn("4242424242424241")


def test_card_numbers_pass_luhn_are_unique_and_come_from_test_ranges() -> None:
    rows = people.method_rows(WORLD, CUSTOMERS, NOW)
    numbers = [number for number in rows["card_number"].to_pylist() if number is not None]
    assert len(numbers) > 1_000
    assert all(passes_luhn(number) for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert {number[:6] for number in numbers} <= {"424242", "400005", "555555", "222300", "378282", "601111", "356600"}
    assert {len(number) for number in numbers} == {15, 16}


def test_card_numbers_stay_unique_in_a_large_company() -> None:
    numbers = people.card_numbers(WORLD, np.arange(500_000))
    assert pc.count_distinct(numbers).as_py() == 500_000


def test_bank_transfers_have_no_card() -> None:
    rows = people.method_rows(WORLD, CUSTOMERS, NOW)
    has_card = pc.is_valid(rows["card_number"])
    assert pc.equal(rows["method_type"], "bank_transfer").to_pylist() == pc.invert(has_card).to_pylist()


def test_addresses_and_numbers_belong_to_nobody() -> None:
    rows = people.customer_rows(WORLD, CUSTOMERS, NOW)
    domains = {address.rsplit("@", 1)[1] for address in rows["email"].to_pylist()}
    assert domains == {"example.com", "example.org", "example.net"}
    assert all(address.isascii() for address in rows["email"].to_pylist())
    phones = [phone for phone in rows["phone"].to_pylist() if phone is not None]
    assert all("555" in phone and phone.startswith("+") for phone in phones)
    assert len(phones) < len(CUSTOMERS)


def test_email_addresses_are_unique() -> None:
    assert pc.count_distinct(people.emails(WORLD, CUSTOMERS)).as_py() == len(CUSTOMERS)


@pytest.mark.parametrize("table", ["customer", "device", "payment_method", "merchant", "product"])
def test_rows_of_one_moment_do_not_depend_on_the_block(table: str) -> None:
    make = {
        "customer": people.customer_rows,
        "device": people.device_rows,
        "payment_method": people.method_rows,
        "merchant": shops.merchant_rows,
        "product": shops.product_rows,
    }[table]
    whole = make(WORLD, np.arange(100), NOW)
    parts = pa.concat_tables([make(WORLD, np.arange(0, 37), NOW), make(WORLD, np.arange(37, 100), NOW)])
    assert whole.equals(parts)


@pytest.mark.parametrize("table", ["customer", "device", "payment_method", "merchant", "product"])
def test_what_changed_has_a_newer_updated_at(table: str) -> None:
    """Else an incremental reader would never learn of it."""
    make = {
        "customer": people.customer_rows,
        "device": people.device_rows,
        "payment_method": people.method_rows,
        "merchant": shops.merchant_rows,
        "product": shops.product_rows,
    }[table]
    members = np.arange(150)
    before = {row[f"{table}_id"]: row for row in make(WORLD, members, WORLD.moment(40)).to_pylist()}
    changed = 0
    since = dt.datetime.fromtimestamp(WORLD.moment(40) / 1000, dt.UTC)
    for row in make(WORLD, members, NOW).to_pylist():
        if row != before.get(row[f"{table}_id"]):
            changed += 1
            assert row["updated_at"] >= since
    assert changed > 0


def test_spares_vanish_and_return_under_the_same_key() -> None:
    ids = [
        set(people.device_rows(WORLD, CUSTOMERS, WORLD.moment(day))["device_id"].to_pylist())
        for day in (40, 45, 50, 55)
    ]
    gone = ids[0] - ids[1]
    assert gone
    assert gone & ids[2]


def test_deletions_are_reported_for_exactly_what_vanished() -> None:
    since, until = WORLD.moment(40), WORLD.moment(42)
    before = set(people.device_rows(WORLD, CUSTOMERS, since)["device_id"].to_pylist())
    after = set(people.device_rows(WORLD, CUSTOMERS, until)["device_id"].to_pylist())
    reported = people.spares_deleted(WORLD, "device", CUSTOMERS, since, until)
    assert {f"DEV{number + 10_001:08d}" for number in reported.tolist()} >= before - after
    assert before - after


def test_only_spares_are_ever_deleted() -> None:
    deleted = people.spares_deleted(WORLD, "payment_method", CUSTOMERS, WORLD.moment(0), NOW)
    assert len(deleted)
    assert (deleted % people.SLOTS == people.SPARE_SLOT).all()


def test_prices_change_over_time_and_stay_positive() -> None:
    products = np.arange(200 * PRODUCTS_PER_MERCHANT)
    early = shops.unit_prices(WORLD, products, WORLD.start_ms)
    late = shops.unit_prices(WORLD, products, WORLD.start_ms + 1_000 * DAY)
    assert (early > 0).all()
    assert (early != late).any()


def test_currencies_of_every_scale_are_sold_in() -> None:
    products = np.arange(400 * PRODUCTS_PER_MERCHANT)
    codes = list(CURRENCIES)
    sold = {codes[index] for index in np.unique(shops.product_currency(WORLD, products)).tolist()}
    assert {"JPY", "EUR", "KWD", "CLF", "RUB"} <= sold


def test_the_catalogue_is_complete() -> None:
    assert len({len(row) for row in goods().names}) == 1
    assert len(cities().name) == len(cities().weight)


def test_documents_describe_the_same_merchants() -> None:
    merchants = np.arange(50)
    rows = shops.merchant_rows(WORLD, merchants, NOW).to_pylist()
    documents = list(shops.merchant_documents(WORLD, merchants, NOW, since=0))
    assert [row["merchant_id"].removeprefix("MERCHANT") for row in rows] == [
        document["merchant_id"].removeprefix("MERCH") for document in documents
    ]
    assert [row["trade_name"] for row in rows] == [document["profile"]["trade_name"] for document in documents]
    assert [row["mcc"] for row in rows] == [document["profile"]["mcc"] for document in documents]


def test_documents_describe_the_same_products() -> None:
    merchants = np.arange(50)
    rows = shops.product_rows(WORLD, merchants, NOW).to_pylist()
    documents = list(shops.product_documents(WORLD, merchants, NOW, since=0))
    assert [(row["product_id"], row["product_name"], row["category"]) for row in rows] == [
        (document["product_id"], document["name"], document["attributes"]["category"]) for document in documents
    ]
