"""What was compared whole and found equal is not compared again while neither side has changed.

A small table is read whole on each run, and most often all of that is to find nothing new: its rows are treated, given
tokens and compared for it. So the position of a table that is compared keeps what was equal: a digest of the source's
rows, made by the source or from its bytes, a checksum of the rows that the raw table holds, and what turns the one
into the other. Where all three are what they were, the rows are what they were.

The digest is sealed with the token key: it is of personal values, and of a table of few rows it could be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from ingestion.boundary import Boundary
from ingestion.schema import Table, row_hash_sql
from warehouse.privacy.tokens import TokenKey

STATE = "equal"
"""Under which name the state of a table keeps it."""


@dataclass(frozen=True)
class Equal:
    """Rows of a source and of a raw table that are the same, and how many undeclared keys they hold."""

    source: str
    raw: str
    rules: str
    unknown_keys: int = 0

    @classmethod
    def of(cls, state: dict[str, Any]) -> Equal | None:
        """What the state of a table keeps, if it does."""
        kept = state.get(STATE)
        return cls(**kept) if isinstance(kept, dict) else None

    def state(self) -> dict[str, Any]:
        """For the state of a table."""
        return {STATE: dict(vars(self))}


def sealed(digest: str, table: Table, key: TokenKey) -> str:
    """A digest of a source's rows, as it may be kept."""
    newest = key if isinstance(key, bytes) else key[-1]
    return hmac.new(newest, f"rows of {table.qualified}|{digest}".encode(), hashlib.sha256).hexdigest()


def rules(table: Table, boundary: Boundary) -> str:
    """What says how rows of a source land: another release, or another pinned schema, may have them land otherwise."""
    said = f"{table.fingerprint}|{boundary!r}|{row_hash_sql(table)}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def checksum_sql(condition: str = "true") -> str:
    """SQL: two numbers that tell of rows whether they are the same, in whatever order: 120 bits of their hashes.

    They can be worked out for parts of the rows: those of all are the exclusive or.
    """
    bits = (f"('0x' || substr(_row_hash, {begin}, 15))::bigint" for begin in (1, 16))
    return ", ".join(f"coalesce(bit_xor({each}) filter ({condition}), 0)" for each in bits)


class Content:
    """The checksum of the rows of one side, part by part."""

    def __init__(self) -> None:
        self._rows = 0
        self._bits = [0, 0]

    def add(self, rows: int, *bits: int) -> None:
        """Take a part: how many rows, and the numbers of :func:`checksum_sql` over them."""
        self._rows += rows
        self._bits = [mine ^ other for mine, other in zip(self._bits, bits, strict=True)]

    def text(self) -> str:
        """All of it in a text. A digest: a number of so many digits can pass for a card's."""
        return hashlib.sha256(f"{self._rows}|{self._bits}".encode()).hexdigest()[:32]
