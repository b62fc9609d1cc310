"""Merchants and what they sell, for PostgreSQL and, as the onboarding team sees them, for MongoDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from warehouse.simulation.bson_values import object_ids, utc
from warehouse.simulation.catalogue import (
    cities,
    currency_codes,
    currency_exponents,
    goods,
    minor_units,
    names,
)
from warehouse.simulation.draws import Booleans, Integers
from warehouse.simulation.people import DISTRICTS, latest
from warehouse.simulation.reality import (
    DAY,
    HOUR,
    NIGHTLY_CAPTURE_SHARE,
    STALE_RATE_MERCHANT_EVERY,
)
from warehouse.simulation.text import entity_ids, join, merchant_ids, numeric, padded, pick, timestamps
from warehouse.simulation.world import HISTORY, NEVER, PRODUCTS_PER_MERCHANT, World

CORE_PRODUCTS = 4
"""Slots a merchant sells from its first day; the others are launched later."""

_LEGAL_FORMS = {
    "DE": "GmbH", "AT": "GmbH", "CH": "AG", "FR": "SARL", "BE": "SRL", "ES": "S.L.", "IT": "S.r.l.", "NL": "B.V.",
    "PT": "Lda.", "IE": "Ltd", "GB": "Ltd", "US": "Inc.", "CA": "Inc.", "JP": "K.K.", "KR": "Co., Ltd.", "SE": "AB",
    "NO": "AS", "DK": "A/S", "FI": "Oy", "PL": "Sp. z o.o.", "CZ": "s.r.o.", "HU": "Kft.", "BR": "Ltda.",
}  # fmt: skip
_STYLES = ["Bright", "North", "Urban", "Golden", "Little", "Silver", "Green", "Rapid", "Old Town", "Harbour"]
_KINDS = ["Trading", "Store", "Market", "Supply", "House", "Works", "Corner", "Goods"]


def merchant_city(world: World, merchants: Integers) -> Integers:
    """The city of each merchant, which decides its currency, tax and time zone."""
    return world.draws("merchant", merchants).weighted("city", cities().weight)


def captures_nightly(world: World, merchants: Integers) -> Booleans:
    """Whether a merchant captures once a night."""
    return world.draws("merchant", merchants).below("nightly capture", NIGHTLY_CAPTURE_SHARE)


def merchant_rows(world: World, merchants: Integers, moment: int) -> pa.Table:
    """Merchants as of `moment`. All of them must have joined by then."""
    draws = world.draws("merchant", merchants)
    joined = world.merchants.joined(merchants)
    city = merchant_city(world, merchants)
    district = draws.between("district", 0, DISTRICTS)
    tier = draws.weighted("risk tier", np.array([70.0, 23.0, 7.0]))
    reviewed = joined + draws.between("review", 20 * DAY, 2 * HISTORY)
    tier_after = np.where(draws.below("review finds", 0.4), np.minimum(tier + 1, 2), tier)
    rebranded = np.where(draws.below("rebrands", 0.15), joined + draws.between("rebrand", 30 * DAY, 3 * HISTORY), NEVER)
    forms = [_LEGAL_FORMS.get(country, "LLC") for country in cities().country]
    category = draws.between("category", 0, len(goods().category))
    return pa.table(
        {
            "merchant_id": merchant_ids(merchants),
            "legal_name": join(_name(world, merchants, "founding"), " ", pick(forms, city)),
            "trade_name": pa.array(_trade_names(world, merchants, rebranded < moment)),
            "mcc": pick(goods().mcc, category),
            "location_id": entity_ids("LOC", city * DISTRICTS + district),
            "settlement_currency": pick(currency_codes(), cities().currency[city]),
            "time_zone": pick(cities().time_zone, city),
            "pci_level": draws.weighted("pci level", np.array([3.0, 10.0, 27.0, 60.0])) + 1,
            "risk_tier": pick(["low", "medium", "high"], np.where(reviewed < moment, tier_after, tier)),
            "onboarded_at": timestamps(joined),
            "updated_at": timestamps(latest(moment, joined, reviewed, rebranded)),
        }
    )


def products_of(world: World, merchants: Integers, moments: Integers, slots: Integers) -> Integers:
    """The product sold from a slot (0..PRODUCTS_PER_MERCHANT - 1); a slot not launched yet falls back to slot 0."""
    number = merchants * PRODUCTS_PER_MERCHANT + slots
    return np.where(launched(world, number) < moments, number, merchants * PRODUCTS_PER_MERCHANT)


def launched(world: World, products: Integers) -> Integers:
    """When each product came on sale: with its merchant, or later."""
    slot = products % PRODUCTS_PER_MERCHANT
    later = world.draws("product", products).between("launch", DAY, 3 * HISTORY)
    joined = world.merchants.joined(products // PRODUCTS_PER_MERCHANT)
    return joined + np.where(slot < CORE_PRODUCTS, 0, later)


def product_currency(world: World, products: Integers) -> Integers:
    """The merchant's currency; some services in Chile are priced in CLF, a few catalogues hold a dead currency."""
    codes = currency_codes()
    merchant, slot = products // PRODUCTS_PER_MERCHANT, products % PRODUCTS_PER_MERCHANT
    own = cities().currency[merchant_city(world, merchant)]
    indexed = (own == codes.index("CLP")) & (slot == 1)
    stale = (merchant % STALE_RATE_MERCHANT_EVERY == 5) & (slot == 2)
    return np.where(indexed, codes.index("CLF"), np.where(stale, codes.index("RUB"), own))


def price_change(world: World, products: Integers) -> Integers:
    """When the price of each product changes, once."""
    return launched(world, products) + world.draws("product", products).between("price change", 5 * DAY, 3 * HISTORY)


def unit_prices(world: World, products: Integers, moments: Integers | int) -> Integers:
    """Price in minor units of the product's currency, as it stood at each moment."""
    draws = world.draws("product", products)
    category = _category(world, products)
    low, high = goods().low_eur[category], goods().high_eur[category]
    # Log-uniform leaning to the cheap end, as catalogues are.
    euros = low * (high / low) ** (draws.uniform("price") ** 1.6)
    later = euros * (0.85 + 0.4 * draws.uniform("new price"))
    return minor_units(
        np.where(price_change(world, products) < moments, later, euros), product_currency(world, products)
    )


def product_rows(world: World, merchants: Integers, moment: int) -> pa.Table:
    """The products these merchants have launched by `moment`."""
    number = _products(world, merchants, moment)
    draws = world.draws("product", number)
    start = launched(world, number)
    ends = np.where(draws.below("ends", 0.1), start + draws.between("end", 30 * DAY, 3 * HISTORY), NEVER)
    currency = product_currency(world, number)
    names_, category = _product_names(world, number)
    return pa.table(
        {
            "product_id": entity_ids("PRODUCT", number),
            "merchant_id": merchant_ids(number // PRODUCTS_PER_MERCHANT),
            "product_name": pa.array(names_),
            "category": pick(goods().category, category),
            "unit_price": numeric(unit_prices(world, number, moment), currency_exponents()[currency]),
            "currency_code": pick(currency_codes(), currency),
            "is_active": ends >= moment,
            "created_at": timestamps(start),
            "updated_at": timestamps(latest(moment, start, price_change(world, number), ends)),
        }
    )


# --- the same merchants and products as documents -------------------------------------------------------------------


def merchant_documents(world: World, merchants: Integers, moment: int, since: int) -> Iterator[dict[str, Any]]:
    """Onboarding files of merchants that changed within [since, moment)."""
    draws = world.draws("merchant", merchants)
    joined = world.merchants.joined(merchants)
    verified = joined + draws.between("verified", HOUR, 10 * DAY)
    rebranded = np.where(draws.below("rebrands", 0.15), joined + draws.between("rebrand", 30 * DAY, 3 * HISTORY), NEVER)
    updated = latest(moment, joined, verified, rebranded)
    city = merchant_city(world, merchants)
    category = draws.between("category", 0, len(goods().category))
    owner_first = draws.between("owner first", 0, len(names().first))
    owner_last = draws.between("owner last", 0, len(names().last))
    share = draws.between("share", 26, 101)
    employees = draws.between("employees", 1, 250)
    born = draws.between("owner born", 1950, 2000)
    exposed = draws.below("politically exposed", 0.01)
    trade_names = _trade_names(world, merchants, rebranded < moment)
    identifiers = merchant_ids(merchants, "MERCH").to_pylist()
    ids = object_ids(joined, "merchant", merchants)
    for index in np.flatnonzero(updated >= since).tolist():
        done = verified[index] < moment
        site = f"shop{int(merchants[index]) + 1}.example.com"
        yield {
            "_id": ids[index],
            "merchant_id": identifiers[index],
            "profile": {
                "trade_name": trade_names[index],
                "website": f"https://{site}",
                "support_email": f"support@{site}",
                "mcc": goods().mcc[category[index]],
                "country": cities().country[city[index]],
                "employees": int(employees[index]),
            },
            "documents": [
                {"type": "registration_extract", "status": "verified", "verified_at": utc(joined[index])},
                {
                    "type": "bank_statement",
                    "status": "verified" if done else "pending",
                    "verified_at": utc(verified[index]) if done else None,
                },
            ],
            "beneficial_owners": [
                {
                    "name": f"{names().first[owner_first[index]]} {names().last[owner_last[index]]}",
                    "share": share[index] / 100,
                    "date_of_birth": f"{born[index]}-06-15",
                    "is_politically_exposed": bool(exposed[index]),
                }
            ],
            "updated_at": utc(updated[index]),
        }


def product_documents(world: World, merchants: Integers, moment: int, since: int) -> Iterator[dict[str, Any]]:
    """Catalogue entries of products launched or renamed within [since, moment)."""
    number = _products(world, merchants, moment)
    draws = world.draws("product", number)
    start = launched(world, number)
    retagged = start + draws.between("retagged", 10 * DAY, 2 * HISTORY)
    updated = latest(moment, start, retagged)
    names_, category = _product_names(world, number)
    weight = draws.between("weight", 20, 5_000)
    is_gift = draws.below("gift", 0.2)
    variants = draws.between("variants", 0, 4)
    ids = object_ids(start, "product", number)
    product_ids = entity_ids("PRODUCT", number).to_pylist()
    merchant_ids_ = merchant_ids(number // PRODUCTS_PER_MERCHANT, "MERCH").to_pylist()
    for index in np.flatnonzero(updated >= since).tolist():
        label = goods().category[category[index]].lower()
        yield {
            "_id": ids[index],
            "product_id": product_ids[index],
            "merchant_id": merchant_ids_[index],
            "name": names_[index],
            "attributes": {"category": goods().category[category[index]], "weight_g": int(weight[index])},
            "tags": [label, *(["gift"] if is_gift[index] else []), *(["sale"] if retagged[index] < moment else [])],
            "variants": [
                {"sku": f"{product_ids[index]}-{letter}", "option": letter} for letter in "ABC"[: variants[index]]
            ],
            "updated_at": utc(updated[index]),
        }


# --- names ----------------------------------------------------------------------------------------------------------


def _products(world: World, merchants: Integers, moment: int) -> Integers:
    number = (merchants[:, None] * PRODUCTS_PER_MERCHANT + np.arange(PRODUCTS_PER_MERCHANT)).ravel()
    return number[launched(world, number) < moment]


def _category(world: World, products: Integers) -> Integers:
    merchant = world.draws("merchant", products // PRODUCTS_PER_MERCHANT)
    return merchant.between("category", 0, len(goods().category))


def _product_names(world: World, products: Integers) -> tuple[list[str], Integers]:
    """Names, unlike within one merchant, and category indices."""
    category = _category(world, products)
    count = len(goods().names[0])
    first = world.draws("merchant", products // PRODUCTS_PER_MERCHANT).between("assortment", 0, count)
    flat = [name for row in goods().names for name in row]
    noun = (first + products % PRODUCTS_PER_MERCHANT) % count
    names_ = pick(flat, category * count + noun).to_pylist()
    return [str(name) for name in names_], category


def _name(world: World, merchants: Integers, occasion: str) -> pa.Array:
    draws = world.draws("merchant", merchants)
    return join(
        pick(_STYLES, draws.between(f"{occasion} style", 0, len(_STYLES))),
        " ",
        pick(names().last, draws.between(f"{occasion} family", 0, len(names().last))),
        " ",
        pick(_KINDS, draws.between(f"{occasion} kind", 0, len(_KINDS))),
        " ",
        padded(merchants + 1, 1),
    )


def _trade_names(world: World, merchants: Integers, rebranded: Booleans) -> list[str]:
    before = _name(world, merchants, "founding").to_pylist()
    after = _name(world, merchants, "rebrand").to_pylist()
    return [new if is_new else old for old, new, is_new in zip(before, after, rebranded.tolist(), strict=True)]
