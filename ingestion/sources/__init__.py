"""One package per source: its pinned schema and the reader that knows its protocol.

A reader gives relations; it decides nothing about privacy, history or loading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ingestion.schema import Table
from ingestion.shapes import Shape

Mode = Literal["compare", "incremental", "offsets", "changes", "retry", "drop"]


@dataclass(frozen=True)
class Plan:
    """How one table is read this time.

    Attributes:
        mode: `compare` reads all of it and finds deletions; `incremental` reads from the cursor on, minus the lag;
            `offsets` reads a topic from the committed offsets to the high watermarks seen at the start;
            `changes` reads given rows (`bounds["keys"]`: a relation of their keys), those not found are deleted;
            `retry` reads the rows at given positions of the quarantine; `drop` reads a file.
        source_rows: what the source itself counts for exactly this read.
        cursor_from: where it starts, as text; None from the beginning.
        bounds: what the reader needs to read it.
        unique_keys: the source itself keeps the key unique, so no key comes twice in this read.
    """

    mode: Mode
    source_rows: int
    cursor_from: str | None = None
    bounds: dict[str, Any] = field(default_factory=dict)
    unique_keys: bool = False


@dataclass(frozen=True)
class Piece:
    """Part of a chunk: rows of one relation.

    With a shape, the relation has a column per value of a document (see `ingestion.shapes`); without one, the columns
    that `ingestion.boundary.compile_boundary` names.
    """

    relation: str
    shape: Shape | None = None


@dataclass(frozen=True)
class Chunk:
    """Rows that land together."""

    pieces: tuple[Piece, ...]


class Reader(Protocol):
    """What every source can do. A context manager: inside, reads are of one snapshot where the source has one."""

    def __enter__(self) -> Reader: ...

    def __exit__(self, *exception: object) -> None: ...

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Decide how to read `table`, given what the last run left in `state`."""
        ...

    def at(self, table: Table, positions: Sequence[str]) -> Plan:
        """Read just the rows at these positions of the quarantine, those that the source still has."""
        ...

    def chunks(self, table: Table, plan: Plan) -> Iterator[str | Chunk]:
        """Incoming rows, each chunk (SQL of one relation, or pieces) to be consumed before the next is asked for."""
        ...

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The state to commit with the load once every chunk was consumed."""
        ...
