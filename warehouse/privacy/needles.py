"""What a search for one subject looks for: their ids, and the values that are theirs alone.

A value that other people have too (a first name, an often-used sentence) shows nothing about one of them wherever it
stands, and a date stands in every calendar: neither is searched for, and the answer says how many there were.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb

from warehouse.core.settings import Settings
from warehouse.privacy.matcher import Needle
from warehouse.privacy.subjects import canonical_subject, spellings_of
from warehouse.privacy.vault import ALIAS, Entry, entries_of, open_vault

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?")


@dataclass
class SubjectNeedles:
    """What to search for, and how many values are not worth it."""

    needles: list[Needle] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    shared: int = 0
    """Values that others have too, and dates."""


def subject_needles(settings: Settings, subject: str) -> SubjectNeedles:
    """The ids of a subject and, while the vault knows them, their values and tokens.

    Raises:
        ConfigurationError: there is no vault, or it does not open.
        VaultDamaged: a key or a value in it does not open.
    """
    with open_vault(settings) as connection:
        owner = canonical_subject(subject)
        named = connection.execute(
            f"select distinct subject from {ALIAS}.main.sealed_entry where owner = $owner", {"owner": owner}
        ).fetchall()
        ids = sorted({subject, *spellings_of(subject), *(name for (name,) in named)})
        return needles_of(connection, settings, owner, ids)


def needles_of(
    connection: duckdb.DuckDBPyConnection, settings: Settings, owner: str, ids: Sequence[str]
) -> SubjectNeedles:
    """The same, over an open vault; `ids` are all that the subject is called."""
    entries = entries_of(connection, settings, [owner])
    common = {
        token
        for (token,) in connection.execute(
            f"""
            select token from {ALIAS}.main.sealed_entry
            where token in (select token from {ALIAS}.main.sealed_entry where owner = $owner)
            group by token having count(distinct owner) > 1
            """,
            {"owner": owner},
        ).fetchall()
    }
    own = {(entry.token, entry.value) for entry in entries if entry.token not in common}
    telling = {(token, value) for token, value in own if not _DATE.fullmatch(value)}
    values = sorted({value for _, value in telling})
    tokens = sorted({token for token, _ in telling})
    return SubjectNeedles(
        [Needle("subject's id", name, whole=True) for name in ids]
        + [Needle("subject's value", value, whole=True) for value in values]
        + [Needle("subject's token", token) for token in tokens],
        entries,
        len({entry.value for entry in entries}) - len(values),
    )
