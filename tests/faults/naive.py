"""What many pipelines do, so that each fault can be seen to break it.

The plain one appends what is newer than the last cursor, row by row, and remembers the cursor afterwards, elsewhere:
no lag, no hash, no deletions, no transaction around the rows and the cursor, no quarantine. The habits are those that
people add to it: committing the cursor (or the offset) first, catching an error and going on from where the source
is by now, converting values with what a language offers for it.

`FAULTS` says for each fault which of them it breaks, how, and what ours does; docs/faults.md is that table, and
:func:`shows` holds each line of it to what was measured.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import duckdb
import psycopg
from botocore.exceptions import BotoCoreError
from confluent_kafka import KafkaException
from pyarrow import ArrowException
from pymongo.errors import PyMongoError

Row = tuple[str, Any, Any]
"""Key, cursor value, content as the source gives it."""
Damage = Literal["lost", "doubled", "wrong", "left"]
"""Rows that are missing; that stand more than once; whose content is not the source's; that the source has no more."""

PAGE = 50
_CAUGHT = (
    psycopg.Error,
    PyMongoError,
    KafkaException,
    OSError,
    duckdb.Error,
    BotoCoreError,
    ArrowException,
)


class Died(BaseException):
    """The process is gone: nothing after this happened, and nothing catches it."""


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        naive: the loader's habit, "a naive loader that …".
        damage: what it is left with, at least.
        ours: what this warehouse does.
    """

    naive: str
    damage: tuple[Damage, ...]
    ours: str


_APPENDS = "appends, and remembers its cursor afterwards"
_CURSOR_FIRST = "commits its cursor before the rows"
_GOES_ON = "logs the error and goes on from the source's newest row"

FAULTS: dict[str, Fault] = {
    "SIGKILL, cursor kept after the rows": Fault(
        _APPENDS, ("doubled",), "rows, cursor and manifest are one load: all of it or none, recorded once"
    ),
    "SIGKILL, cursor kept before the rows": Fault(
        _CURSOR_FIRST, ("lost",), "the cursor is committed with the rows it belongs to"
    ),
    "dlt's working directory deleted": Fault(
        "keeps its cursor in a folder of its own", ("doubled",), "the position is read from the warehouse alone"
    ),
    "dlt's working directory restored from an old copy": Fault(
        "keeps its cursor in a folder of its own", ("doubled",), "an old package does not follow: it is discarded"
    ),
    "warehouse restored from an old copy": Fault(
        "keeps its cursor in a folder of its own", ("lost",), "the position is as old as the rows: they are read again"
    ),
    "two runs at once": Fault(_APPENDS, ("doubled",), "the second is refused and names the first"),
    "warehouse locked": Fault(_GOES_ON, ("lost",), "one error, nothing moved; the next run lands it"),
    "PostgreSQL ends the connection": Fault(_GOES_ON, ("lost",), "nothing of the snapshot is kept; read again"),
    "PostgreSQL restarts": Fault(_GOES_ON, ("lost",), "nothing of the snapshot is kept; read again"),
    "mongod steps down": Fault(
        "keeps its cursor in the database it reads", ("doubled",), "the snapshot is read on, or nothing of it is kept"
    ),
    "mongod restarts": Fault(_GOES_ON, ("lost",), "nothing of the snapshot is kept; read again"),
    "full disk": Fault(_GOES_ON, ("lost",), "says that the disk is full; the package or its rows come next time"),
    "object store fails in an upload": Fault(
        _GOES_ON, ("lost",), "no seal, no load; the upload is aborted, its rows are read again"
    ),
    "killed with an upload half done": Fault(
        "takes every object below the prefix for landed", ("doubled",), "what has no seal is no part of the lake"
    ),
    "package that cannot be loaded": Fault(
        _GOES_ON, ("lost",), "stays pending and visible, can be given up; its rows are read again"
    ),
    "commit behind the cursor": Fault("reads what is newer than its cursor", ("lost",), "reads again behind a lag"),
    "commit further behind than the lag": Fault(
        "reads what is newer than its cursor", ("lost",), "`--reconcile` counts it, `--full` lands it"
    ),
    "update or insert with an equal cursor": Fault(
        "reads what is newer than its cursor", ("lost", "wrong"), "equal values are read again and compared by hash"
    ),
    "hard delete": Fault(_APPENDS, ("left",), "marked as deleted by a comparison of keys"),
    "delete and re-insert": Fault(_APPENDS, ("left", "wrong"), "landed, deleted, landed again: three versions"),
    "truncate": Fault(_APPENDS, ("left",), "stops above the threshold; `--accept-deletes` marks them"),
    "column added": Fault("takes what columns come", ("wrong",), "told as an alert; the pinned columns land"),
    "column dropped": Fault("takes an absent column for null", ("wrong",), "refused with its name; nothing lands"),
    "column renamed": Fault("takes an absent column for null", ("wrong",), "refused with its name; nothing lands"),
    "integer becomes text": Fault(
        "converts with int() and skips what fails", ("lost",), "refused with its name; nothing is converted"
    ),
    "numeric widened": Fault("rounds to the old scale", ("wrong",), "refused with its name; nothing is rounded"),
    "numeric that is not a number": Fault(
        "converts with int() and skips what fails", ("lost",), "quarantined with reason and position; lands once mended"
    ),
    "document that is not UTF-8, or beyond a double": Fault(
        'decodes with errors="ignore" and counts in floats', ("wrong",), "quarantined, or lands with every digit"
    ),
    "NUL in a text": Fault("removes what its database cannot hold", ("wrong",), "a NUL stays a NUL"),
    "document of 16 MB": Fault("skips what is above its limit of 1 MB", ("lost",), "lands whole"),
    "event that is not UTF-8, JSON or an object": Fault(
        'decodes with errors="ignore" and skips what fails',
        ("lost", "wrong"),
        "quarantined with reason and offset, tokenised",
    ),
    "NaN in an event": Fault(
        "parses it as Python does and stores null", ("wrong",), "quarantined: JSON has no such number"
    ),
    "poison message": Fault(
        "commits offsets as it polls, and dies of the message", ("lost",), "quarantined; what follows it lands"
    ),
    "document changed, its cursor not": Fault(
        "reads what is newer than its cursor", ("wrong", "left"), "compared whole, or behind a lag"
    ),
    "document without a cursor": Fault(
        "reads what is newer than its cursor", ("lost",), "whatever has no date is read every time"
    ),
    "duplicate and reordered deliveries": Fault(
        "keeps an event-time cursor", ("lost",), "keyed by topic, partition and offset; dbt deduplicates by event id"
    ),
    "event of an unknown type or version": Fault(
        "skips what it does not know", ("lost",), "lands raw and is counted in the manifest"
    ),
    "tombstone": Fault("skips what it cannot parse", ("lost",), "lands without a document"),
    "consumer rebalance": Fault(
        "commits its group's offsets after a batch", ("doubled",), "assigns partitions itself; a group is of no account"
    ),
    "new partition": Fault("reads the partitions it began with", ("lost",), "read from its beginning"),
    "topic made anew, with fewer messages": Fault(
        "starts over when its offset is out of range", ("doubled",), "stops; `--full` reads the new topic"
    ),
    "topic made anew, with more messages": Fault(
        "goes on from its offset", ("lost",), "the last landed message is another one: stops"
    ),
    "messages dropped by retention": Fault(
        "starts at the earliest when its offset is out of range", ("lost",), "stops and names the gap"
    ),
}


@dataclass(frozen=True)
class Harm:
    """Rows by what became of them."""

    lost: int
    doubled: int
    wrong: int
    left: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.lost + self.doubled + self.wrong + self.left


class NaiveLoader:
    """Appends rows and remembers a cursor. `rows` and `cursor` are what survives its death.

    Args:
        read: the rows of the source after a cursor value (None: all), in its order.
        everything: every row of the source, now.
        exact: the content as text, so that equal is equal.
        cursor_first: the cursor of a page is committed before its rows.
        goes_on: an error ends the run quietly, and the next one starts from where the source was when it began.
        convert: in place of `exact`: what the loader makes of the content.
        skips: a row that `convert` fails on is left out; otherwise the run dies of it.
    """

    def __init__(
        self,
        read: Callable[[Any], Iterable[Row]],
        everything: Callable[[], Iterable[Row]],
        exact: Callable[[Any], str] = str,
        *,
        cursor_first: bool = False,
        goes_on: bool = False,
        convert: Callable[[Any], str] | None = None,
        skips: bool = True,
    ) -> None:
        self._read = read
        self._everything = everything
        self._exact = exact
        self._convert = convert or exact
        self._cursor_first = cursor_first
        self._goes_on = goes_on
        self._skips = skips
        self.rows: list[tuple[str, str]] = []
        self.cursor: Any = None

    def run(self, *, at: int | None = None, fault: Callable[[], object] | None = None) -> None:
        """Load what is new; call `fault` when row `at` is reached."""
        if not self._goes_on:
            self._load(at, fault)
            return
        newest = self._newest(self._everything())
        try:
            self._load(at, fault)
        except _CAUGHT:
            self.cursor = newest

    def catch_up(self) -> None:
        """Have everything loaded rightly: what is wrong afterwards came afterwards."""
        found = list(self._everything())
        self.rows = [(key, self._exact(content)) for key, _, content in found]
        self.cursor = self._newest(found)

    def save(self, folder: Path) -> None:
        """Write what it has and where it is to two files, as warehouse and state folder are two places."""
        folder.mkdir(exist_ok=True)
        (folder / "rows").write_bytes(pickle.dumps(self.rows))
        (folder / "cursor").write_bytes(pickle.dumps(self.cursor))

    def open(self, folder: Path) -> None:
        """Start from these files; without a cursor, from the beginning."""
        self.rows = pickle.loads((folder / "rows").read_bytes())  # noqa: S301  # written by this test
        cursor = folder / "cursor"
        self.cursor = pickle.loads(cursor.read_bytes()) if cursor.exists() else None  # noqa: S301  # the same

    @property
    def harm(self) -> Harm:
        """What is wrong against the source as it is now."""
        return self.against(self._everything())

    def against(self, truth: Iterable[Row]) -> Harm:
        """What is wrong against these rows."""
        source = {key: self._exact(content) for key, _, content in truth}
        loaded = dict(self.rows)
        return Harm(
            lost=len(source.keys() - loaded.keys()),
            doubled=len(self.rows) - len(loaded),
            wrong=sum(loaded[key] != source[key] for key in source.keys() & loaded.keys()),
            left=len(loaded.keys() - source.keys()),
        )

    def _load(self, at: int | None, fault: Callable[[], object] | None) -> None:
        number = 0
        newest = self.cursor
        rows = iter(self._read(self.cursor))
        while page := list(islice(rows, PAGE if self._cursor_first else 1)):
            newest = self._newest(page, newest)
            if self._cursor_first:
                self.cursor = newest
            for key, _, content in page:
                if number == at and fault is not None:
                    fault()
                number += 1
                try:
                    self.rows.append((key, self._convert(content)))
                except (ValueError, TypeError, KeyError):
                    if not self._skips:
                        raise
        self.cursor = newest

    @staticmethod
    def _newest(rows: Iterable[Row], newest: Any = None) -> Any:
        found = [cursor for _, cursor, _ in rows if cursor is not None]
        return max(found if newest is None else [*found, newest], default=None)


def shows(fault: str, naive: NaiveLoader, *, at_least: int = 1, harm: Harm | None = None) -> None:
    """The naive loader has come out of the fault as the table says, by so many rows of each kind."""
    found = harm or naive.harm
    short = {damage: getattr(found, damage) for damage in FAULTS[fault].damage if getattr(found, damage) < at_least}
    assert not short, f"{fault}: {found}"


def die() -> None:
    """A fault: the process is killed here."""
    raise Died
