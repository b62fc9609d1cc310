"""One payment, one story: amounts add up, steps come in order, the row says what the events say."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pytest

from warehouse.simulation import fraud
from warehouse.simulation.catalogue import CURRENCIES
from warehouse.simulation.documents import transaction_documents
from warehouse.simulation.events import payment_events
from warehouse.simulation.payments import STATUSES, Story, tell, transaction_rows
from warehouse.simulation.payouts import MAX_MOVEMENTS, PayoutBook
from warehouse.simulation.people import SLOTS, SPARE_SLOT, device_first_seen, method_created
from warehouse.simulation.reality import DAY, LATEST_DISPUTE, LONGEST_STORY
from warehouse.simulation.shops import launched
from warehouse.simulation.stores.stream import MAX_MESSAGE_BYTES
from warehouse.simulation.world import NEVER, World

WORLD = World(seed=5, transactions=20_000, days=120, start=dt.date(2024, 1, 1))
FOREVER = WORLD.moment(600)
Event = dict[str, Any]


@pytest.fixture(scope="module")
def story() -> Story:
    return tell(WORLD, np.arange(WORLD.transactions))


@pytest.fixture(scope="module")
def events(story: Story) -> dict[str, list[Event]]:
    """Distinct events by transaction, in order of occurrence."""
    return by_transaction(payment_events(WORLD, story, 0, FOREVER).messages())


def by_transaction(messages: Any) -> dict[str, list[Event]]:
    seen: dict[str, Event] = {}
    for key, value, _ in messages:
        event = orjson.loads(value)
        assert key == event["transaction_id"]
        seen.setdefault(event["event_id"], event)
    grouped: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(seen.values(), key=lambda event: (event["occurred_at"], event["event_id"])):
        grouped[event["transaction_id"]].append(event)
    return grouped


def total(events: list[Event], event_type: str) -> Decimal:
    return sum((Decimal(event["amount"]) for event in events if event["event_type"] == event_type), Decimal(0))


def test_a_story_does_not_depend_on_its_block(story: Story) -> None:
    alone = tell(WORLD, np.array([4_711]))
    expected = story.take(np.array([4_711]))
    assert transaction_rows(alone, FOREVER).equals(transaction_rows(expected, FOREVER))
    assert [step.tolist() for step in alone.steps()] == [step.tolist() for step in expected.steps()]


def test_another_seed_tells_another_story(story: Story) -> None:
    other = tell(World(6, WORLD.transactions, WORLD.days, WORLD.start), story.number)
    assert (other.amount != story.amount).mean() > 0.9


def test_both_databases_get_their_share(story: Story) -> None:
    assert story.is_document.mean() == pytest.approx(0.4, abs=0.02)


def test_everything_a_payment_uses_exists_before_it(story: Story) -> None:
    in_rows = story.take(np.flatnonzero(~story.is_document))
    assert (WORLD.customers.joined(in_rows.customer) < in_rows.created).all()
    assert (WORLD.merchants.joined(story.merchant) < story.created).all()
    assert (launched(WORLD, story.product) < story.created).all()
    assert (device_first_seen(WORLD, in_rows.device) < in_rows.created).all()
    assert (method_created(WORLD, in_rows.method) < in_rows.created).all()


def test_no_payment_refers_to_a_spare(story: Story) -> None:
    assert not (story.device % SLOTS == SPARE_SLOT).any()
    assert not (story.method % SLOTS == SPARE_SLOT).any()


def test_the_product_belongs_to_the_merchant_and_the_method_to_the_customer(story: Story) -> None:
    assert (story.product // 6 == story.merchant).all()
    assert (story.method // SLOTS == story.customer).all()


def test_amounts_are_positive_and_hold_their_tax_and_fee(story: Story) -> None:
    assert (story.amount > 0).all()
    assert ((story.tax >= 0) & (story.tax < story.amount)).all()
    assert ((story.fee > 0) & (story.fee <= story.amount)).all()


def test_refunds_stay_within_the_capture(story: Story) -> None:
    refunded = sum(
        np.where(time < NEVER, amount, 0) for time, amount in zip(story.refunds, story.refund_amounts, strict=True)
    )
    assert (refunded <= story.amount).all()
    assert (refunded > 0).any()
    assert not ((story.refunds[0] < NEVER) & (story.disputed < NEVER)).any()


def test_amounts_have_exactly_the_decimals_of_their_currency(story: Story, events: dict[str, list[Event]]) -> None:
    for sent in events.values():
        for event in sent:
            decimals = CURRENCIES[event["currency_code"]][0]
            whole, _, fraction = event["amount"].partition(".")
            assert len(fraction) == decimals
            assert whole.isdigit()
    rows = transaction_rows(story, FOREVER)
    for code, amount, tax in zip(
        rows["currency_code"].to_pylist(), rows["amount"].to_pylist(), rows["tax"].to_pylist(), strict=True
    ):
        unit = Decimal(1).scaleb(-CURRENCIES[code][0])
        assert Decimal(amount) % unit == 0
        assert Decimal(tax) % unit == 0


def test_currencies_with_none_two_three_and_four_decimals_are_paid_in(story: Story) -> None:
    assert set(np.unique(story.exponent).tolist()) == {0, 2, 3, 4}


def test_event_ids_are_unique_per_event_and_redelivered_unchanged(story: Story) -> None:
    messages = list(payment_events(WORLD, story, 0, FOREVER).messages())
    values: defaultdict[str, set[bytes]] = defaultdict(set)
    for _, value, _ in messages:
        values[orjson.loads(value)["event_id"]].add(value)
    assert all(len(versions) == 1 for versions in values.values())
    redelivered = (len(messages) - len(values)) / len(values)
    assert redelivered == pytest.approx(0.005, abs=0.002)


def test_events_arrive_mostly_but_not_always_in_order(story: Story) -> None:
    moments = [moment for _, _, moment in payment_events(WORLD, story, 0, FOREVER).messages()]
    late = np.mean(np.diff(np.array(moments)) < -3_600_000)
    assert 0 < late < 0.05


def test_slices_of_time_send_what_the_whole_sends(story: Story) -> None:
    middle = WORLD.moment(70)
    parts = by_transaction(
        [
            *payment_events(WORLD, story, 0, middle).messages(),
            *payment_events(WORLD, story, middle, FOREVER).messages(),
        ]
    )
    assert parts == by_transaction(payment_events(WORLD, story, 0, FOREVER).messages())


LEGAL_NEXT = {
    None: {"payment.attempted"},
    "payment.attempted": {
        "payment.authenticated", "payment.declined", "payment.authorized", "payment.blocked",
    },
    "payment.authenticated": {"payment.declined", "payment.authorized"},
    "payment.declined": {"payment.attempted"},
    "payment.authorized": {"payment.captured", "payment.blocked"},
    "payment.captured": {"fee.charged"},
    "fee.charged": {"refund.failed", "refund.succeeded", "fraud.reported", "dispute.inquiry", "dispute.opened"},
    "refund.failed": {"refund.succeeded", "dispute.inquiry"},
    "refund.succeeded": {"refund.succeeded", "refund.failed", "dispute.inquiry"},
    "dispute.inquiry": {"dispute.opened", "refund.succeeded", "refund.failed"},
    "fraud.reported": {"dispute.opened", "dispute.evidence_submitted", "dispute.won", "dispute.lost"},
    "dispute.opened": {"dispute.evidence_submitted", "fraud.reported", "dispute.won", "dispute.lost"},
    "dispute.evidence_submitted": {"fraud.reported", "dispute.won", "dispute.lost"},
    "dispute.lost": {"fee.charged"},
    "dispute.won": set(),
}  # fmt: skip


def test_events_follow_each_other_as_they_may(events: dict[str, list[Event]]) -> None:
    for sent in events.values():
        before: str | None = None
        for event in sent:
            kind = event["event_type"]
            if before == "fee.charged" and event["attributes"].get("fee_type") == "dispute":
                continue
            assert kind in LEGAL_NEXT[before] or (before, kind) == ("dispute.won", "fraud.reported"), (before, kind)
            before = kind


def status_told_by(sent: list[Event], amount: Decimal) -> set[str]:
    """The statuses a row may have, judged by its events alone."""
    kinds = [event["event_type"] for event in sent]
    if "payment.blocked" in kinds:
        return {"blocked"}
    if "payment.captured" not in kinds:
        if "payment.authorized" in kinds:
            return {"authorized", "canceled"}
        return {"failed"} if "payment.declined" in kinds else {"requires_action", "canceled"}
    if "dispute.lost" in kinds:
        return {"charged_back"}
    if "dispute.opened" in kinds and "dispute.won" not in kinds:
        return {"disputed"}
    refunded = total(sent, "refund.succeeded")
    if refunded == 0:
        return {"captured"}
    return {"refunded"} if refunded == amount else {"partially_refunded"}


@pytest.mark.parametrize("day", [15, 60, 110, 600])
def test_the_row_says_what_the_events_say_at_any_moment(story: Story, day: int) -> None:
    now = WORLD.moment(day)
    rows = story.take(np.flatnonzero(~story.is_document & (story.created < now)))
    told = by_transaction(payment_events(WORLD, rows, 0, now).messages())
    table = transaction_rows(rows, now)
    for identifier, status, amount in zip(
        table["transaction_id"].to_pylist(), table["status_code"].to_pylist(), table["amount"].to_pylist(), strict=True
    ):
        allowed = status_told_by(told[identifier], Decimal(amount))
        in_flight = told[identifier][-1]["event_type"] in (
            "payment.attempted",
            "payment.authenticated",
            "payment.declined",
        )
        assert status in allowed or (status == "requires_action" and in_flight), (identifier, status, allowed)


def test_every_status_occurs(story: Story) -> None:
    seen = set()
    for day in (30, 60, 90, 120):
        rows = story.take(np.flatnonzero(~story.is_document & (story.created < WORLD.moment(day))))
        seen |= {STATUSES[index] for index in np.unique(rows.state(WORLD.moment(day))[0]).tolist()}
    assert seen == set(STATUSES)


@pytest.mark.parametrize("day", [15, 60, 600])
def test_the_document_says_what_the_events_say_at_any_moment(story: Story, day: int) -> None:
    now = WORLD.moment(day)
    records = story.take(np.flatnonzero(story.is_document & (story.created < now)))
    told = by_transaction(payment_events(WORLD, records, 0, now).messages())
    for document in transaction_documents(WORLD, records, now):
        kinds = {event["event_type"] for event in told[document["transaction_id"]]}
        expected = (
            "fraudulent" if "payment.blocked" in kinds else "approved" if "payment.captured" in kinds else "review"
        )
        assert document["status"] == expected
        amounts = {
            Decimal(event["amount"])
            for event in told[document["transaction_id"]]
            if event["event_type"] == "payment.attempted"
        }
        assert amounts == {Decimal(str(document["amount"]))}


def test_gross_less_fees_refunds_and_disputes_is_never_more_than_gross(events: dict[str, list[Event]]) -> None:
    for sent in events.values():
        captured = total(sent, "payment.captured")
        fees = [event for event in sent if event["event_type"] == "fee.charged" and event["reason"] == "processing"]
        assert len(fees) == (captured > 0)
        assert total(sent, "refund.succeeded") <= captured
        assert total(sent, "dispute.opened") <= captured
        assert total(sent, "dispute.won") + total(sent, "dispute.lost") == total(sent, "dispute.opened")
        assert captured <= total(sent, "payment.authorized")


def test_stories_end_and_disputes_come_late_but_not_later(story: Story) -> None:
    last = np.max([np.where(step < NEVER, step, 0) for step in story.steps()], axis=0)
    assert (last - story.created < LONGEST_STORY).all()
    disputed = story.disputed < NEVER
    delay = (story.disputed - story.captured)[disputed]
    assert delay.max() <= LATEST_DISPUTE
    assert delay.max() > 60 * DAY


def test_fraud_of_every_kind_happens_and_scores_higher(story: Story) -> None:
    for kind in (fraud.STOLEN_CARD, fraud.CARD_TESTING, fraud.SKIMMED_CARD, fraud.RING):
        scores = story.score[story.kind == kind]
        assert len(scores) >= 20
        assert scores.mean() > story.score[story.kind == fraud.LEGITIMATE].mean() + 0.2
    assert ((story.score >= 0) & (story.score <= 1)).all()


def test_card_testing_comes_in_bursts_of_small_amounts_from_one_device(story: Story) -> None:
    testing = story.take(np.flatnonzero(story.kind == fraud.CARD_TESTING))
    stretches = testing.number // fraud.STRETCH
    first = stretches[0]
    burst = testing.take(np.flatnonzero(stretches == first))
    assert len(burst.number) >= 10
    assert len(np.unique(burst.device)) == 1
    assert len(np.unique(burst.merchant)) == 1
    assert len(np.unique(burst.customer)) > 5


def test_rings_share_a_device(story: Story) -> None:
    ring = story.take(np.flatnonzero(story.kind == fraud.RING))
    users: defaultdict[int, set[int]] = defaultdict(set)
    for device, customer in zip(ring.device.tolist(), ring.customer.tolist(), strict=True):
        users[device].add(customer)
    assert max(len(customers) for customers in users.values()) >= 3


def test_skimmed_cards_were_used_at_the_compromised_terminal_before(story: Story) -> None:
    skimmed = story.take(np.flatnonzero(story.kind == fraud.SKIMMED_CARD))
    for customer, number in list(zip(skimmed.customer.tolist(), skimmed.number.tolist(), strict=True))[:10]:
        earlier = (story.customer == customer) & (story.number < number)
        assert earlier.any()


def test_fraud_drifts_towards_what_the_engine_does_not_see(story: Story) -> None:
    stolen = story.kind == fraud.STOLEN_CARD
    day = (story.created - WORLD.start_ms) // DAY
    early = story.score[stolen & (day < 30)].mean()
    late = story.score[stolen & (day > 90)].mean()
    assert late < early - 0.1


def test_every_movement_reaches_exactly_one_successful_payout(story: Story) -> None:
    book = PayoutBook(WORLD)
    messages = []
    expected: defaultdict[str, Decimal] = defaultdict(Decimal)
    for day in range(0, 420, 10):
        since, until = WORLD.moment(day), WORLD.moment(day + 10)
        book.add(story, since, until)
        messages += book.due(since, until)
    sign = {"payment.captured": 1, "dispute.won": 1, "refund.succeeded": -1, "dispute.opened": -1, "fee.charged": -1}
    for sent in by_transaction(payment_events(WORLD, story, 0, WORLD.moment(420)).messages()).values():
        for event in sent:
            attributes = event["attributes"]
            name = next(
                (attributes[key] for key in ("movement_id", "capture_id", "refund_id", "fee_id") if key in attributes),
                None,
            )
            if name is not None and event["event_type"] in sign:
                expected[name] += sign[event["event_type"]] * Decimal(event["amount"])
    outcome: dict[str, str] = {}
    payouts: dict[str, Event] = {}
    for key, value, _ in messages:
        event = orjson.loads(value)
        assert key == event["attributes"]["payout_id"]
        assert len(value) < MAX_MESSAGE_BYTES
        outcome[key] = event["event_type"]
        payouts[key] = event
    paid: set[str] = set()
    for key, event in payouts.items():
        movements = event["attributes"]["movement_ids"]
        assert len(movements) <= MAX_MOVEMENTS
        assert sum(expected[name] for name in movements) == Decimal(event["amount"])
        if outcome[key] == "payout.paid":
            assert not paid & set(movements)
            paid |= set(movements)
    assert paid == set(expected)
    assert "payout.failed" in outcome.values()


def test_the_payout_book_may_be_opened_late(story: Story) -> None:
    """An advance starts with the movements of the last weeks only, and must pay the same."""
    since, until = WORLD.moment(50), WORLD.moment(64)
    whole = PayoutBook(WORLD)
    whole.add(story, WORLD.start_ms, since)
    whole.due(0, since)
    whole.add(story, since, until)
    late = PayoutBook(WORLD)
    late.add(story, since - 11 * DAY, since)
    late.add(story, since, until)
    assert whole.due(since, until) == late.due(since, until)
