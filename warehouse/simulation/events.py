"""The steps of payments as messages of `payments.transactions`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.simulation import fraud
from warehouse.simulation.catalogue import currency_codes
from warehouse.simulation.draws import Booleans, Integers
from warehouse.simulation.payments import MAX_ATTEMPTS, Story
from warehouse.simulation.reality import (
    CVV_EVERY,
    DAY,
    NOTE_EVERY,
    OUT_OF_ORDER_SHARE,
    OUT_OF_ORDER_WITHIN,
    REDELIVERED_SHARE,
    REDELIVERY_WITHIN,
)
from warehouse.simulation.stores.stream import Message
from warehouse.simulation.text import Strings, amounts, iso_times, join, padded, pick
from warehouse.simulation.world import FIRST_NUMBER, NEVER, World

SETTLEMENT_DELAY = 2 * DAY
"""Captured money becomes available this long after the capture."""

_CODES_PER_PAYMENT = 64
_DECLINES = [("insufficient_funds", "51"), ("do_not_honor", "05"), ("expired_card", "54"), ("lost_card", "41")]
_REFUND_REASONS = ["requested_by_customer", "duplicate", "damaged_goods", "late_delivery"]
_DISPUTE_REASONS = ["product_not_received", "product_unacceptable", "subscription_canceled", "duplicate"]
_DISPUTE_CODES = ["13.1", "13.3", "13.2", "12.6"]
_NETWORKS = ["visa", "mastercard", "amex"]
_THREE_DS = [
    "null",
    '{"outcome":"authenticated","eci":"05","exemption":null}',
    '{"outcome":"failed","eci":"07","exemption":null}',
    '{"outcome":"exempted","eci":"06","exemption":"transaction_risk_analysis"}',
]


@dataclass(frozen=True)
class Events:
    """Messages by column, in order of arrival."""

    moment: Integers
    key: Strings
    value: Strings

    def messages(self) -> Iterator[Message]:
        """One by one, as the producer takes them."""
        return zip(
            self.key.to_pylist(),
            self.value.cast(pa.binary()).to_pylist(),
            self.moment.tolist(),
            strict=True,
        )


@dataclass(frozen=True)
class _Step:
    """One kind of event. `code` tells the events of a payment apart; columns have the story's shape."""

    code: int
    event_type: str
    moment: Integers
    amount: Integers
    actor: str
    attributes: Strings
    reason: Strings | None = None


def payment_events(world: World, story: Story, since: int, until: int) -> Events:
    """What these payments send within [since, until), with redeliveries and late arrivals."""
    ids = story.ids
    moments, arrivals, numbers, keys, values = [], [], [], [], []
    for step in _steps(world, story, ids):
        chosen = np.flatnonzero((step.moment >= since) & (step.moment < until))
        if not len(chosen):
            continue
        rows = pa.array(chosen)
        moment = step.moment[chosen]
        number = story.number[chosen] * _CODES_PER_PAYMENT + step.code
        key = ids.take(rows)
        reason = "null" if step.reason is None else join('"', step.reason.take(rows), '"')
        value = join(
            '{"event_id":"EVT-',
            padded(story.number[chosen] + FIRST_NUMBER, 8),
            f'-{step.code:02d}","event_type":"{step.event_type}","schema_version":1,"source_system":"',
            pick(["oltp", "mongodb"], story.is_document[chosen].astype(np.int64)),
            '","transaction_id":"',
            key,
            '","occurred_at":"',
            iso_times(moment),
            '","amount":"',
            amounts(step.amount[chosen], story.exponent[chosen]),
            '","currency_code":"',
            pick(currency_codes(), story.currency[chosen]),
            '","reason":',
            reason,
            f',"actor":"{step.actor}","attributes":',
            step.attributes.take(rows),
            "}",
        )
        draws = world.draws("event", number)
        late = draws.below("late", OUT_OF_ORDER_SHARE)
        arrival = moment + np.where(late, draws.between("late by", 1, OUT_OF_ORDER_WITHIN), 0)
        moments.append(moment)
        arrivals.append(arrival)
        numbers.append(number)
        keys.append(key)
        values.append(value)
        again = np.flatnonzero(draws.below("redelivered", REDELIVERED_SHARE))
        if len(again):
            moments.append(moment[again])
            arrivals.append((arrival + draws.between("redelivered after", 1, REDELIVERY_WITHIN))[again])
            numbers.append(number[again])
            keys.append(key.take(pa.array(again)))
            values.append(value.take(pa.array(again)))
    if not moments:
        return Events(np.empty(0, dtype=np.int64), pa.array([], pa.string()), pa.array([], pa.string()))
    order = np.lexsort((np.concatenate(numbers), np.concatenate(arrivals)))
    return Events(
        np.concatenate(moments)[order],
        pa.chunked_array(keys).take(pa.array(order)),
        pa.chunked_array(values).take(pa.array(order)),
    )


def _steps(world: World, story: Story, ids: Strings) -> Iterator[_Step]:
    draws = world.draws("event attributes", story.number)
    three_ds = pick(_THREE_DS, story.three_ds)
    extras = join(
        _only(story.number % CVV_EVERY == 700, ',"cvv":"737"'),
        _only(story.number % NOTE_EVERY == 650, ',"note":"gift wrap \\u0000 please"'),
    )
    decline_reason = pick([reason for reason, _ in _DECLINES], story.decline_reason)
    decline_code = join('"', pick([code for _, code in _DECLINES], story.decline_reason), '"')

    def attempt(number: int, code: Strings | str, proof: Strings | str, *more: Strings) -> Strings:
        return join(
            '{"attempt_id":"ATT-',
            ids,
            f'-{number}","attempt_number":{number},"decline_code":',
            code,
            ',"three_ds":',
            proof,
            *more,
            "}",
        )

    for index in range(MAX_ATTEMPTS):
        base = 1 + index * 3
        number = index + 1
        yield _Step(
            base, "payment.attempted", story.attempted[index], story.amount, "customer",
            attempt(number, "null", "null", extras),
        )  # fmt: skip
        yield _Step(
            base + 1, "payment.authenticated", story.authenticated[index], story.amount, "issuer",
            attempt(number, "null", three_ds),
        )  # fmt: skip
        yield _Step(
            base + 2, "payment.declined", story.declined[index], story.amount, "issuer",
            attempt(number, decline_code, three_ds), decline_reason,
        )  # fmt: skip

    last_attempt = padded(sum(((t < NEVER).astype(np.int64) for t in story.attempted), np.zeros_like(story.number)), 1)
    yield _Step(
        10, "payment.authorized", story.authorized, story.amount, "issuer",
        join(
            '{"attempt_id":"ATT-', ids, "-", last_attempt, '","attempt_number":', last_attempt,
            ',"decline_code":null,"three_ds":', three_ds, "}",
        ),
    )  # fmt: skip
    reviewed = story.is_reviewed
    yield _Step(
        11, "payment.blocked", story.blocked, story.amount, "risk_engine",
        join(
            '{"attempt_id":"ATT-', ids, "-", last_attempt, '","attempt_number":', last_attempt,
            ',"rule":"', pick(fraud.RULES, story.rule), '","fraud_score":',
            pick([f"{cent / 100:.2f}" for cent in range(101)], np.rint(story.score * 100).astype(np.int64)),
            _only(reviewed, ',"review_result":"fraudulent"'), "}",
        ),
        pick(["risk_score", "manual_review"], reviewed.astype(np.int64)),
    )  # fmt: skip
    available = np.where(story.captured < NEVER, story.captured, 0) + SETTLEMENT_DELAY
    yield _Step(
        12, "payment.captured", story.captured, story.amount, "merchant",
        join(
            '{"capture_id":"CAP-', ids, '","available_at":"', iso_times(available), '"',
            _only(reviewed, ',"review_result":"approved"'), "}",
        ),
    )  # fmt: skip
    yield _Step(
        13, "fee.charged", story.captured, story.fee, "system",
        join('{"fee_id":"FEE-', ids, '","fee_type":"processing"}'), _constant(ids, "processing"),
    )  # fmt: skip
    refund_reason = pick(_REFUND_REASONS, draws.between("refund reason", 0, len(_REFUND_REASONS)))
    yield _Step(
        14, "refund.failed", story.refund_failed, story.refund_amounts[0], "issuer",
        join('{"refund_id":"RFD-', ids, '-0"}'), _constant(ids, "expired_or_canceled_card"),
    )  # fmt: skip
    for index in range(2):
        yield _Step(
            15 + index, "refund.succeeded", story.refunds[index], story.refund_amounts[index], "merchant",
            join('{"refund_id":"RFD-', ids, f'-{index + 1}"}}'), refund_reason,
        )  # fmt: skip

    network = pick(_NETWORKS, draws.between("network", 0, len(_NETWORKS)))
    yield _Step(
        17, "fraud.reported", story.reported, story.amount, "issuer",
        join(
            '{"report_id":"FRR-', ids, '","network":"', network, '","label_source":"',
            pick(["issuer", "cardholder"], draws.between("label source", 0, 2)), '"}',
        ),
        _constant(ids, "card_not_present_fraud"),
    )  # fmt: skip
    grievance = draws.between("grievance", 0, len(_DISPUTE_REASONS))
    by_fraud = pa.array(story.dispute_by_fraud)
    dispute_reason = pc.if_else(by_fraud, "fraudulent", pick(_DISPUTE_REASONS, grievance))
    dispute = join(
        '{"dispute_id":"DSP-', ids, '","reason_code":"',
        pc.if_else(by_fraud, "10.4", pick(_DISPUTE_CODES, grievance)), '","is_fraud":',
        pick(["false", "true"], story.dispute_by_fraud.astype(np.int64)), ',"network":"', network, '"',
    )  # fmt: skip
    plain = join(dispute, "}")
    yield _Step(18, "dispute.inquiry", story.inquired, story.amount, "cardholder", plain, dispute_reason)
    yield _Step(
        19, "dispute.opened", story.disputed, story.amount, "cardholder",
        join(dispute, ',"movement_id":"DSP-', ids, '"}'), dispute_reason,
    )  # fmt: skip
    yield _Step(20, "dispute.evidence_submitted", story.evidence, story.amount, "merchant", plain, dispute_reason)
    yield _Step(
        21, "dispute.won", story.won, story.amount, "issuer",
        join(dispute, ',"movement_id":"DSP-', ids, '-R"}'), dispute_reason,
    )  # fmt: skip
    yield _Step(22, "dispute.lost", story.lost, story.amount, "issuer", plain, dispute_reason)
    yield _Step(
        23, "fee.charged", story.lost, story.dispute_fee, "system",
        join('{"fee_id":"FEE-', ids, '-D","fee_type":"dispute"}'), _constant(ids, "dispute"),
    )  # fmt: skip


def _only(condition: Booleans, text: str) -> Strings:
    return pick(["", text], condition.astype(np.int64))


def _constant(like: Strings, text: str) -> Strings:
    return pa.repeat(text, len(like))
