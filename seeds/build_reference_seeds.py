"""Write the seeds that come from published standards: currencies (ISO 4217) and countries (ISO 3166-1).

Run it after upgrading `iso4217` or `pycountry`, read the difference, commit the CSV files:

    python seeds/build_reference_seeds.py

The other seeds are kept by hand; `_seeds.yml` says which is which.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path

import pycountry
from iso4217 import Currency

SEEDS = Path(__file__).parent

WITHDRAWN_CURRENCIES = (
    # code, numeric code, name, exponent, first day on which it was no longer legal tender
    ("BGN", "975", "Bulgarian Lev", 2, dt.date(2026, 1, 1)),
    ("CYP", "196", "Cyprus Pound", 2, dt.date(2008, 1, 1)),
    ("EEK", "233", "Kroon", 2, dt.date(2011, 1, 1)),
    ("HRK", "191", "Kuna", 2, dt.date(2023, 1, 1)),
    ("LTL", "440", "Lithuanian Litas", 2, dt.date(2015, 1, 1)),
    ("LVL", "428", "Latvian Lats", 2, dt.date(2014, 1, 1)),
    ("MTL", "470", "Maltese Lira", 2, dt.date(2008, 1, 1)),
    ("ROL", "642", "Old Leu", 2, dt.date(2005, 7, 1)),
    ("SIT", "705", "Tolar", 2, dt.date(2007, 1, 1)),
    ("SKK", "703", "Slovak Koruna", 2, dt.date(2009, 1, 1)),
    ("TRL", "792", "Old Turkish Lira", 0, dt.date(2005, 1, 1)),
)
"""Withdrawn currencies that the ECB once quoted: old payments name them, ISO 4217 list one no longer does.

A currency that is back in list one is an error here, so that the two never both describe it.
"""

FUNDS_AND_TEST_CODES = frozenset({"BOV", "CHE", "CHW", "CLF", "COU", "MXV", "USN", "UYI", "UYW", "XTS", "XXX"})
"""Units of account and test codes of list one: like codes without an exponent, nobody pays with them."""

Row = tuple[str | int | bool | dt.date | None, ...]


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


EU = _codes("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK")
EEA = EU | {"IS", "LI", "NO"}
ADEQUATE = _codes("AD AR CA CH FO GB GG IL IM JE JP KR NZ UY US")
"""Third countries with a Commission adequacy decision (GDPR 45). Canada: commercial organisations; the United
States: organisations certified under the EU-US Data Privacy Framework. Brazil's decision is left out until it
has been reviewed: a transfer called adequate by mistake is worse than one safeguarded twice."""

REGIONS = {
    "Africa": _codes(
        "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW IO KE KM LR LS LY MA MG ML "
        "MR MU MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TF TG TN TZ UG YT ZA ZM ZW"
    ),
    "Americas": _codes(
        "AG AI AR AW BB BL BM BO BQ BR BS BV BZ CA CL CO CR CU CW DM DO EC FK GD GF GL GP GS GT GY HN HT "
        "JM KN KY LC MF MQ MS MX NI PA PE PM PR PY SR SV SX TC TT US UY VC VE VG VI"
    ),
    "Antarctica": _codes("AQ"),
    "Asia": _codes(
        "AE AF AM AZ BD BH BN BT CN CY GE HK ID IL IN IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO MV "
        "MY NP OM PH PK PS QA SA SG SY TH TJ TL TM TR TW UZ VN YE"
    ),
    "Europe": _codes(
        "AD AL AT AX BA BE BG BY CH CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV "
        "MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA"
    ),
    "Oceania": _codes("AS AU CC CK CX FJ FM GU HM KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS"),
}
"""UN M49 regions by alpha-2 code; every country is in exactly one."""


def currency_rows() -> list[Row]:
    """code, numeric code, name, exponent, is_active, is_payment_currency, withdrawn_on; by code."""
    rows: list[Row] = [
        (
            currency.code,
            f"{currency.number:03d}",
            currency.currency_name,
            currency.exponent,
            True,
            currency.exponent is not None and currency.code not in FUNDS_AND_TEST_CODES,
            None,
        )
        for currency in Currency
    ]
    rows += [
        (code, number, name, exponent, False, False, day) for code, number, name, exponent, day in WITHDRAWN_CURRENCIES
    ]
    codes = [row[0] for row in rows]
    if len(codes) != len(set(codes)):
        raise ValueError("a currency of WITHDRAWN_CURRENCIES is in ISO 4217 list one again: remove it there")
    return sorted(rows, key=lambda row: str(row[0]))


def country_rows() -> list[Row]:
    """alpha-2, alpha-3, numeric code, name, region, is_eu, is_eea, has_adequacy_decision; by alpha-2."""
    region_of = {code: region for region, codes in REGIONS.items() for code in codes}
    countries = sorted(pycountry.countries, key=lambda country: country.alpha_2)
    if {country.alpha_2 for country in countries} != region_of.keys():
        raise ValueError("REGIONS does not name exactly the countries of ISO 3166-1: correct it")
    return [
        (
            country.alpha_2,
            country.alpha_3,
            country.numeric,
            getattr(country, "common_name", country.name),
            region_of[country.alpha_2],
            country.alpha_2 in EU,
            country.alpha_2 in EEA,
            country.alpha_2 in ADEQUATE,
        )
        for country in countries
    ]


def write_seed(path: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
    """Write one CSV: null as an empty field, booleans as true/false, Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in row])


def main() -> None:
    """Write both seeds beside this file."""
    write_seed(
        SEEDS / "currency_exponents.csv",
        (
            "currency_code",
            "numeric_code",
            "currency_name",
            "exponent",
            "is_active",
            "is_payment_currency",
            "withdrawn_on",
        ),
        currency_rows(),
    )
    write_seed(
        SEEDS / "countries.csv",
        (
            "country_code",
            "alpha3_code",
            "numeric_code",
            "country_name",
            "region",
            "is_eu",
            "is_eea",
            "has_adequacy_decision",
        ),
        country_rows(),
    )


if __name__ == "__main__":
    main()
