"""Write the seeds that come from published standards and lists: currencies (ISO 4217), countries (ISO 3166-1) and the
lists that countries join and leave (EU, EEA, adequacy decisions, FATF).

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


def _since(day: str, codes: str, until: str | None = None) -> tuple[tuple[str, dt.date, dt.date | None], ...]:
    """Countries that were on a list from `day` until (not including) `until`; still on it when that is left out."""
    end = None if until is None else dt.date.fromisoformat(until)
    return tuple((code, dt.date.fromisoformat(day), end) for code in codes.split())


MEMBERSHIPS: dict[str, tuple[tuple[str, dt.date, dt.date | None], ...]] = {
    "EU": (
        *_since("1958-01-01", "BE DE FR IT LU NL"),
        *_since("1973-01-01", "DK IE"),
        *_since("1973-01-01", "GB", until="2020-02-01"),
        *_since("1981-01-01", "GR"),
        *_since("1986-01-01", "ES PT"),
        *_since("1995-01-01", "AT FI SE"),
        *_since("2004-05-01", "CY CZ EE HU LT LV MT PL SI SK"),
        *_since("2007-01-01", "BG RO"),
        *_since("2013-07-01", "HR"),
    ),
    "EEA": (
        *_since("1994-01-01", "AT BE DE DK ES FI FR GR IE IS IT LU NL NO PT SE"),
        *_since("1994-01-01", "GB", until="2020-02-01"),
        *_since("1995-05-01", "LI"),
        *_since("2004-05-01", "CY CZ EE HU LT LV MT PL SI SK"),
        *_since("2007-08-01", "BG RO"),
        *_since("2014-04-12", "HR"),
    ),
    # Union law went on applying to the United Kingdom (Withdrawal Agreement, Articles 126 and 127)
    "EU_TRANSITION": _since("2020-02-01", "GB", until="2021-01-01"),
    "GDPR_ADEQUACY": (
        *_since("2000-07-26", "CH"),
        *_since("2000-07-26", "US", until="2015-10-06"),  # Safe Harbour; annulled by C-362/14 (Schrems)
        *_since("2001-12-20", "CA"),
        *_since("2003-06-30", "AR"),
        *_since("2003-11-21", "GG"),
        *_since("2004-04-28", "IM"),
        *_since("2008-05-08", "JE"),
        *_since("2010-03-05", "FO"),
        *_since("2010-10-19", "AD"),
        *_since("2011-01-31", "IL"),
        *_since("2012-08-21", "UY"),
        *_since("2012-12-19", "NZ"),
        *_since("2016-07-12", "US", until="2020-07-16"),  # Privacy Shield; annulled by C-311/18 (Schrems II)
        *_since("2019-01-23", "JP"),
        *_since("2021-06-28", "GB"),
        *_since("2021-12-17", "KR"),
        *_since("2023-07-10", "US"),  # Data Privacy Framework
    ),
    "FATF_BLACK": (
        *_since("2011-02-25", "KP"),
        *_since("2009-02-25", "IR"),
        *_since("2022-10-21", "MM"),
    ),
    "FATF_GREY": (
        *_since("2010-02-18", "SY YE"),
        *_since("2018-06-29", "PK", until="2022-10-21"),
        *_since("2018-10-19", "BS", until="2020-12-18"),
        *_since("2018-10-19", "BW", until="2021-10-21"),
        *_since("2018-10-19", "GH", until="2021-06-25"),
        *_since("2019-02-22", "KH", until="2023-02-24"),
        *_since("2019-06-21", "PA", until="2023-10-27"),
        *_since("2019-10-18", "IS MN", until="2020-10-23"),
        *_since("2019-10-18", "ZW", until="2022-03-04"),
        *_since("2020-02-21", "AL", until="2023-10-27"),
        *_since("2020-02-21", "BB UG", until="2024-02-23"),
        *_since("2020-02-21", "JM", until="2024-06-28"),
        *_since("2020-02-21", "MM NI", until="2022-10-21"),
        *_since("2020-02-21", "MU", until="2021-10-21"),
        *_since("2021-02-25", "BF", until="2025-10-24"),
        *_since("2021-02-25", "KY", until="2023-10-27"),
        *_since("2021-02-25", "MA", until="2023-02-24"),
        *_since("2021-02-25", "SN", until="2024-10-25"),
        *_since("2021-06-25", "HT SS"),
        *_since("2021-06-25", "MT", until="2022-06-17"),
        *_since("2021-06-25", "PH", until="2025-02-21"),
        *_since("2021-10-21", "JO", until="2023-10-27"),
        *_since("2021-10-21", "ML", until="2025-06-13"),
        *_since("2021-10-21", "TR", until="2024-06-28"),
        *_since("2022-03-04", "AE", until="2024-02-23"),
        *_since("2022-06-17", "GI", until="2024-02-23"),
        *_since("2022-10-21", "CD"),
        *_since("2022-10-21", "MZ", until="2025-10-24"),
        *_since("2022-10-21", "TZ", until="2025-06-13"),
        *_since("2023-02-24", "NG ZA", until="2025-10-24"),
        *_since("2023-06-23", "CM VN"),
        *_since("2023-06-23", "HR", until="2025-06-13"),
        *_since("2023-10-27", "BG"),
        *_since("2024-02-23", "KE NA"),
        *_since("2024-06-28", "MC VE"),
        *_since("2024-10-25", "AO CI DZ LB"),
        *_since("2025-02-21", "LA NP"),
        *_since("2025-06-13", "BO VG"),
    ),
}
"""List → its members with the first day on it and the first day no longer on it, kept by hand; sources in `_seeds.yml`.

No package carries these lists with their days. Adequacy: Canada for commercial organisations, the United States (since
2023) for organisations certified under the EU-US Data Privacy Framework. Brazil's decision is left out until it is
reviewed: a transfer called adequate by mistake is worse than one safeguarded twice. FATF: the plenaries from February
2020 to October 2025, and who was listed when they began.
"""

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
    """alpha-2, alpha-3, numeric code, name, region; by alpha-2."""
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
        )
        for country in countries
    ]


def membership_rows() -> list[Row]:
    """alpha-2, list, valid_from (included), valid_to (excluded, null while it lasts); by list, country and day."""
    known = {country.alpha_2 for country in pycountry.countries}
    rows: list[Row] = []
    for name, members in MEMBERSHIPS.items():
        last: dict[str, dt.date | None] = {}
        for code, since, until in sorted(members, key=lambda member: (member[0], member[1])):
            if code not in known:
                raise ValueError(f"{name} names {code}, which ISO 3166-1 does not: correct it")
            if code in last and ((end := last[code]) is None or end > since):
                raise ValueError(f"{name} has {code} twice on {since}: correct it")
            last[code] = until
            rows.append((code, name, since, until))
    return sorted(rows, key=lambda row: (str(row[1]), str(row[0]), str(row[2])))


def write_seed(path: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
    """Write one CSV: null as an empty field, booleans as true/false, Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in row])


def main() -> None:
    """Write the three seeds beside this file."""
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
        ),
        country_rows(),
    )
    write_seed(
        SEEDS / "country_memberships.csv",
        ("country_code", "list_name", "valid_from", "valid_to"),
        membership_rows(),
    )


if __name__ == "__main__":
    main()
