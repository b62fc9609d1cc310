"""What each event does to a merchant's balance: the money that payouts pay out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import polars as pl

from tests.recompute import events, payments
from tests.recompute.payments import Zones, canonical, local_date
from tests.recompute.sources import Row, Sources

BUCKETS = {
    "capture": "captured_amount",
    "fee": "fee_amount",
    "refund": "refunded_amount",
    "dispute_withdrawal": "dispute_withdrawn_amount",
    "dispute_return": "dispute_returned_amount",
    "dispute_fee": "dispute_fee_amount",
    "payout": "payout_amount",
    "payout_reversal": "payout_reversed_amount",
}
"""Kind of a movement → column of the balance."""


@dataclass(frozen=True)
class Movement:
    """Money on a merchant's balance: positive is the merchant's. `merchant_id` is None where nobody knows it."""

    movement_id: str | None
    kind: str
    merchant_id: str | None
    currency: str
    amount: int
    business_date: dt.date


@dataclass(frozen=True)
class Payout:
    """A payout as announced, and when the bank sent it back."""

    payout_id: str
    merchant_id: str | None
    source_system: str
    currency: str | None
    amount: int | None
    movement_ids: list[str]
    arrival_date: dt.date | None
    paid_at: dt.datetime
    failed_at: dt.datetime | None
    failure_reason: str | None
    business_date: dt.date


class Ledger:
    """All movements and payouts of the sources."""

    def __init__(self, sources: Sources) -> None:
        self._zones = Zones(sources.merchant_readings)
        known = payments.unified(sources).iter_rows(named=True)
        self._payments = {(row["source_system"], row["transaction_id"]): row for row in known}
        told = events.deduplicated(sources.messages).sort("occurred_at", "event_id")
        self.payouts = self._read_payouts(told)
        self.movements = [*self._of_payments(told), *self._of_payouts()]

    def _read_payouts(self, told: pl.DataFrame) -> list[Payout]:
        failures: dict[str, Row] = {}
        for event in told.filter(pl.col("event_type") == "payout.failed").iter_rows(named=True):
            failures.setdefault(event["payout_id"], event)
        payouts: dict[str, Payout] = {}
        for event in told.filter(pl.col("event_type") == "payout.paid").iter_rows(named=True):
            failure = failures.get(event["payout_id"], {})
            merchant = canonical(event["merchant_id"])
            arrival = event["arrival_date"]
            payout = Payout(
                event["payout_id"], merchant, event["source_system"], event["currency"], event["amount"],
                list(dict.fromkeys(event["movement_ids"] or [])), dt.date.fromisoformat(arrival) if arrival else None,
                event["occurred_at"], failure.get("occurred_at"), failure.get("reason"),
                local_date(event["occurred_at"], self._zones.of(merchant, event["occurred_at"])),
            )  # fmt: skip
            payouts.setdefault(payout.payout_id, payout)
        return list(payouts.values())

    def _of_payments(self, told: pl.DataFrame) -> list[Movement]:
        movements: list[Movement] = []
        seen: set[tuple[Any, ...]] = set()
        disputed: dict[tuple[Any, ...], Row] = {}
        for event in told.iter_rows(named=True):
            kind, movement_id, sign = _effect(event)
            owner = (event["source_system"], event["transaction_id"])
            same = (*owner, kind, event["refund_id"] or event["dispute_id"] or event["event_id"])
            if not kind or same in seen:
                continue
            seen.add(same)
            amount = event["amount"]
            if kind == "dispute_withdrawal":
                disputed[(*owner, event["dispute_id"])] = event
            if kind == "dispute_return" and amount is None:
                amount = disputed.get((*owner, event["dispute_id"]), {}).get("amount")
            if amount is None or event["currency"] is None:
                continue
            payment = self._payments.get(owner, {})
            merchant = payment.get("merchant_id")
            day = self._day(merchant, event["occurred_at"], payment.get("zone"))
            movements.append(Movement(movement_id, kind, merchant, event["currency"], sign * abs(amount), day))
        return movements

    def _of_payouts(self) -> list[Movement]:
        movements = []
        for payout in self.payouts:
            if payout.amount is None or payout.currency is None:
                continue
            same = (payout.merchant_id, payout.currency)
            movements.append(Movement(None, "payout", *same, -payout.amount, payout.business_date))
            if payout.failed_at:
                day = self._day(payout.merchant_id, payout.failed_at, None)
                movements.append(Movement(None, "payout_reversal", *same, payout.amount, day))
        return movements

    def _day(self, merchant: str | None, moment: dt.datetime, zone: str | None) -> dt.date:
        return local_date(moment, self._zones.of(merchant, moment) or zone)


def _effect(event: Row) -> tuple[str, str | None, int]:
    """What an event does to the balance: kind, movement and sign; most do nothing."""
    effects = {
        "payment.captured": ("capture", event["capture_id"], 1),
        "fee.charged": ("dispute_fee" if event["fee_type"] == "dispute" else "fee", event["fee_id"], -1),
        "refund.succeeded": ("refund", event["refund_id"], -1),
        "dispute.opened": ("dispute_withdrawal", event["movement_id"], -1),
        "dispute.won": ("dispute_return", event["movement_id"], 1),
    }
    return effects.get(event["event_type"], ("", None, 0))


def exponents(sources: Sources) -> dict[str, int]:
    """Decimal digits of the minor unit, by currency."""
    return {row["currency_code"]: int(row["minor_unit"]) for row in sources.tables["currency"]}
