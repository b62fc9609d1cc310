"""The documents of `stripe_nosql` that follow from payments and people."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pycountry
from bson import Decimal128

from warehouse.simulation import fraud
from warehouse.simulation.bson_values import object_ids, utc, utc_list
from warehouse.simulation.catalogue import cities, currency_codes, units_per_euro
from warehouse.simulation.draws import Booleans, Draws, Integers
from warehouse.simulation.payments import DOCUMENT_STATUSES, Story
from warehouse.simulation.people import (
    DISTRICTS,
    card_numbers,
    emails,
    home_city,
    ip_addresses,
    phones,
)
from warehouse.simulation.reality import (
    AMOUNT_DECIMAL_SHARE,
    AMOUNT_INTEGER_SHARE,
    AMOUNT_TEXT_EVERY,
    CVV_EVERY,
    DAY,
    DUPLICATE_DOCUMENT_EVERY,
    EMOJI_SHARE,
    FEEDBACK_ABSENCE,
    FEEDBACK_LIFETIME,
    FEEDBACK_WITHDRAWN_EVERY,
    HUGE_COMMENT_BYTES,
    LOG_CVV_EVERY,
    MINUTE,
    NUL_EVERY,
    PERSONAL_TEXT_SHARE,
    SECOND,
)
from warehouse.simulation.text import amounts, customer_ids, entity_ids, merchant_ids, padded
from warehouse.simulation.world import World

Documents = list[dict[str, Any]]

FEEDBACK_SHARE = 0.05
FEEDBACK_COPIES = ("feedback", "feedback again")
"""Kinds of `_id`: the document, and the copy that a retrying client left of some."""
ERROR_SHARE = 0.02
MAX_INTERACTIONS = 500_000
"""Per company and fill; below it every payment has one interaction."""
FEATURE_EVERY = 10
"""One customer in so many has documents in `machine_learning_features`."""

_COMMENTS = [
    ("en", "Fast delivery, thank you."),
    ("en", "The parcel arrived damaged and nobody answers."),
    ("en", "Works as described."),
    ("en", "I was charged but the order is not in my account."),
    ("de", "Sehr zufrieden, gerne wieder."),
    ("de", "Lieferung kam eine Woche zu spät."),
    ("fr", "Très bon rapport qualité-prix."),
    ("fr", "Le remboursement n'est toujours pas arrivé."),
    ("es", "Todo perfecto, muchas gracias."),
    ("ja", "とても良い商品でした。"),
    ("pt", "Produto excelente, recomendo."),
    ("it", "Taglia sbagliata, reso semplice."),
]
_EMOJI = ["👍", "🎉", "😡", "❤️", "👩🏽‍💻", "🇫🇷"]
_CHANNELS = ["email", "chat", "web", "app", "phone"]
_SERVICES = ["checkout", "payouts", "risk", "ledger", "notifications"]
_LEVELS = ["ERROR", "WARNING", "CRITICAL"]
_INTERACTIONS = ["view", "add_to_cart", "checkout", "purchase", "search"]


def country_documents(exclude: set[str]) -> Documents:
    """ISO 3166-1 countries with their ISO 3166-2 subdivisions, but for those in `exclude` (alpha-2)."""
    regions: dict[str, Documents] = {}
    for region in pycountry.subdivisions:
        regions.setdefault(region.country_code, []).append({"code": region.code, "name": region.name})
    countries = sorted(
        (country for country in pycountry.countries if country.alpha_2 not in exclude), key=lambda c: str(c.alpha_2)
    )
    numbers = np.array([int(country.numeric) for country in countries])
    ids = object_ids(np.zeros_like(numbers), "country", numbers)
    return [
        {
            "_id": identifier,
            "country": getattr(country, "common_name", country.name),
            "alpha2": country.alpha_2,
            "alpha3": country.alpha_3,
            "numeric": country.numeric,
            "regions": sorted(regions.get(country.alpha_2, []), key=lambda region: str(region["code"])),
        }
        for identifier, country in zip(ids, countries, strict=True)
    ]


# --- payments -------------------------------------------------------------------------------------------------------


def transaction_documents(world: World, story: Story, moment: int) -> Documents:
    """The documents of `Transactions` as of `moment`; payments that live in PostgreSQL must be left out before."""
    if not len(story.number):
        return []
    draws = world.draws("document", story.number)
    status, updated = story.document_state(moment)
    city = story.location // DISTRICTS
    table = cities()
    zone = home_city(world, story.customer)
    latitude = np.round(table.latitude[city] + draws.uniform("lat") * 0.1, 5).tolist()
    longitude = np.round(table.longitude[city] + draws.uniform("lon") * 0.1, 5).tolist()
    addresses = ip_addresses(draws.between("ip", 0, 2**17)).to_pylist()
    euro = units_per_euro()
    to_usd = np.round(euro[currency_codes().index("USD")] / euro, 6)[story.currency].tolist()
    rule = [fraud.RULES[index] for index in story.rule.tolist()]
    extra = draws.between("extra rule", 0, len(fraud.RULES)).tolist()
    carries_cvv = (story.number % CVV_EVERY == 300).tolist()
    documents: Documents = []
    for index, (
        identifier, transaction, customer, merchant, created, changed, amount, code, score, state,
    ) in enumerate(
        zip(
            object_ids(story.created, "transaction", story.number),
            story.ids.to_pylist(),
            customer_ids(story.customer, "CUST").to_pylist(),
            merchant_ids(story.merchant, "MERCH").to_pylist(),
            utc_list(story.created),
            utc_list(updated),
            _mixed_amounts(world, story),
            story.currency.tolist(),
            story.score.tolist(),
            status.tolist(),
            strict=True,
        )
    ):  # fmt: skip
        place = city[index]
        document = {
            "_id": identifier,
            "transaction_id": transaction,
            "customer_id": customer,
            "merchant_id": merchant,
            "date": {"created": created, "updated": changed, "timezone": table.time_zone[zone[index]]},
            "amount": amount,
            "currency": {"code": currency_codes()[code], "rate_to_usd": to_usd[index]},
            "fraud_score": score,
            "status": DOCUMENT_STATUSES[state],
            "signals": _signals(score, rule[index], fraud.RULES[extra[index]]),
            "location": {
                "country": table.country[place],
                "city": table.name[place],
                "geo": {"lat": latitude[index], "lon": longitude[index]},
                "ip": addresses[index],
            },
        }
        if carries_cvv[index]:
            document["cvv"] = "737"
        documents.append(document)
    return documents


def _signals(score: float, main: str, other: str) -> Documents:
    if score < 0.2:
        return []
    signals = [{"rule": main, "weight": round(score * 0.6, 3)}]
    if score >= fraud.REVIEW_SCORE and other != main:
        signals.append({"rule": other, "weight": round(score * 0.4, 3)})
    return signals


def _mixed_amounts(world: World, story: Story) -> list[float | int | str | Decimal128]:
    """One field, four types, as several generations of clients wrote them."""
    draws = world.draws("document", story.number)
    texts = amounts(story.amount, story.exponent).to_pylist()
    is_whole = story.amount % 10**story.exponent == 0
    as_text = story.number % AMOUNT_TEXT_EVERY == 500
    as_integer = is_whole & draws.below("integer", AMOUNT_INTEGER_SHARE)
    as_decimal = draws.below("decimal", AMOUNT_DECIMAL_SHARE)
    form = np.select([as_text, as_integer, as_decimal], [3, 2, 1], 0).tolist()
    return [
        float(text) if kind == 0 else Decimal128(text) if kind == 1 else int(float(text)) if kind == 2 else text
        for text, kind in zip(texts, form, strict=True)
    ]


# --- feedback -------------------------------------------------------------------------------------------------------


def feedback_times(world: World, story: Story) -> tuple[Integers, Booleans]:
    """When feedback on each payment is written, and whether it is."""
    draws = world.draws("feedback", story.number)
    return story.created + draws.between("after", DAY, 20 * DAY), draws.below("written", FEEDBACK_SHARE)


def feedback_present(story: Story, written: Integers, moment: int) -> tuple[Booleans, Integers]:
    """Which feedback is there at `moment`, and when each one was last inserted."""
    withdrawn = story.number % FEEDBACK_WITHDRAWN_EVERY == 0
    comes_back = withdrawn & (story.number % (2 * FEEDBACK_WITHDRAWN_EVERY) == 0)
    gone = written + FEEDBACK_LIFETIME
    back = gone + FEEDBACK_ABSENCE
    returned = comes_back & (back < moment)
    present = (written < moment) & (~(withdrawn & (gone < moment)) | returned)
    return present, np.where(returned, back, written)


def feedback_deleted(story: Story, written: Integers, since: int, until: int) -> Booleans:
    """Which feedback was deleted within [since, until)."""
    gone = written + FEEDBACK_LIFETIME
    return np.asarray((story.number % FEEDBACK_WITHDRAWN_EVERY == 0) & (gone >= since) & (gone < until))


def feedback_documents(world: World, story: Story, written: Integers, inserted: Integers) -> Documents:
    """One comment per payment given; free text, with all that people write into it."""
    if not len(story.number):
        return []
    draws = world.draws("feedback", story.number)
    comment = draws.between("comment", 0, len(_COMMENTS)).tolist()
    emoji = draws.between("emoji", 0, len(_EMOJI)).tolist()
    with_emoji = draws.below("with emoji", EMOJI_SHARE).tolist()
    personal = np.where(draws.below("personal", PERSONAL_TEXT_SHARE), draws.between("personal kind", 1, 4), 0).tolist()
    mail = emails(world, story.customer).to_pylist()
    phone = phones(world, story.customer, home_city(world, story.customer)).to_pylist()
    card = card_numbers(world, story.method).to_pylist()
    with_nul = (draws.between("nul", 0, NUL_EVERY) == 0).tolist()
    rating = (1 + draws.weighted("rating", np.array([10.0, 7, 13, 30, 40]))).tolist()
    channel = draws.between("channel", 0, len(_CHANNELS)).tolist()
    huge = huge_comment_number(world)
    documents: Documents = []
    for index, (identifier, transaction, customer, merchant, number, at) in enumerate(
        zip(
            object_ids(written, FEEDBACK_COPIES[0], story.number),
            story.ids.to_pylist(),
            customer_ids(story.customer, "CUST").to_pylist(),
            merchant_ids(story.merchant, "MERCH").to_pylist(),
            story.number.tolist(),
            utc_list(inserted),
            strict=True,
        )
    ):
        language, text = _COMMENTS[comment[index]]
        if with_emoji[index]:
            text = f"{text} {_EMOJI[emoji[index]]}"
        if personal[index] == 1:
            text = f"{text} {mail[index]}"
        elif personal[index] == 2:
            text = f"{text} Card {_spaced(card[index])}"
        elif personal[index] == 3:
            text = f"{text} {phone[index]}"
        if with_nul[index]:
            text = f"{text}\x00(sent from an old phone)"
        if number == huge:
            text = (text + " ") * (HUGE_COMMENT_BYTES // len(text.encode()))
        documents.append(
            {
                "_id": identifier,
                "customer_id": customer,
                "merchant_id": merchant,
                "transaction_id": transaction,
                "rating": rating[index],
                "comment": text,
                "language": language,
                "channel": _CHANNELS[channel[index]],
                "created_at": at,
            }
        )
    return documents + _stored_twice(documents, FEEDBACK_COPIES[1], story.number, written)


@lru_cache(maxsize=8)
def huge_comment_number(world: World) -> int:
    """The payment whose feedback is a megabyte long: the first that has any."""
    numbers = np.arange(min(world.transactions, 4_096))
    with_feedback = numbers[world.draws("feedback", numbers).below("written", FEEDBACK_SHARE)]
    return int(with_feedback[0]) if len(with_feedback) else -1


# --- logs, interactions, features ----------------------------------------------------------------------------------


def error_documents(world: World, story: Story) -> Documents:
    """What went wrong around these payments, within their day."""
    draws = world.draws("error", story.number)
    happened = story.created + draws.between("after", 100, 30 * SECOND)
    happened = np.minimum(happened, story.created // DAY * DAY + DAY - 1)
    keep = np.flatnonzero(draws.below("happens", ERROR_SHARE))
    if not len(keep):
        return []
    kind = draws.between("kind", 0, 5)[keep].tolist()
    level = draws.weighted("level", np.array([60.0, 35, 5]))[keep].tolist()
    milliseconds = draws.between("latency", 800, 9_000)[keep].tolist()
    mail = emails(world, story.customer[keep]).to_pylist()
    card = card_numbers(world, story.method[keep]).to_pylist()
    carries_cvv = (draws.between("cvv", 0, LOG_CVV_EVERY)[keep] == 0).tolist()
    ids = story.ids.take(keep).to_pylist()
    documents: Documents = []
    for index, (identifier, transaction, at, number) in enumerate(
        zip(
            object_ids(happened[keep], "error", story.number[keep]),
            ids,
            utc_list(happened[keep]),
            story.number[keep].tolist(),
            strict=True,
        )
    ):
        context: dict[str, Any] = {"transaction_id": transaction, "request_id": f"req-{number:08d}"}
        if kind[index] == 0:
            message = (
                "Traceback (most recent call last):\n"
                '  File "checkout/pay.py", line 88, in authorize\n'
                "    raise IssuerTimeout(card)\n"
                f"IssuerTimeout: {card[index]} for {mail[index]}"
            )
        elif kind[index] == 1:
            message = f"receipt to {mail[index]} bounced"
        else:
            message = f"upstream answered after {milliseconds[index]} ms"
            context["latency_ms"] = milliseconds[index]
        if carries_cvv[index]:
            context["cvv"] = "737"
        documents.append(
            {
                "_id": identifier,
                "service": _SERVICES[kind[index]],
                "level": _LEVELS[level[index]],
                "message": message,
                "context": context,
                "occurred_at": at,
            }
        )
    return documents


def interaction_documents(world: World, story: Story) -> Documents:
    """What the buyer did in the shop just before paying."""
    step = max(1, -(-world.transactions // MAX_INTERACTIONS))
    keep = np.flatnonzero(story.number % step == 0)
    if not len(keep):
        return []
    draws = world.draws("interaction", story.number[keep])
    at = story.created[keep] - draws.between("before", 5 * SECOND, 20 * MINUTE)
    event = draws.weighted("event", np.array([45.0, 20, 12, 15, 8])).tolist()
    device = draws.between("device", 0, 4).tolist()
    kinds = [
        {"type": "mobile", "os": "iOS 17", "browser": "Safari"},
        {"type": "mobile", "os": "Android 14", "browser": "Chrome"},
        {"type": "desktop", "os": "Windows 11", "browser": "Edge"},
        {"type": "tablet", "os": "iPadOS 17", "browser": "Safari"},
    ]
    documents = [
        {
            "_id": identifier,
            "customer_id": customer,
            "session_id": f"S-{session}",
            "event": _INTERACTIONS[event[index]],
            "product_id": None if event[index] == 4 else product,
            "device": kinds[device[index]],
            "occurred_at": moment,
        }
        for index, (identifier, customer, session, product, moment) in enumerate(
            zip(
                object_ids(at, "interaction", story.number[keep]),
                customer_ids(story.customer[keep], "CUST").to_pylist(),
                padded(story.number[keep], 8).to_pylist(),
                entity_ids("PRODUCT", story.product[keep]).to_pylist(),
                utc_list(at),
                strict=True,
            )
        )
    ]
    return documents + _stored_twice(documents, "interaction again", story.number[keep], at)


def feature_documents(world: World, moment: int) -> Iterator[dict[str, Any]]:
    """What the feature job computed at `moment`, for its sample of customers."""
    customers = np.arange(0, world.customers.count(moment), FEATURE_EVERY)
    draws = world.draws("feature", customers * 10_000 + (moment - world.start_ms) // DAY)
    count = draws.between("count", 0, 30).tolist()
    average = np.round(5 + 200 * draws.uniform("average") ** 2, 2).tolist()
    shared = draws.between("devices", 1, 4).tolist()
    ids = object_ids(np.full(len(customers), moment), "feature", customers)
    names = customer_ids(customers, "CUST").to_pylist()
    for index, identifier in enumerate(ids):
        yield {
            "_id": identifier,
            "entity_type": "customer",
            "entity_id": names[index],
            "features": {
                "txn_count_30d": count[index],
                "avg_amount_30d": average[index],
                "distinct_devices_30d": shared[index],
            },
            "feature_set_version": "2024.1",
            "computed_at": utc(moment),
        }


def _stored_twice(documents: Documents, kind: str, numbers: Integers, moments: Integers) -> Documents:
    again = np.flatnonzero(Draws(0, kind, numbers).between("twice", 0, DUPLICATE_DOCUMENT_EVERY) == 0)
    ids = object_ids(moments[again], kind, numbers[again])
    return [{**documents[index], "_id": identifier} for index, identifier in zip(again.tolist(), ids, strict=True)]


def _spaced(card: str) -> str:
    return " ".join(card[start : start + 4] for start in range(0, len(card), 4))
