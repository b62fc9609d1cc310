"""Who a personal record is about: one person or shop, whichever system spells the id.

CUST005 (documents) is CUSTOMER005 (OLTP), MERCH003 is MERCHANT003: equal numbers mean the same member, however many
zeros stand before them, as in `macros/modelling/canonical_ids.sql`. What fits neither spelling stays as it is.
"""

from __future__ import annotations

import re
from typing import Literal

from warehouse.core.errors import ConfigurationError

Kind = Literal["customer", "merchant"]

PREFIXES: dict[Kind, tuple[str, str]] = {"customer": ("CUSTOMER", "CUST"), "merchant": ("MERCHANT", "MERCH")}
"""The spelling of the OLTP system, which is the canonical one, and that of the documents."""

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SPELLING = re.compile("|".join(f"({'|'.join(pair)})([0-9]+)" for pair in PREFIXES.values()))


def checked_subject(subject: str) -> str:
    """The canonical id. Raises ConfigurationError for what can be no id."""
    if not _ID.fullmatch(subject):
        raise ConfigurationError(
            "that is no subject's id: letters, digits, _, - and . only", todo="give the customer's or merchant's id"
        )
    return canonical_subject(subject)


def canonical_subject(subject: str) -> str:
    """The id as the OLTP system writes it."""
    found = _SPELLING.fullmatch(subject)
    if found is None:
        return subject
    kind = kind_of(subject)
    digits = (found[2] or found[4]).lstrip("0")
    return f"{PREFIXES[kind][0]}{digits.rjust(3, '0')}" if kind else subject


def kind_of(subject: str) -> Kind | None:
    """A customer or a merchant, by the id's first letters; None for another kind of id."""
    for kind, pair in PREFIXES.items():
        if subject.startswith(pair):
            return kind
    return None


def spellings_of(subject: str) -> tuple[str, ...]:
    """The two spellings that the systems write today; of another kind of id, itself."""
    canonical = canonical_subject(subject)
    kind = kind_of(canonical)
    if kind is None or not _SPELLING.fullmatch(canonical):
        return (canonical,)
    first, second = PREFIXES[kind]
    return (canonical, second + canonical.removeprefix(first))


def pattern_of(subject: str) -> str:
    """A regular expression of every spelling, however many zeros stand in it."""
    canonical = canonical_subject(subject)
    kind = kind_of(canonical)
    if kind is None or not _SPELLING.fullmatch(canonical):
        return re.escape(canonical)
    first, second = PREFIXES[kind]
    return f"({first}|{second})0*{canonical.removeprefix(first).lstrip('0')}"


def canonical_sql(expression: str) -> str:
    """SQL: the canonical id of `expression`, null for null."""
    cases = " ".join(
        f"when regexp_full_match({expression}, '({first}|{second})[0-9]+') then '{first}' || "
        f"lpad(ltrim(regexp_extract({expression}, '[0-9]+$'), '0'), "
        f"greatest(3, length(ltrim(regexp_extract({expression}, '[0-9]+$'), '0')))::integer, '0')"
        for first, second in PREFIXES.values()
    )
    return f"case {cases} else {expression} end"
