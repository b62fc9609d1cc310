"""`fct_merchant_balance_daily`: one row per merchant, currency and day, quiet days included."""

from __future__ import annotations

import datetime as dt
import hashlib

import polars as pl

from tests.recompute.amounts import units
from tests.recompute.movements import BUCKETS, Ledger, exponents
from tests.recompute.sources import Row, Sources

GRAIN = ("merchant_key", "currency_code", "business_date")
UNKNOWN = "-1"


def merchant_key(merchant_id: str | None) -> str:
    """Keys are md5 text of source and natural id; -1 is the member that nobody knows."""
    if merchant_id is None:
        return UNKNOWN
    return hashlib.md5(f"oltp|{merchant_id}".encode(), usedforsecurity=False).hexdigest()


def recompute(sources: Sources) -> list[Row]:
    """The fact, with money as `Decimal`."""
    digits = exponents(sources)
    moved = pl.DataFrame(
        [
            (merchant_key(found.merchant_id), found.currency, found.business_date, BUCKETS[found.kind], found.amount)
            for found in Ledger(sources).movements
        ],
        schema={
            "merchant": pl.String, "currency": pl.String, "day": pl.Date, "bucket": pl.String, "amount": pl.Int64,
        },
        orient="row",
    )  # fmt: skip
    today = dt.datetime.now(dt.UTC).date()
    last = moved.filter(pl.col("day") <= today)["day"].max()
    assert isinstance(last, dt.date)
    rows: list[Row] = []
    for (merchant, currency), account in moved.group_by("merchant", "currency", maintain_order=True):
        balance = 0
        by_day = {day: part for (day,), part in account.group_by("day")}
        for day in _days(set(by_day), last):
            part = by_day.get(day)
            sums = dict(part.group_by("bucket").agg(pl.col("amount").sum()).iter_rows()) if part is not None else {}
            change = sum(sums.values())
            rows.append(
                {
                    "merchant_key": merchant,
                    "currency_code": currency,
                    "business_date": day,
                    "business_date_key": day.year * 10_000 + day.month * 100 + day.day,
                    "currency_exponent": digits.get(str(currency)),
                    "movements_count": len(part) if part is not None else 0,
                    "has_movement": part is not None,
                    "opening_amount": units(balance),
                    **{bucket: units(sums.get(bucket, 0)) for bucket in BUCKETS.values()},
                    "net_movement_amount": units(change),
                    "closing_amount": units(balance + change),
                }
            )
            balance += change
    return rows


def _days(moved: set[dt.date], last: dt.date) -> list[dt.date]:
    """From the first movement to the last known day, and the later days on which something moved."""
    first = min(moved)
    quiet = {first + dt.timedelta(days=number) for number in range((last - first).days + 1)}
    return sorted(quiet | moved)
