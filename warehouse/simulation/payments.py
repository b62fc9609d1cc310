"""The story of a payment: what is bought by whom, and everything that happens to it, with times.

One story, told three ways: the row in PostgreSQL or the document in MongoDB is the story as of a moment, and the
events are its steps. A step that does not happen has the time NEVER.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from warehouse.simulation import fraud
from warehouse.simulation.catalogue import (
    cities,
    currency_codes,
    currency_exponents,
    minor_units,
    units_per_euro,
)
from warehouse.simulation.draws import Booleans, Draws, Floats, Integers
from warehouse.simulation.people import (
    DISTRICTS,
    devices_of,
    home_city,
    homes,
    is_card,
    methods_of,
)
from warehouse.simulation.reality import (
    DAY,
    EARLY_CUSTOMERS_A_DAY,
    HOUR,
    LATE_COMMIT_EVERY,
    LATE_COMMIT_WINDOW,
    LATEST_DISPUTE,
    LONGEST_DECISION,
    MINUTE,
    SECOND,
)
from warehouse.simulation.shops import (
    captures_nightly,
    merchant_city,
    product_currency,
    products_of,
    unit_prices,
)
from warehouse.simulation.text import (
    Strings,
    customer_ids,
    entity_ids,
    join,
    merchant_ids,
    numeric,
    padded,
    pick,
    timestamps,
)
from warehouse.simulation.world import FIRST_NUMBER, NEVER, World

MONGODB_SHARE = 0.4
MAX_ATTEMPTS = 3

STATUSES = [
    "requires_action",
    "authorized",
    "captured",
    "failed",
    "blocked",
    "canceled",
    "refunded",
    "partially_refunded",
    "disputed",
    "charged_back",
]
_STATUS = {code: index for index, code in enumerate(STATUSES)}
DOCUMENT_STATUSES = ["approved", "review", "fraudulent"]

NO_3DS, AUTHENTICATED, NOT_AUTHENTICATED, EXEMPTED = range(4)

_FEE_PER_MILLE = 14
_FEE_FIXED_EUR = 0.25
_DISPUTE_FEE_EUR = 15.0
_NIGHTLY_CAPTURE = 22 * HOUR


@dataclass(frozen=True)
class Story:
    """Payments by column, shape (n,). Times are ms since 1970 or NEVER; amounts are minor units of `currency`."""

    number: Integers
    is_document: Booleans
    created: Integers
    customer: Integers
    merchant: Integers
    product: Integers
    quantity: Integers
    method: Integers
    device: Integers
    location: Integers
    currency: Integers
    exponent: Integers
    amount: Integers
    tax: Integers
    fee: Integers
    dispute_fee: Integers
    kind: Integers
    score: Floats
    rule: Integers
    three_ds: Integers
    dispute_by_fraud: Booleans
    decline_reason: Integers

    attempted: list[Integers]
    """By attempt, MAX_ATTEMPTS of them; likewise `authenticated` and `declined`."""
    authenticated: list[Integers]
    declined: list[Integers]
    authorized: Integers
    blocked: Integers
    captured: Integers
    canceled: Integers
    refund_failed: Integers
    refunds: list[Integers]
    """Times of up to two refunds."""
    refund_amounts: list[Integers]
    inquired: Integers
    reported: Integers
    disputed: Integers
    evidence: Integers
    won: Integers
    lost: Integers

    @property
    def ids(self) -> Strings:
        """`TXN00010001` in PostgreSQL, `TX00010001` in MongoDB."""
        return join(pick(["TXN", "TX"], self.is_document.astype(np.int64)), padded(self.number + FIRST_NUMBER, 8))

    @property
    def is_reviewed(self) -> Booleans:
        """Whether a person decides: only in MongoDB, for scores between the two thresholds."""
        reviewed: Booleans = self.is_document & (self.score >= fraud.REVIEW_SCORE) & (self.score < fraud.BLOCK_SCORE)
        return reviewed

    def take(self, indices: Integers) -> Story:
        """Only these payments."""
        if len(indices) == len(self.number):
            return self
        columns: dict[str, Any] = {
            field.name: [column[indices] for column in value] if isinstance(value, list) else value[indices]
            for field in fields(self)
            for value in (getattr(self, field.name),)
        }
        return Story(**columns)

    def steps(self) -> list[Integers]:
        """The times of everything that can happen."""
        return [
            *self.attempted,
            *self.authenticated,
            *self.declined,
            self.authorized,
            self.blocked,
            self.captured,
            self.canceled,
            self.refund_failed,
            *self.refunds,
            self.inquired,
            self.reported,
            self.disputed,
            self.evidence,
            self.won,
            self.lost,
        ]

    def state(self, moment: int) -> tuple[Integers, Integers]:
        """Status (index into STATUSES) before `moment` and when it was reached."""
        status = np.full(len(self.number), _STATUS["requires_action"])
        since = self.created.copy()
        last_decline = np.where(
            (self.authorized == NEVER) & (self.blocked == NEVER),
            np.max([np.where(t == NEVER, -1, t) for t in self.declined], axis=0),
            -1,
        )
        partly = (self.refund_amounts[0] < self.amount).astype(np.int64)
        first_refund = np.where(partly, _STATUS["partially_refunded"], _STATUS["refunded"])
        for time, code in (
            (np.where(last_decline < 0, NEVER, last_decline), _STATUS["failed"]),
            (self.authorized, _STATUS["authorized"]),
            (self.blocked, _STATUS["blocked"]),
            (self.captured, _STATUS["captured"]),
            (self.canceled, _STATUS["canceled"]),
            (self.refunds[0], first_refund),
            (self.refunds[1], _STATUS["partially_refunded"]),
            (self.disputed, _STATUS["disputed"]),
            (self.won, _STATUS["captured"]),
            (self.lost, _STATUS["charged_back"]),
        ):
            reached = (time < moment) & (time >= since)
            status = np.where(reached, code, status)
            since = np.where(reached, time, since)
        return status, since

    def document_state(self, moment: int) -> tuple[Integers, Integers]:
        """Status (index into DOCUMENT_STATUSES) before `moment` and when it was reached."""
        blocked, captured = self.blocked < moment, self.captured < moment
        status = np.where(blocked, 2, np.where(captured, 0, 1))
        reached = np.where(blocked, self.blocked, np.where(captured, self.captured, self.authorized))
        return status, np.where(reached < moment, reached, self.created)

    def is_committed(self, moment: int) -> Booleans:
        """Whether the database shows the payment at `moment`: the last minutes' commits may come late."""
        late = (self.created >= moment - LATE_COMMIT_WINDOW) & (self.number % LATE_COMMIT_EVERY == 0)
        committed: Booleans = (self.created < moment) & ~(late & ~self.is_document)
        return committed


class _StepsAfterCapture(TypedDict):
    """What `_afterwards` decides, by the names that `Story` has for it."""

    refund_failed: Integers
    refunds: list[Integers]
    refund_amounts: list[Integers]
    inquired: Integers
    reported: Integers
    disputed: Integers
    evidence: Integers
    won: Integers
    lost: Integers
    dispute_by_fraud: Booleans


class _Steps(_StepsAfterCapture):
    """What `_happen` decides, likewise."""

    attempted: list[Integers]
    authenticated: list[Integers]
    declined: list[Integers]
    authorized: Integers
    blocked: Integers
    captured: Integers
    canceled: Integers


def tell(world: World, numbers: Integers) -> Story:
    """The whole story of these payments, including what lies in the future."""
    draws = world.draws("payment", numbers)
    day, created = world.payment_times(numbers)
    is_document = draws.below("document", MONGODB_SHARE)
    choice = _choose(world, draws, numbers, day, created, is_document)
    customer, merchant = choice.customer, choice.merchant
    slot = np.minimum(draws.between("product", 0, 8), 5)
    product = products_of(world, merchant, created, slot)
    method = methods_of(world, customer, created, draws.below("second method", 0.3))
    location = homes(world, customer).at(created)
    far = draws.weighted("far city", cities().weight) * DISTRICTS + draws.between("far district", 0, DISTRICTS)
    location = np.where(choice.away, far, location)

    currency, exponent, quantity, amount, tax = _price(world, draws, choice, product, created)
    score = fraud.scores(world, numbers, choice.kind, choice.drift)
    three_ds = _three_ds(world, draws, customer, method)
    times = _happen(world, draws, choice, created, is_document, score, three_ds, amount)
    return Story(
        number=numbers,
        is_document=is_document,
        created=created,
        customer=customer,
        merchant=merchant,
        product=product,
        quantity=quantity,
        method=method,
        device=choice.device,
        location=location,
        currency=currency,
        exponent=exponent,
        amount=amount,
        tax=tax,
        fee=np.minimum(
            (amount * _FEE_PER_MILLE + 500) // 1000 + minor_units(np.full(len(numbers), _FEE_FIXED_EUR), currency),
            amount,
        ),
        dispute_fee=minor_units(np.full(len(numbers), _DISPUTE_FEE_EUR), currency),
        kind=choice.kind,
        score=score,
        rule=fraud.main_rule(world, numbers, choice.kind),
        three_ds=three_ds,
        decline_reason=draws.weighted("decline reason", np.array([50.0, 25.0, 15.0, 10.0])),
        **times,
    )


def _choose(
    world: World, draws: Draws, numbers: Integers, day: Integers, created: Integers, is_document: Booleans
) -> fraud.Choice:
    """Ordinary choices, a few buyers and shops much more often than the rest, then the fraud patterns."""
    midnight = world.start_ms + day * DAY
    known = world.customers.counts(midnight)
    customer = np.floor(known * draws.uniform("customer") ** 1.6).astype(np.int64)
    left_today = world.first_payments(int(day.max(initial=0)) + 1)[day + 1] - numbers
    early = is_document & (left_today <= EARLY_CUSTOMERS_A_DAY)
    customer = np.where(early, world.customers.counts(midnight + DAY), customer)
    merchant = np.floor(world.merchants.counts(midnight) * draws.uniform("merchant") ** 2.2).astype(np.int64)
    choice = fraud.Choice(
        kind=np.zeros(len(numbers), dtype=np.int64),
        customer=customer,
        merchant=merchant,
        device=devices_of(world, customer, created, draws.below("second device", 0.3)),
        away=draws.below("travels", 0.03),
        amount_factor=np.ones(len(numbers)),
        drift=np.zeros(len(numbers)),
    )
    fraud.bend(world, numbers, day, choice)
    return choice


def _price(
    world: World, draws: Draws, choice: fraud.Choice, product: Integers, created: Integers
) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """Currency, decimals, quantity, amount and the tax within it."""
    own = product_currency(world, product)
    foreign = draws.below("presentment", 0.06)
    currency = np.where(foreign, cities().currency[home_city(world, choice.customer)], own)
    exponents = currency_exponents()
    price = unit_prices(world, product, created)
    rate = units_per_euro()
    converted = np.rint(price * (rate[currency] / rate[own]) * 10.0 ** (exponents[currency] - exponents[own])).astype(
        np.int64
    )
    price = np.where(currency == own, price, np.maximum(converted, 1))
    quantity = 1 + draws.weighted("quantity", np.array([70.0, 15.0, 6.0, 4.0, 3.0, 2.0]))
    quantity = np.maximum(np.rint(quantity * choice.amount_factor).astype(np.int64), 1)
    testing = choice.kind == fraud.CARD_TESTING
    quantity = np.where(testing, 1, quantity)
    amount = price * quantity
    discounted = np.maximum((amount * 9 + 5) // 10, 1)
    amount = np.where(draws.below("discount", 0.1), discounted, amount)
    tiny = minor_units(0.5 + draws.uniform("tested amount"), currency)
    amount = np.where(testing, tiny, amount)
    percent = cities().tax_percent[merchant_city(world, choice.merchant)]
    tax = (2 * amount * percent + (100 + percent)) // (2 * (100 + percent))
    return currency, exponents[currency], quantity, amount, tax


def _three_ds(world: World, draws: Draws, customer: Integers, method: Integers) -> Integers:
    """Strong customer authentication: the rule for cards issued in the EEA and the UK, the exception elsewhere."""
    city = home_city(world, customer)
    regulated = cities().is_eea[city] | (np.array(cities().country)[city] == "GB")
    outcome = np.where(
        draws.below("exempt", 0.25),
        EXEMPTED,
        np.where(draws.below("not authenticated", 0.03), NOT_AUTHENTICATED, AUTHENTICATED),
    )
    asked = draws.below("3ds", np.where(regulated, 0.85, 0.08)) & is_card(world, method)
    return np.where(asked, outcome, NO_3DS)


def _happen(
    world: World,
    draws: Draws,
    choice: fraud.Choice,
    created: Integers,
    is_document: Booleans,
    score: Floats,
    three_ds: Integers,
    amount: Integers,
) -> _Steps:
    """Every step with its time."""
    blocked_at_once = (score >= fraud.BLOCK_SCORE) & (is_document | (choice.kind != fraud.LEGITIMATE))
    in_review = is_document & ~blocked_at_once & (score >= fraud.REVIEW_SCORE)
    abandoned = ~is_document & ~blocked_at_once & (three_ds == AUTHENTICATED) & draws.below("abandoned", 0.02)

    # Attempts: the issuer declines some; customers try again, some in vain.
    declines = draws.weighted("declines", np.array([90.0, 7.0, 2.2, 0.8]))
    testing = choice.kind == fraud.CARD_TESTING
    declines = np.where(testing & draws.below("tested in vain", 0.8), 1, declines)
    gives_up = (declines == MAX_ATTEMPTS) | draws.below("gives up", np.where(testing, 1.0, 0.45))
    fails = (declines > 0) & gives_up & ~is_document
    declines = np.where(is_document, np.minimum(declines, MAX_ATTEMPTS - 1), declines)
    declines = np.where(blocked_at_once | abandoned, 0, declines)
    fails &= declines > 0
    attempts = declines + ~fails

    attempted: list[Integers] = []
    authenticated: list[Integers] = []
    declined: list[Integers] = []
    answered = created
    start = created
    for attempt in range(MAX_ATTEMPTS):
        exists = attempt < attempts
        asks = exists & (three_ds != NO_3DS) & ~blocked_at_once & ~abandoned
        proof = start + draws.between(f"proof {attempt}", 3 * SECOND, 50 * SECOND)
        answer = np.where(asks, proof, start) + draws.between(f"answer {attempt}", 300, 4 * SECOND)
        attempted.append(np.where(exists, start, NEVER))
        authenticated.append(np.where(asks, proof, NEVER))
        declined.append(np.where(attempt < declines, answer, NEVER))
        answered = np.where(exists, answer, answered)
        start = answer + draws.between(f"again {attempt}", 20 * SECOND, 6 * MINUTE)

    authorized = np.where(blocked_at_once | fails | abandoned, NEVER, answered)
    reviewed = answered + draws.between("review takes", 10 * MINUTE, 48 * HOUR)
    found_guilty = in_review & draws.below("found guilty", np.where(choice.kind != fraud.LEGITIMATE, 0.8, 0.1))
    blocked = np.where(blocked_at_once, created + 400, np.where(found_guilty, reviewed, NEVER))
    ready = np.where(in_review, reviewed, answered)
    voided = (authorized < NEVER) & ~is_document & draws.below("voided", 0.015)
    canceled = np.where(
        abandoned, created + DAY, np.where(voided, answered + draws.between("void", HOUR, 72 * HOUR), NEVER)
    )
    captured = np.where(
        (authorized < NEVER) & ~found_guilty & ~voided, _capture_times(world, draws, choice, ready), NEVER
    )
    after = _afterwards(draws, choice, captured, amount)
    return {
        "attempted": attempted,
        "authenticated": authenticated,
        "declined": declined,
        "authorized": authorized,
        "blocked": blocked,
        "captured": captured,
        "canceled": canceled,
        **after,
    }


def _capture_times(world: World, draws: Draws, choice: fraud.Choice, ready: Integers) -> Integers:
    """At once, with the shop's nightly run, or when the parcel leaves."""
    at_once = ready + draws.between("capture", 500, 5 * MINUTE)
    shipped = ready + draws.between("shipping", 12 * HOUR, 6 * DAY)
    due = np.where(draws.below("ships", 0.1), shipped, at_once)
    night = due - due % DAY + _NIGHTLY_CAPTURE
    night = np.where(night < due, night + DAY, night)
    return np.where(captures_nightly(world, choice.merchant), night, due)


def _afterwards(draws: Draws, choice: fraud.Choice, captured: Integers, amount: Integers) -> _StepsAfterCapture:
    """Refunds or a dispute, never both: what goes back stays within what was captured."""
    is_fraud = choice.kind != fraud.LEGITIMATE

    def later(name: str, since: Integers, low: int, high: int, happens: Booleans) -> Integers:
        happens = happens & (since < NEVER)
        return np.where(happens, np.where(happens, since, 0) + draws.between(name, low, high), NEVER)

    reported = later("report", captured, 2 * DAY, 30 * DAY, is_fraud & draws.below("reported", 0.75))
    # The cardholder notices after weeks rather than months: the power leans to the early end, up to 120 days.
    disputes = np.where(is_fraud, draws.below("fraud dispute", 0.65), draws.below("dispute", 0.006))
    patience = (draws.uniform("patience") ** 2.5 * (LATEST_DISPUTE - 3 * DAY)).astype(np.int64)
    disputed = np.where(
        disputes & (captured < NEVER), np.where(captured < NEVER, captured, 0) + 3 * DAY + patience, NEVER
    )
    inquiry_only = ~disputes & draws.below("inquiry only", 0.002)
    inquired = np.where(
        disputes & ~is_fraud & draws.below("inquiry", 0.4) & (disputed < NEVER),
        disputed - 2 * DAY,
        later("inquiry", captured, 3 * DAY, 40 * DAY, inquiry_only),
    )
    evidence = later("evidence", disputed, DAY, 7 * DAY, draws.below("contests", 0.6))
    decided = later("decision", disputed, 8 * DAY, LONGEST_DECISION, np.ones(len(amount), dtype=np.bool_))
    wins = (evidence < NEVER) & draws.below("wins", np.where(is_fraud, 0.2, 0.5))

    refunds = ~disputes & ~is_fraud & draws.below("refund", 0.05)
    partial = refunds & draws.below("partial", 0.35) & (amount >= 10)
    failed = later("refund fails", captured, 10 * MINUTE, 20 * DAY, refunds & draws.below("refund fails", 0.04))
    first = later("refund", captured, HOUR, 30 * DAY, refunds)
    first = np.where(failed < NEVER, np.maximum(first, failed + DAY), first)
    second = later("second refund", first, DAY, 20 * DAY, partial & draws.below("second refund", 0.2))
    half = np.maximum(amount * draws.between("part", 10, 50) // 100, 1)
    return {
        "refund_failed": failed,
        "refunds": [first, second],
        "refund_amounts": [np.where(partial, half, amount), np.maximum(amount // 5, 1)],
        "inquired": inquired,
        "reported": reported,
        "disputed": disputed,
        "evidence": evidence,
        "won": np.where(wins, decided, NEVER),
        "lost": np.where(wins, NEVER, decided),
        "dispute_by_fraud": is_fraud,
    }


def transaction_rows(story: Story, moment: int) -> pa.Table:
    """The rows of PostgreSQL as of `moment`; payments that live in MongoDB must be left out before."""
    status, updated = story.state(moment)
    return pa.table(
        {
            "transaction_id": story.ids,
            "merchant_id": merchant_ids(story.merchant),
            "customer_id": customer_ids(story.customer),
            "payment_method_id": entity_ids("PM", story.method),
            "product_id": entity_ids("PRODUCT", story.product),
            "quantity": story.quantity,
            "device_id": entity_ids("DEV", story.device),
            "location_id": entity_ids("LOC", story.location),
            "currency_code": pick(currency_codes(), story.currency),
            "amount": numeric(story.amount, story.exponent),
            "tax": numeric(story.tax, story.exponent),
            "status_code": pick(STATUSES, status),
            "created_at": timestamps(story.created),
            "updated_at": timestamps(updated),
        }
    )
