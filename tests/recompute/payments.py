"""The payments of both databases in one shape, and what the stream tells of each."""

from __future__ import annotations

import bisect
import datetime as dt
import re
from collections.abc import Iterable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from tests.recompute.amounts import money
from tests.recompute.sources import Row, Sources

STATUS_OF_DOCUMENT = {"approved": "captured", "review": "authorized", "fraudulent": "blocked"}
AUTHORIZED = {"authorized", "captured", "refunded", "partially_refunded", "disputed", "charged_back"}
CAPTURED = AUTHORIZED - {"authorized"}
SPELLING = re.compile(r"(CUST|CUSTOMER|MERCH|MERCHANT)0*(\d+)", re.IGNORECASE)
FULL_WORD = {"CUST": "CUSTOMER", "MERCH": "MERCHANT"}

SCHEMA: dict[str, Any] = {
    "source_system": pl.String,
    "transaction_id": pl.String,
    "merchant_id": pl.String,
    "customer_id": pl.String,
    "payment_method_id": pl.String,
    "currency": pl.String,
    "status": pl.String,
    "amount": pl.Int64,
    "created_at": pl.Datetime("us", "UTC"),
    "zone": pl.String,
    "business_date": pl.Date,
}
KEY = ["source_system", "transaction_id"]


def canonical(identifier: str | None) -> str | None:
    """`CUST005`, `CUST5` and `CUSTOMER005` are one: the full word and at least three digits; others stay."""
    match = SPELLING.fullmatch(identifier or "")
    if not match:
        return identifier
    word = match[1].upper()
    return f"{FULL_WORD.get(word, word)}{int(match[2]):03d}"


class Zones:
    """The calendar of each shop at each time, from the readings of its row."""

    def __init__(self, readings: Iterable[list[Row]]) -> None:
        versions: dict[str, dict[dt.datetime, str]] = {}
        for reading in readings:
            for row in reading:
                versions.setdefault(str(canonical(row["merchant_id"])), {})[row["updated_at"]] = row["time_zone"]
        self._starts = {merchant: sorted(found) for merchant, found in versions.items()}
        self._versions = versions

    def of(self, merchant: str | None, moment: dt.datetime) -> str | None:
        """The zone of the version true at `moment`; the first version reaches back to the beginning."""
        starts = self._starts.get(merchant or "", [])
        if not starts:
            return None
        return self._versions[merchant or ""][starts[max(bisect.bisect_right(starts, moment) - 1, 0)]]


def unified(sources: Sources) -> pl.DataFrame:
    """One row per payment of either database."""
    zones = Zones(sources.merchant_readings)
    rows = [_of_row(row) for row in sources.tables["transaction"]]
    rows += [_of_document(document) for document in _latest(sources.documents["Transactions"])]
    for row in rows:
        zone = zones.of(row["merchant_id"], row["created_at"]) or row["zone"]
        row["business_date"] = local_date(row["created_at"], zone)
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in rows], schema=SCHEMA, orient="row")


def _of_row(row: Row) -> Row:
    return {
        "source_system": "oltp",
        "transaction_id": row["transaction_id"],
        "merchant_id": canonical(row["merchant_id"]),
        "customer_id": canonical(row["customer_id"]),
        "payment_method_id": row["payment_method_id"],
        "currency": row["currency_code"],
        "status": row["status_code"],
        "amount": money(row["amount"]),
        "created_at": row["created_at"],
        "zone": None,
    }


def _of_document(document: Row) -> Row:
    date = document.get("date") or {}
    currency = (document.get("currency") or {}).get("code")
    return {
        "source_system": "mongodb",
        "transaction_id": document["transaction_id"],
        "merchant_id": canonical(document.get("merchant_id")),
        "customer_id": canonical(document.get("customer_id")),
        "currency": currency.upper() if currency else None,
        "status": STATUS_OF_DOCUMENT.get(document["status"]),
        "amount": money(document.get("amount")),
        "created_at": date.get("created") or date["updated"],
        "zone": date.get("timezone"),
    }


def _latest(documents: list[Row]) -> list[Row]:
    """Of several documents with one transaction id, the one changed last."""
    latest: dict[str, Row] = {}
    for document in sorted(documents, key=lambda found: (found["date"]["updated"], str(found["_id"]))):
        latest[document["transaction_id"]] = document
    return list(latest.values())


def local_date(moment: dt.datetime, zone: Any) -> dt.date:
    """The calendar date in a zone; one that nobody knows counts as UTC."""
    try:
        return moment.astimezone(ZoneInfo(zone or "UTC")).date()
    except (ZoneInfoNotFoundError, ValueError):
        return moment.astimezone(dt.UTC).date()


def lives(payments: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Per payment, what its events add up to: in its own currency, and each dispute once, whatever repeats it.

    Columns beside the key: attempts, authorized, declined, blocked, captured (whether such an event exists), refunds,
    refunded, fees, lost (money), reported, fraud_disputes, fraud_won.
    """
    told = events.join(payments.select(*KEY, pl.col("currency").alias("own")), on=KEY, how="inner")
    is_own = pl.col("currency").eq_missing(pl.col("own"))

    def of(event_type: str) -> pl.Expr:
        return pl.col("event_type") == event_type

    def total(event_type: str) -> pl.Expr:
        return pl.col("amount").filter(of(event_type) & is_own).sum()

    counted = told.group_by(KEY).agg(
        attempts=pl.col("attempt_id").filter(of("payment.attempted")).n_unique(),
        authorized=of("payment.authorized").any(),
        declined=of("payment.declined").any(),
        blocked=of("payment.blocked").any(),
        captured=of("payment.captured").any(),
        refunds=of("refund.succeeded").sum(),
        refunded=total("refund.succeeded"),
        fees=total("fee.charged"),
        reported=of("fraud.reported").any(),
    )
    disputes = (
        told.filter(pl.col("event_type").str.starts_with("dispute.") & ~of("dispute.inquiry"))
        .group_by(*KEY, "dispute_id")
        .agg(
            amount=pl.col("amount").filter(is_own).max(),
            won=of("dispute.won").any(),
            lost=of("dispute.lost").any(),
            claims_fraud=pl.col("is_fraud").fill_null(False).any(),
        )
        .group_by(KEY)
        .agg(
            lost=pl.col("amount").filter("lost").sum(),
            fraud_disputes=pl.col("claims_fraud").sum(),
            fraud_won=(pl.col("claims_fraud") & pl.col("won")).sum(),
        )
    )
    numbers = ["attempts", "refunds", "refunded", "fees", "lost", "fraud_disputes", "fraud_won"]
    flags = ["authorized", "declined", "blocked", "captured", "reported"]
    return (
        payments.join(counted, on=KEY, how="left", validate="1:1")
        .join(disputes, on=KEY, how="left", validate="1:1")
        .with_columns(pl.col(numbers).cast(pl.Int64).fill_null(0), pl.col(flags).fill_null(False))
    )
