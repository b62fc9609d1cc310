"""Cities, goods, names and currencies the company is made of (files in `data/`)."""

from __future__ import annotations

import csv
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from warehouse.simulation.draws import Floats, Integers

CURRENCIES: dict[str, tuple[int, float]] = {
    "EUR": (2, 1.0),
    "USD": (2, 1.09),
    "GBP": (2, 0.86),
    "JPY": (0, 160.0),
    "CHF": (2, 0.95),
    "SEK": (2, 11.3),
    "NOK": (2, 11.4),
    "DKK": (2, 7.46),
    "PLN": (2, 4.33),
    "CZK": (2, 25.0),
    "HUF": (2, 388.0),
    "RON": (2, 4.97),
    "TRY": (2, 33.5),
    "CAD": (2, 1.47),
    "AUD": (2, 1.65),
    "NZD": (2, 1.77),
    "SGD": (2, 1.46),
    "INR": (2, 90.4),
    "KRW": (0, 1450.0),
    "BRL": (2, 5.4),
    "MXN": (2, 18.5),
    "ZAR": (2, 20.5),
    "AED": (2, 4.0),
    "CLP": (0, 1040.0),
    "CLF": (4, 0.0284),
    "KWD": (3, 0.335),
    "BHD": (3, 0.41),
    "RUB": (2, 99.0),
}
"""Code → decimals (ISO 4217) and roughly how many make one euro. AED, CLP, CLF, KWD and BHD never had an ECB rate,
RUB has had none since March 2022."""


@dataclass(frozen=True)
class Cities:
    """One entry per city, by column."""

    country: list[str]
    region: list[str]
    name: list[str]
    postal_prefix: list[str]
    time_zone: list[str]
    phone: list[str]
    latitude: Floats
    longitude: Floats
    currency: Integers
    tax_percent: Integers
    is_eea: NDArray[np.bool_]
    weight: Floats


@dataclass(frozen=True)
class Goods:
    """One entry per category."""

    category: list[str]
    mcc: list[str]
    low_eur: Floats
    high_eur: Floats
    names: list[list[str]]


@dataclass(frozen=True)
class Names:
    """First and last names, and their form in addresses."""

    first: list[str]
    last: list[str]
    first_ascii: list[str]
    last_ascii: list[str]


@lru_cache(maxsize=1)
def currency_codes() -> list[str]:
    """Codes by currency index."""
    return list(CURRENCIES)


@lru_cache(maxsize=1)
def currency_exponents() -> Integers:
    """Decimals by currency index."""
    return np.array([exponent for exponent, _ in CURRENCIES.values()], dtype=np.int64)


@lru_cache(maxsize=1)
def units_per_euro() -> Floats:
    """Roughly how many make one euro, by currency index."""
    return np.array([rate for _, rate in CURRENCIES.values()])


def minor_units(euros: Floats, currency: Integers) -> Integers:
    """An amount in euros as whole minor units of another currency, at least one."""
    exact = euros * units_per_euro()[currency] * 10.0 ** currency_exponents()[currency]
    return np.maximum(np.rint(exact).astype(np.int64), 1)


@lru_cache(maxsize=1)
def cities() -> Cities:
    """The cities, read once."""
    rows = _rows("cities.csv")
    codes = currency_codes()

    def column(name: str) -> list[str]:
        return [row[name] for row in rows]

    def floats(name: str) -> Floats:
        return np.array([float(row[name]) for row in rows])

    return Cities(
        country=column("country"),
        region=column("region"),
        name=column("city"),
        postal_prefix=column("postal_prefix"),
        time_zone=column("time_zone"),
        phone=column("phone"),
        latitude=floats("latitude"),
        longitude=floats("longitude"),
        currency=np.array([codes.index(code) for code in column("currency")], dtype=np.int64),
        tax_percent=np.array([int(percent) for percent in column("tax_percent")], dtype=np.int64),
        is_eea=np.array([flag == "1" for flag in column("eea")]),
        weight=floats("weight"),
    )


@lru_cache(maxsize=1)
def goods() -> Goods:
    """The categories, read once. Every category has equally many product names."""
    rows = _rows("goods.csv")
    return Goods(
        category=[row["category"] for row in rows],
        mcc=[row["mcc"] for row in rows],
        low_eur=np.array([float(row["low_eur"]) for row in rows]),
        high_eur=np.array([float(row["high_eur"]) for row in rows]),
        names=[row["names"].split("|") for row in rows],
    )


@lru_cache(maxsize=1)
def names() -> Names:
    """The names, read once."""
    rows = _rows("names.csv")
    first = [row["first"] for row in rows]
    last = [row["last"] for row in rows]
    return Names(first, last, [_address_form(name) for name in first], [_address_form(name) for name in last])


def _address_form(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.replace("\N{LATIN SMALL LETTER DOTLESS I}", "i"))
    return "".join(letter for letter in plain.lower() if letter.isascii() and letter.isalnum())


def _rows(name: str) -> list[dict[str, str]]:
    text = files("warehouse.simulation").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
