"""Weekly payouts: every movement of money reaches exactly one successful payout.

A payout pays, per merchant and currency, what became available in the seven days before it. One in a hundred
bounces and is paid again two days later under a new number. When more went back than came in, it is a debit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson

from warehouse.simulation.bson_values import utc
from warehouse.simulation.catalogue import currency_codes, currency_exponents
from warehouse.simulation.draws import Integers
from warehouse.simulation.events import SETTLEMENT_DELAY
from warehouse.simulation.payments import Story
from warehouse.simulation.reality import DAY, HOUR
from warehouse.simulation.stores.stream import Message
from warehouse.simulation.text import entity_ids, merchant_ids
from warehouse.simulation.world import FIRST_NUMBER, World

WEEK = 7 * DAY
RETRY_WITHIN = 3 * DAY
"""The retry of a failed payout comes this long after the first try."""
MAX_MOVEMENTS = 5_000
"""Per payout, so that its message stays far below the broker's limit."""

_PAID_AT = 6 * HOUR
_FAILED_SHARE = 0.01
_PREFIXES = ["CAP-", "FEE-", "RFD-", "RFD-", "DSP-", "DSP-", "FEE-"]
_SUFFIXES = ["", "", "-1", "-2", "", "-R", "-D"]


@dataclass(frozen=True)
class _Movements:
    """Money of one window by column: to the merchant positive, from the merchant negative."""

    merchant: Integers
    currency: Integers
    number: Integers
    is_document: Integers
    kind: Integers
    amount: Integers


class PayoutBook:
    """Collects movements by week and pays them out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._weeks: defaultdict[int, list[_Movements]] = defaultdict(list)
        self._waiting: list[Message] = []

    def add(self, story: Story, since: int, until: int) -> None:
        """Take the movements of these payments within [since, until)."""
        for kind, (moment, amount) in enumerate(
            (
                (story.captured, story.amount),
                (story.captured, -story.fee),
                (story.refunds[0], -story.refund_amounts[0]),
                (story.refunds[1], -story.refund_amounts[1]),
                (story.disputed, -story.amount),
                (story.won, story.amount),
                (story.lost, -story.dispute_fee),
            )
        ):
            chosen = np.flatnonzero((moment >= since) & (moment < until))
            week = (moment[chosen] + SETTLEMENT_DELAY - self._world.start_ms) // WEEK
            for number in np.unique(week).tolist():
                rows = chosen[week == number]
                self._weeks[number].append(
                    _Movements(
                        story.merchant[rows],
                        story.currency[rows],
                        story.number[rows],
                        story.is_document[rows].astype(np.int64),
                        np.full(len(rows), kind),
                        amount[rows],
                    )
                )

    def due(self, since: int, until: int) -> list[Message]:
        """Payout messages within [since, until), in order; their movements are then forgotten."""
        for week in sorted(self._weeks):
            if self._paid_at(week) < until:
                self._waiting += self._pay(week, self._weeks.pop(week))
        ready = [message for message in self._waiting if since <= message[2] < until]
        self._waiting = [message for message in self._waiting if message[2] >= until]
        return sorted(ready, key=lambda message: (message[2], message[0]))

    def _paid_at(self, week: int) -> int:
        return self._world.start_ms + (week + 1) * WEEK + _PAID_AT

    def _pay(self, week: int, parts: list[_Movements]) -> Iterator[Message]:
        merchant = np.concatenate([part.merchant for part in parts])
        currency = np.concatenate([part.currency for part in parts])
        number = np.concatenate([part.number for part in parts])
        kind = np.concatenate([part.kind for part in parts])
        order = np.lexsort((kind, number, currency, merchant))
        merchant, currency, number, kind = merchant[order], currency[order], number[order], kind[order]
        amount = np.concatenate([part.amount for part in parts])[order]
        is_document = np.concatenate([part.is_document for part in parts])[order]
        movement_ids = [
            f"{_PREFIXES[k]}{'TX' if d else 'TXN'}{n:08d}{_SUFFIXES[k]}"
            for k, d, n in zip(kind.tolist(), is_document.tolist(), (number + FIRST_NUMBER).tolist(), strict=True)
        ]
        group = merchant * len(currency_codes()) + currency
        starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
        ends = np.r_[starts[1:], len(group)]
        fails = self._world.draws("payout", group[starts] * 10_000 + week).below("fails", _FAILED_SHARE)
        shops = merchant_ids(merchant[starts]).to_pylist()
        numbers = entity_ids("", merchant[starts]).to_pylist()
        for index, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            for part, first in enumerate(range(start, end, MAX_MOVEMENTS)):
                last = min(first + MAX_MOVEMENTS, end)
                code = int(currency[start])
                yield from self._messages(
                    f"PO-{numbers[index]}-{currency_codes()[code]}-{week + 1:04d}-{part}",
                    str(shops[index]),
                    code,
                    int(amount[first:last].sum()),
                    movement_ids[first:last],
                    self._paid_at(week),
                    bool(fails[index]),
                )

    @staticmethod
    def _messages(
        payout: str, merchant: str, currency: int, minor: int, movements: list[str], paid_at: int, fails: bool
    ) -> Iterator[Message]:
        exponent = int(currency_exponents()[currency])
        sign, whole = ("-" if minor < 0 else ""), abs(minor)
        amount = sign + (f"{whole // 10**exponent}.{whole % 10**exponent:0{exponent}d}" if exponent else str(whole))
        tries = [(payout, "paid", paid_at)]
        if fails:
            tries += [(payout, "failed", paid_at + DAY), (f"{payout}-R1", "paid", paid_at + RETRY_WITHIN)]
        for name, outcome, moment in tries:
            event = {
                "event_id": f"EVT-{name}-{outcome}",
                "event_type": f"payout.{outcome}",
                "schema_version": 1,
                "source_system": "oltp",
                "transaction_id": None,
                "occurred_at": utc(moment).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "amount": amount,
                "currency_code": currency_codes()[currency],
                "reason": "account_closed" if outcome == "failed" else "debit" if minor < 0 else None,
                "actor": "bank" if outcome == "failed" else "system",
                "attributes": {
                    "payout_id": name,
                    "merchant_id": merchant,
                    "movement_ids": movements,
                    "arrival_date": utc(moment + DAY).date().isoformat(),
                },
            }
            yield name, orjson.dumps(event), moment
