"""The messages of PostgreSQL's output plugin `pgoutput` (protocol 1): which keys of which tables a change names.

Values other than keys are passed over. Documented in PostgreSQL's manual, "Logical Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_RELATION_HEAD = struct.Struct(">I")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">Q")
_PASSED_OVER = frozenset(b"BYOM")
"""Begin, type, origin and message: they name no row."""

Key = tuple[str, ...]


class UnknownMessage(ValueError):
    """A message that protocol version 1 does not have: better stopped at than passed over."""


@dataclass(frozen=True)
class Change:
    """What one message says of a table: the keys of its rows, or that all of it has to be looked at."""

    table: str
    keys: tuple[Key, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class _Relation:
    table: str
    places: tuple[int, ...] | None
    """Where in a row the parts of the key stand; None when they are not all published."""


class Decoder:
    """Decodes the messages of one reading, in order: a table is described before its first change.

    Args:
        keys: table of schema `public` → names of its key's columns. Other tables are passed over.
    """

    def __init__(self, keys: Mapping[str, Sequence[str]]) -> None:
        self._keys = keys
        self._relations: dict[int, _Relation | None] = {}
        self.end_lsn: str | None = None
        """The position after the last commit that was decoded."""

    def decode(self, message: bytes) -> Iterator[Change]:
        """The changes that a message tells of; most tell of one, a truncation of several.

        Raises UnknownMessage for one that the protocol does not have.
        """
        kind = message[0]
        match chr(kind):
            case "C":
                self.end_lsn = _lsn(_INT64.unpack_from(message, 10)[0])
            case "R":
                self._describe(message)
            case "I" | "U" | "D":
                relation = self._relations[_RELATION_HEAD.unpack_from(message, 1)[0]]
                if relation is not None:
                    yield _change(relation, message)
            case "T":
                count = _INT32.unpack_from(message, 1)[0]
                for identifier in struct.unpack_from(f">{count}I", message, 6):
                    relation = self._relations[identifier]
                    if relation is not None:
                        yield Change(relation.table, whole=True)
            case _ if kind not in _PASSED_OVER:
                raise UnknownMessage("pgoutput: a message of an unknown kind")

    def _describe(self, message: bytes) -> None:
        identifier = _RELATION_HEAD.unpack_from(message, 1)[0]
        schema, at = _text(message, 5)
        table, at = _text(message, at)
        count = _INT16.unpack_from(message, at + 1)[0]
        at += 3
        names = []
        for _ in range(count):
            name, at = _text(message, at + 1)
            names.append(name)
            at += 8  # type and modifier
        key = self._keys.get(table) if schema == "public" else None
        if key is None:
            self._relations[identifier] = None
        else:
            found = tuple(names.index(name) for name in key) if set(key) <= set(names) else None
            self._relations[identifier] = _Relation(table, found)


def _change(relation: _Relation, message: bytes) -> Change:
    """The keys before and after. Where a key cannot be told, all of the table has to be looked at."""
    if relation.places is None:
        return Change(relation.table, whole=True)
    keys: dict[Key, None] = {}
    at = 5
    while at < len(message):
        kind = chr(message[at])
        row, at = _row(message, at + 1)
        key = tuple(row[place] for place in relation.places)
        if None not in key:
            keys[tuple(part for part in key if part is not None)] = None
        elif kind == "N":  # a key's long value that an update left alone is not repeated
            return Change(relation.table, whole=True)
    return Change(relation.table, tuple(keys), whole=not keys)


def _row(message: bytes, at: int) -> tuple[list[str | None], int]:
    """A row's values as text; None for null and for an unchanged long value that is not sent."""
    count = _INT16.unpack_from(message, at)[0]
    at += 2
    values: list[str | None] = []
    for _ in range(count):
        kind = message[at]
        at += 1
        if kind in b"nu":
            values.append(None)
            continue
        size = _INT32.unpack_from(message, at)[0]
        at += 4
        values.append(message[at : at + size].decode())
        at += size
    return values, at


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
