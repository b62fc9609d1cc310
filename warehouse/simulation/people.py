"""Customers, their addresses, devices and payment methods: as they stand at any moment.

Every function takes member numbers and gives columns; a row is a function of (world, number, moment), so an
advance finds what changed by asking which rows have an `updated_at` it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.simulation.catalogue import cities, names
from warehouse.simulation.draws import Booleans, Integers
from warehouse.simulation.reality import (
    BEHIND_CURSOR_BY,
    BEHIND_CURSOR_EVERY,
    DAY,
    HOUR,
    SPARE_ABSENCE,
    SPARE_CYCLE,
)
from warehouse.simulation.text import (
    Strings,
    customer_ids,
    entity_ids,
    join,
    padded,
    pick,
    timestamps,
)
from warehouse.simulation.world import HISTORY, NEVER, World

DISTRICTS = 40
"""Postal codes, and so locations, per city."""

SLOTS = 3
"""Devices and payment methods per customer: number = customer * SLOTS + slot. Payments use slots 0 and 1;
slot 2 is a spare that nothing refers to, so it can be deleted."""
SPARE_SLOT = 2

_BRANDS = ["visa", "visa", "mastercard", "mastercard", "amex", "discover", "jcb"]
_BRAND_WEIGHTS = np.array([36.0, 14.0, 25.0, 10.0, 8.0, 4.0, 3.0])
_TEST_BINS = np.array([424242, 400005, 555555, 222300, 378282, 601111, 356600], dtype=np.int64)
_AMEX = 4


# --- where people live ------------------------------------------------------------------------------------------


def location_rows(world: World) -> pa.Table:
    """Every district of every city; they never change."""
    table = cities()
    number = np.arange(len(table.name) * DISTRICTS)
    city, district = number // DISTRICTS, number % DISTRICTS
    draws = world.draws("location", number)
    latitude = table.latitude[city] + (draws.uniform("latitude") - 0.5) * 0.1
    longitude = table.longitude[city] + (draws.uniform("longitude") - 0.5) * 0.1
    return pa.table(
        {
            "location_id": entity_ids("LOC", number),
            "country_code": pick(table.country, city),
            "region_code": pick(table.region, city),
            "city": pick(table.name, city),
            "postal_code": join(pick(table.postal_prefix, city), padded(district, 2)),
            "latitude": np.round(latitude, 6),
            "longitude": np.round(longitude, 6),
            "updated_at": timestamps(np.full(len(number), world.start_ms - HISTORY - DAY)),
        }
    )


@dataclass(frozen=True)
class Homes:
    """First and second home of each customer (location numbers) and when they move."""

    first: Integers
    second: Integers
    moved: Integers

    def at(self, moments: Integers | int) -> Integers:
        """Where they live at each moment."""
        return np.where(self.moved < moments, self.second, self.first)


def homes(world: World, customers: Integers) -> Homes:
    """Four in five move within their own city; about one in four customers moves in a year."""
    draws = world.draws("customer", customers)
    weight = cities().weight
    city = draws.weighted("city", weight)
    other = np.where(draws.below("stays", 0.8), city, draws.weighted("new city", weight))
    return Homes(
        first=city * DISTRICTS + draws.between("district", 0, DISTRICTS),
        second=other * DISTRICTS + draws.between("new district", 0, DISTRICTS),
        moved=world.customers.joined(customers) + draws.between("moves", 10 * DAY, 4 * HISTORY),
    )


def home_city(world: World, customers: Integers) -> Integers:
    """The city of the first home: it decides the issuer of the cards and the usual currency."""
    return world.draws("customer", customers).weighted("city", cities().weight)


# --- customers --------------------------------------------------------------------------------------------------


def customer_rows(world: World, customers: Integers, moment: int) -> pa.Table:
    """Customers as of `moment`. All of them must have joined by then."""
    draws = world.draws("customer", customers)
    joined = world.customers.joined(customers)
    home = homes(world, customers)
    name = names()
    first = draws.between("first name", 0, len(name.first))
    last_before = draws.between("last name", 0, len(name.last))
    last_after = draws.between("married name", 0, len(name.last))
    renamed = np.where(draws.below("marries", 0.1), joined + draws.between("wedding", 5 * DAY, 2 * HISTORY), NEVER)
    last = np.where(renamed < moment, last_after, last_before)
    checked = joined + draws.between("kyc takes", HOUR, 5 * DAY)
    is_consenting = draws.below("consents", 0.55)
    changes_mind = np.where(draws.below("changes mind", 0.3), joined + draws.between("mind", DAY, 2 * HISTORY), NEVER)
    consent = is_consenting ^ (changes_mind < moment)
    passes = np.where(draws.below("rejected", 0.02), 3, np.where(draws.below("never checked", 0.05), 0, 2))
    kyc = np.where(checked < moment, passes, np.where(passes == 0, 0, 1))
    city = home.first // DISTRICTS
    has_phone = ~draws.below("no phone", 0.07)
    born = draws.between("born", -15_000, 1_900)
    return pa.table(
        {
            "customer_id": customer_ids(customers),
            "first_name": pick(name.first, first),
            "last_name": pick(name.last, last),
            "email": emails(world, customers),
            "phone": _where(has_phone, phones(world, customers, city)),
            "date_of_birth": pa.array(born.astype("datetime64[D]") + np.timedelta64(12_000, "D")),
            "location_id": entity_ids("LOC", home.at(moment)),
            "kyc_status": pick(["not_started", "pending", "verified", "rejected"], kyc),
            "marketing_consent": consent,
            "consent_updated_at": timestamps(np.where(changes_mind < moment, changes_mind, joined)),
            "created_at": timestamps(joined),
            "updated_at": timestamps(
                latest(moment, joined, home.moved, renamed, np.where(passes == 0, NEVER, checked), changes_mind)
            ),
        }
    )


def emails(world: World, customers: Integers) -> Strings:
    """Addresses under the domains that RFC 2606 reserves; they keep the name the customer signed up with."""
    draws = world.draws("customer", customers)
    name = names()
    return join(
        pick(name.first_ascii, draws.between("first name", 0, len(name.first))),
        ".",
        pick(name.last_ascii, draws.between("last name", 0, len(name.last))),
        padded(customers + 1, 1),
        pick(["@example.com", "@example.org", "@example.net"], draws.between("domain", 0, 3)),
    )


def phones(world: World, customers: Integers, city: Integers) -> Strings:
    """Numbers with 555, the exchange kept free for fiction, behind each country's prefix."""
    return join(pick(cities().phone, city), padded(world.draws("customer", customers).between("phone", 0, 10_000), 4))


# --- devices ----------------------------------------------------------------------------------------------------

_MODELS: list[tuple[str, str, str]] = [
    ("mobile", "iOS 17", "Safari"),
    ("mobile", "Android 14", "Chrome"),
    ("mobile", "Android 13", "Samsung Internet"),
    ("desktop", "Windows 11", "Edge"),
    ("desktop", "Windows 10", "Chrome"),
    ("desktop", "macOS 14", "Safari"),
    ("desktop", "Ubuntu 22.04", "Firefox"),
    ("tablet", "iPadOS 17", "Safari"),
]


def devices_of(world: World, customers: Integers, moments: Integers, second: Booleans) -> Integers:
    """The device a customer uses: the second one where asked for and already owned, else the first."""
    number = customers * SLOTS + 1
    owned = second & _exists(world, "device", number) & (device_first_seen(world, number) < moments)
    return customers * SLOTS + owned


def device_first_seen(world: World, devices: Integers) -> Integers:
    """First sight of each device: the sign-up for slot 0, days or weeks later for the others."""
    later = world.draws("device", devices).between("first seen", DAY, 60 * DAY)
    return world.customers.joined(devices // SLOTS) + np.where(devices % SLOTS == 0, 0, later)


def device_rows(world: World, customers: Integers, moment: int) -> pa.Table:
    """The devices these customers have at `moment`."""
    number = _slots(customers)
    first_seen = device_first_seen(world, number)
    present, returned = _presence(world, "device", number, first_seen, moment)
    keep = _exists(world, "device", number) & (first_seen < moment) & present
    number, first_seen, returned = number[keep], first_seen[keep], returned[keep]
    draws = world.draws("device", number)
    model = draws.weighted("model", np.array([26.0, 22, 10, 14, 10, 8, 3, 7]))
    upgraded = first_seen + draws.between("new address", DAY, HISTORY)
    address = draws.between("address", 0, 2**17)
    address = np.where(upgraded < moment, (address * 7 + 13) % 2**17, address)
    return pa.table(
        {
            "device_id": entity_ids("DEV", number),
            "customer_id": customer_ids(number // SLOTS),
            "device_type": pick([kind for kind, _, _ in _MODELS], model),
            "os": pick([system for _, system, _ in _MODELS], model),
            "browser": pick([browser for _, _, browser in _MODELS], model),
            "fingerprint": _hexadecimal(draws.bits("fingerprint")),
            "ip_address": ip_addresses(address),
            "first_seen_at": timestamps(first_seen),
            "updated_at": timestamps(latest(moment, first_seen, upgraded, returned)),
        }
    )


def devices_behind_cursor(world: World, customers: Integers, moment: int) -> pa.Table:
    """Devices whose change of the last minutes before `moment` is committed only after it."""
    lot = world.draws("customer", customers).between(f"late commit {moment}", 0, BEHIND_CURSOR_EVERY)
    rows = device_rows(world, customers[lot == 0], moment)
    stamp = timestamps(np.full(rows.num_rows, moment - BEHIND_CURSOR_BY))
    return rows.set_column(rows.schema.get_field_index("updated_at"), "updated_at", stamp)


def ip_addresses(number: Integers) -> Strings:
    """Addresses of 198.18.0.0/15, which RFC 2544 keeps for tests; one in sixteen is IPv6 of 2001:db8::/32."""
    v4 = join(
        "198.",
        padded(18 + number // 65_536 % 2, 1),
        ".",
        padded(number // 256 % 256, 1),
        ".",
        padded(number % 256, 1),
    )
    v6 = join("2001:db8::", padded(number % 9_999 + 1, 1))
    return pc.if_else(pa.array(number % 16 == 0), v6, v4)


# --- payment methods --------------------------------------------------------------------------------------------


def methods_of(world: World, customers: Integers, moments: Integers, second: Booleans) -> Integers:
    """The payment method a customer uses: the second one where asked for and already owned, else the first."""
    number = customers * SLOTS + 1
    owned = second & _exists(world, "payment_method", number) & (method_created(world, number) < moments)
    return customers * SLOTS + owned


def method_created(world: World, methods: Integers) -> Integers:
    """When each payment method was added: minutes after the sign-up for slot 0, weeks later for the others."""
    draws = world.draws("payment_method", methods)
    joined = world.customers.joined(methods // SLOTS)
    return joined + np.where(methods % SLOTS == 0, 0, draws.between("created", DAY, 60 * DAY))


def is_card(world: World, methods: Integers) -> Booleans:
    """Cards and wallets carry a card number; bank transfers do not."""
    return ~world.draws("payment_method", methods).below("bank transfer", 0.05)


def method_rows(world: World, customers: Integers, moment: int) -> pa.Table:
    """The payment methods these customers have at `moment`."""
    number = _slots(customers)
    created = method_created(world, number)
    present, returned = _presence(world, "payment_method", number, created, moment)
    keep = _exists(world, "payment_method", number) & (created < moment) & present
    number, created, returned = number[keep], created[keep], returned[keep]
    draws = world.draws("payment_method", number)
    card = is_card(world, number)
    wallet = card & draws.below("wallet", 0.15)
    brand = draws.weighted("brand", _BRAND_WEIGHTS)
    renewed = created + draws.between("renewal", DAY, 2 * HISTORY)
    month = draws.between("month", 1, 13)
    year = 25 + draws.between("year", 0, 4) + 3 * (renewed < moment)
    city = home_city(world, number // SLOTS)
    return pa.table(
        {
            "payment_method_id": entity_ids("PM", number),
            "customer_id": customer_ids(number // SLOTS),
            "method_type": pick(["bank_transfer", "card", "wallet"], card.astype(np.int64) + wallet),
            "card_brand": _where(card, pick(_BRANDS, brand)),
            "card_number": _where(card, card_numbers(world, number)),
            "card_expiry": _where(card, join(padded(month, 2), "/", padded(year, 2))),
            "issuer_country": pick(cities().country, city),
            "wallet": _where(wallet, pick(["apple_pay", "google_pay"], draws.between("wallet kind", 0, 2))),
            "created_at": timestamps(created),
            "updated_at": timestamps(latest(moment, created, np.where(card, renewed, NEVER), returned)),
        }
    )


def card_numbers(world: World, methods: Integers) -> Strings:
    """Numbers that pass the Luhn check, from issuer ranges that networks keep for tests; unique per method."""
    draws = world.draws("payment_method", methods)
    brand = draws.weighted("brand", _BRAND_WEIGHTS)
    is_amex = brand == _AMEX
    # 387,420,489 is odd and not divisible by 5: multiplying by it permutes the 9-digit (8-digit) accounts.
    account = methods * 387_420_489 % np.where(is_amex, 10**8, 10**9)
    body = _TEST_BINS[brand] * np.where(is_amex, 10**8, 10**9) + account
    return padded(body * 10 + luhn_digits(body), 1)


def luhn_digits(bodies: Integers) -> Integers:
    """The check digit (ISO/IEC 7812-1, annex B) to append to each number."""
    total = np.zeros_like(bodies)
    rest = bodies
    for place in range(18):
        digit = rest % 10
        rest = rest // 10
        if place % 2 == 0:
            digit = digit * 2
            digit = digit - 9 * (digit > 9)
        total = total + digit
    return -total % 10


# --- spares that come and go ------------------------------------------------------------------------------------


def spares_deleted(world: World, kind: str, customers: Integers, since: int, until: int) -> Integers:
    """Numbers of the spares that were deleted within [since, until), whether they came back or not."""
    number = customers * SLOTS + SPARE_SLOT
    number = number[_exists(world, kind, number)]
    born = device_first_seen(world, number) if kind == "device" else method_created(world, number)
    gone = born + _phase(world, kind, number)
    deletions_before = np.maximum((since - 1 - gone) // SPARE_CYCLE + 1, 0)
    deletions_after = np.maximum((until - 1 - gone) // SPARE_CYCLE + 1, 0)
    chosen: Integers = number[deletions_after > deletions_before]
    return chosen


def _presence(world: World, kind: str, number: Integers, born: Integers, moment: int) -> tuple[Booleans, Integers]:
    """Whether each one is there, and when a spare last came back (NEVER for those that did not)."""
    since_gone = moment - 1 - born - _phase(world, kind, number)
    cycle = since_gone // SPARE_CYCLE
    is_spare = number % SLOTS == SPARE_SLOT
    gone = is_spare & (since_gone >= 0)
    present = ~gone | (since_gone % SPARE_CYCLE >= SPARE_ABSENCE)
    came_back = np.where(since_gone % SPARE_CYCLE >= SPARE_ABSENCE, cycle, cycle - 1)
    returned = born + _phase(world, kind, number) + came_back * SPARE_CYCLE + SPARE_ABSENCE
    return present, np.where(gone & (came_back >= 0), returned, NEVER)


def _phase(world: World, kind: str, number: Integers) -> Integers:
    return world.draws(kind, number).between("phase", DAY, SPARE_CYCLE)


def _exists(world: World, kind: str, number: Integers) -> Booleans:
    return np.asarray((number % SLOTS == 0) | world.draws(kind, number).below("exists", 0.4))


def _slots(customers: Integers) -> Integers:
    return (customers[:, None] * SLOTS + np.arange(SLOTS)).ravel()


# --- small columns ----------------------------------------------------------------------------------------------


def latest(moment: int, created: Integers, *changes: Integers) -> Integers:
    """The last change before `moment`, or the creation."""
    result = created
    for change in changes:
        result = np.maximum(result, np.where(change < moment, change, created))
    return result


def _where(condition: Booleans, values: Strings) -> Strings:
    return pc.if_else(pa.array(condition), values, pa.scalar(None, pa.string()))


def _hexadecimal(bits: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> Strings:
    return pa.array([f"{value:016x}" for value in bits.tolist()], pa.string())
