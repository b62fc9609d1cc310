"""The exact arithmetic that the recomputation rests on, by the design's own examples."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from tests.recompute.amounts import converted, money, quotient, units
from tests.recompute.payments import Zones, canonical
from tests.recompute.rates import Rates

THURSDAY_BEFORE_EASTER = {"base": "EUR", "date": dt.datetime(2024, 3, 28, tzinfo=dt.UTC), "rates": {"USD": 1.0811}}
AFTER_EASTER = {"base": "EUR", "date": dt.datetime(2024, 4, 2, tzinfo=dt.UTC), "rates": {"USD": 1.0749}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (890.5, 8_905_000), (Decimal("1.250"), 12_500), ("120.5000", 1_205_000), (7, 70_000), ("0.00005", 1),
        ("-0.00005", -1), ("twelve", None), ("", None), (None, None), ("NaN", None), ({"value": 5}, None),
        (True, None), (10**14, None),
    ],
)  # fmt: skip
def test_money_is_ten_thousandths_or_nothing(value: object, expected: int | None) -> None:
    assert money(value) == expected


def test_a_hundred_dollars_on_easter_saturday() -> None:
    rates = Rates([AFTER_EASTER, THURSDAY_BEFORE_EASTER])
    rate = rates.on("USD", dt.date(2024, 3, 30))
    assert rate == quotient(Decimal(1), Decimal("1.0811")) == Decimal("0.924983812783276293")
    assert units(converted(1_000_000, rate) or 0) == Decimal("92.4984")
    assert rates.on("USD", dt.date(2024, 3, 27)) is None
    assert rates.on("USD", dt.date(2024, 4, 9)) is not None
    assert rates.on("USD", dt.date(2024, 4, 10)) is None
    assert rates.on("EUR", dt.date(1999, 1, 1)) == 1
    assert rates.on("XTS", dt.date(2024, 4, 2)) is None
    assert converted(1, None) is None and converted(None, rate) is None


def test_a_half_goes_away_from_zero() -> None:
    assert (converted(5, Decimal("0.1")), converted(-5, Decimal("0.1"))) == (1, -1)


def test_spellings_and_calendars() -> None:
    assert [canonical(name) for name in ("CUST5", "CUSTOMER005", "merch1234", "GUEST-7", None)] == [
        "CUSTOMER005", "CUSTOMER005", "MERCHANT1234", "GUEST-7", None,
    ]  # fmt: skip
    july = dt.datetime(2021, 7, 1, tzinfo=dt.UTC)
    before = {"merchant_id": "MERCHANT002", "time_zone": "America/New_York", "updated_at": july.replace(month=1)}
    zones = Zones([[before], [before | {"time_zone": "Asia/Tokyo", "updated_at": july}]])
    assert zones.of("MERCHANT002", july - dt.timedelta(microseconds=1)) == "America/New_York"
    assert zones.of("MERCHANT002", july) == "Asia/Tokyo"
    assert zones.of("MERCHANT002", dt.datetime(1950, 1, 1, tzinfo=dt.UTC)) == "America/New_York"
    assert zones.of("MERCHANT003", july) is None
