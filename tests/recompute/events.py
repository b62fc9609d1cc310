"""The stream: every event once, with its amount and its time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl

from tests.recompute.amounts import money
from tests.recompute.sources import Row

KNOWN_TYPES = {
    "payment.attempted", "payment.authenticated", "payment.authorized", "payment.declined", "payment.blocked",
    "payment.captured", "refund.succeeded", "refund.failed", "dispute.inquiry", "dispute.opened",
    "dispute.evidence_submitted", "dispute.won", "dispute.lost", "fraud.reported", "payout.paid", "payout.failed",
    "fee.charged",
}  # fmt: skip

SCHEMA: dict[str, Any] = {
    "event_id": pl.String,
    "event_type": pl.String,
    "source_system": pl.String,
    "transaction_id": pl.String,
    "currency": pl.String,
    "amount": pl.Int64,
    "occurred_at": pl.Datetime("us", "UTC"),
    "available_at": pl.Datetime("us", "UTC"),
    "attempt_id": pl.String,
    "capture_id": pl.String,
    "refund_id": pl.String,
    "dispute_id": pl.String,
    "movement_id": pl.String,
    "fee_id": pl.String,
    "fee_type": pl.String,
    "reason": pl.String,
    "three_ds": pl.String,
    "payout_id": pl.String,
    "merchant_id": pl.String,
    "network": pl.String,
    "is_fraud": pl.Boolean,
    "movement_ids": pl.List(pl.String),
    "arrival_date": pl.String,
    "partition": pl.Int64,
    "offset": pl.Int64,
}


def deduplicated(messages: list[Row]) -> pl.DataFrame:
    """Events of known types, each once: the delivery that says it happened first, then the lowest position."""
    rows = [_row(message) for message in messages if message.get("event_type") in KNOWN_TYPES]
    return (
        pl.DataFrame(rows, schema=SCHEMA, orient="row")
        .sort("occurred_at", "partition", "offset")
        .unique("event_id", keep="first", maintain_order=True)
    )


def _row(message: Row) -> Row:
    attributes = message.get("attributes") or {}
    position = f"{TOPIC_OF_POSITIONS}-{message['_partition']}-{message['_offset']}"
    return {name: attributes.get(name) for name in SCHEMA} | {
        "event_id": message.get("event_id") or position,
        "event_type": message["event_type"],
        "source_system": message.get("source_system"),
        "transaction_id": message.get("transaction_id"),
        "currency": message.get("currency_code"),
        "reason": message.get("reason"),
        "three_ds": (attributes.get("three_ds") or {}).get("outcome"),
        "amount": money(message.get("amount")),
        "occurred_at": instant(message.get("occurred_at")) or message["_produced_at"],
        "available_at": instant(attributes.get("available_at")),
        "partition": message["_partition"],
        "offset": message["_offset"],
    }


TOPIC_OF_POSITIONS = "payments.transactions"
"""An event without an id is told apart by where it lies."""


def instant(text: Any) -> dt.datetime | None:
    """An ISO 8601 instant; None for anything else."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
