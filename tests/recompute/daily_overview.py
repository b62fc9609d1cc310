"""`rpt_daily_overview`: one row per business date, currency and source system."""

from __future__ import annotations

import polars as pl

from tests.recompute import events, payments
from tests.recompute.amounts import converted, units
from tests.recompute.payments import AUTHORIZED, CAPTURED
from tests.recompute.rates import REPORTING, Rates
from tests.recompute.sources import Row, Sources

GRAIN = ("business_date", "currency_code", "source_system")
SMALLEST_GROUP = 10
"""Fewer customers than this are not counted: the number would point at people."""


def recompute(sources: Sources) -> list[Row]:
    """The report, with money as `Decimal`."""
    rates = Rates(sources.documents["currency_exchange_rates"])
    lives = payments.lives(payments.unified(sources), events.deduplicated(sources.messages))
    grouped = _money(_stages(lives), rates).group_by("business_date", "currency", "source_system").agg(_MEASURES)
    return [_row(found) for found in grouped.iter_rows(named=True)]


def _stages(lives: pl.DataFrame) -> pl.DataFrame:
    """How far each payment came: what its events say, or its status where they do not."""
    status = pl.col("status")
    authorized = pl.col("authorized") | pl.col("captured") | status.is_in(AUTHORIZED)
    asked = authorized | pl.col("declined")
    blocked = (pl.col("blocked") | (status == "blocked")) & ~asked
    incomplete = status.is_in(["canceled", "requires_action"]) & ~asked & ~blocked
    return lives.with_columns(
        tries=pl.max_horizontal("attempts", 1),
        was_authorized=authorized,
        was_blocked=blocked,
        was_incomplete=incomplete,
        was_captured=pl.col("captured") | status.is_in(CAPTURED),
        # a report confirms fraud; so does a dispute that claims it, until it is won
        was_fraud=(pl.col("reported") & (pl.col("fraud_won") == 0)) | (pl.col("fraud_disputes") > pl.col("fraud_won")),
    )


def _money(lives: pl.DataFrame, rates: Rates) -> pl.DataFrame:
    """Amounts of captured payments, in their currency and in the reporting currency at their own rate."""
    counts = pl.col("was_captured") & pl.col("amount").is_not_null()
    lives = lives.with_columns(
        **{
            f"{name}_counted": pl.when(counts).then(pl.col(column))
            for name, column in {"captured": "amount", "refunded": "refunded", "lost": "lost", "fee": "fees"}.items()
        }
    )
    found = [rates.on(currency, day) for currency, day in lives.select("currency", "business_date").iter_rows()]
    reporting = {
        f"{name}_reporting": pl.Series(
            [converted(amount, rate) for amount, rate in zip(lives[f"{name}_counted"], found, strict=True)],
            dtype=pl.Int64,
        )
        for name in ("captured", "refunded", "lost", "fee")
    }
    unconverted = pl.Series([rate is None for rate in found]) & lives.select(counts).to_series()
    return lives.with_columns(**reporting, unconverted=unconverted)


def _sum_of_converted(name: str) -> pl.Expr:
    """Null where there was something to convert and nothing of it could be."""
    has_some = pl.col(name).is_not_null().any() | ~pl.col("unconverted").any()
    return pl.when(has_some).then(pl.col(name).sum()).alias(name)


_MEASURES = [
    pl.len().alias("transactions"),
    pl.col("tries").sum().alias("attempts"),
    pl.col("was_blocked").sum().alias("blocked_transactions"),
    pl.col("was_incomplete").sum().alias("incomplete_transactions"),
    pl.col("was_authorized").sum().alias("authorized_transactions"),
    pl.col("was_captured").sum().alias("captured_transactions"),
    (pl.col("was_captured") & (pl.col("refunds") > 0)).sum().alias("refunded_transactions"),
    pl.col("was_fraud").sum().alias("confirmed_fraud_transactions"),
    pl.col("amount").is_null().sum().alias("invalid_amount_transactions"),
    pl.col("unconverted").sum().alias("unconverted_transactions"),
    pl.col("customer_id").drop_nulls().n_unique().alias("customers"),
    *(pl.col(f"{name}_counted").sum() for name in ("captured", "refunded", "lost", "fee")),
    *(_sum_of_converted(f"{name}_reporting") for name in ("captured", "refunded", "lost", "fee")),
]


def _row(found: Row) -> Row:
    day = found["business_date"]
    asked = found["blocked_transactions"] + found["incomplete_transactions"]
    money = {
        "captured_amount": found["captured_counted"],
        "refunded_amount": found["refunded_counted"],
        "dispute_lost_amount": found["lost_counted"],
        "fee_amount": found["fee_counted"],
        "net_volume": found["captured_counted"] - found["refunded_counted"] - found["lost_counted"],
        "captured_amount_reporting": found["captured_reporting"],
        "refunded_amount_reporting": found["refunded_reporting"],
        "dispute_lost_amount_reporting": found["lost_reporting"],
        "fee_amount_reporting": found["fee_reporting"],
        "net_volume_reporting": None
        if found["captured_reporting"] is None
        else found["captured_reporting"] - found["refunded_reporting"] - found["lost_reporting"],
    }
    counted = (
        "transactions", "attempts", "blocked_transactions", "incomplete_transactions", "authorized_transactions",
        "captured_transactions", "refunded_transactions", "confirmed_fraud_transactions",
        "invalid_amount_transactions", "unconverted_transactions",
    )  # fmt: skip
    return {
        "business_date": day,
        "business_date_key": day.year * 10_000 + day.month * 100 + day.day,
        "currency_code": found["currency"] or "unknown",
        "source_system": found["source_system"],
        "reporting_currency_code": REPORTING,
        **{name: found[name] for name in counted},
        "authorization_denominator": found["transactions"] - asked,
        "authorization_denominator_raw": found["attempts"] - asked,
        "customers": found["customers"] if found["customers"] >= SMALLEST_GROUP else None,
        **{name: None if amount is None else units(amount) for name, amount in money.items()},
    }
