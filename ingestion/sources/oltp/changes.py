"""Logical replication: which rows have changed since a position of PostgreSQL's write-ahead log.

A change tells *which* row changed; the row itself is read anew, with the others of its batch, from one snapshot. So
changes may come twice or again after a restart, a long value that an update did not touch (TOAST) is not missed, and
several changes of a row within one batch are one version. A row that is gone at the time of reading is a deletion.

The source keeps its log for us from the position that the slot confirms. A load commits the position it stands for;
only then is it confirmed. Killed in between, the next follower confirms it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from ingestion.lake import sql_text
from ingestion.schema import PLAIN_CLASSES, Table
from ingestion.sources import Plan
from ingestion.sources.oltp.pgoutput import Change, Decoder
from ingestion.sources.oltp.reader import OltpReader, check_reachable
from warehouse.core.errors import ConfigurationError, LoadIncomplete, SourceUnavailable, WarehouseError
from warehouse.core.settings import Settings

MAX_CHANGES = 10_000
"""Messages per batch; a transaction is never parted, so that a large one makes a larger batch."""
MAX_KEYS = 100_000
"""Rows of one table that are read by their keys; of more, the whole table is compared."""

_KEYS = "oltp_changed_keys"
_FETCH = 2_000
_SLOT_SECONDS = 60


@dataclass
class Batch:
    """Rows to read again, by table of the source; tables to compare whole; and the position that comes after them."""

    changed: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    token: str | None = None

    def __len__(self) -> int:
        return sum(map(len, self.changed.values())) + len(self.whole)

    @property
    def origins(self) -> set[str]:
        """The tables that it says something of."""
        return {*self.changed, *self.whole}

    def add(self, change: Change) -> None:
        """Take one change in; a table with too many of them, or truncated, is compared whole."""
        if change.table in self.whole:
            return
        keys = self.changed.setdefault(change.table, set())
        keys.update(change.keys)
        if change.whole or len(keys) > MAX_KEYS:
            self.whole.add(change.table)
            del self.changed[change.table]


@dataclass(frozen=True)
class SlotHealth:
    """What the source says of our slot.

    Attributes:
        status: `reserved` and `extended` are well; `unreserved` is about to be lost; `lost` is.
        retained: bytes of log that the source keeps for us.
        cap: bytes at which it gives the slot up; None without a limit.
    """

    status: str
    retained: int
    cap: int | None

    def alert(self) -> str | None:
        """What an operator has to know, if anything."""
        if self.status == "lost":
            return "the replication slot was given up: `warehouse ingest oltp --follow --full` makes a new one"
        kept = f"{self.retained / 2**20:,.0f} MB of log are kept for the slot"
        if self.cap is None:
            return f"{kept}, without a limit: set max_slot_wal_keep_size, or a stopped follower fills the source's disk"
        if self.status == "unreserved" or self.retained > self.cap / 2:
            return f"{kept}, of {self.cap / 2**20:,.0f} MB at which the source gives it up: follow, or drop the slot"
        return None


class Changes:
    """The slot of this installation, over the pinned tables. A context manager.

    Args:
        token: the position of the log (LSN) to go on from; None from now, which makes the slot when it is not there.

    Raises:
        ConfigurationError: on entering: the account, the publication or a table's identity does not allow it.
        LoadIncomplete: on entering or reading: the source no longer holds the changes after `token`.
        SourceUnavailable: PostgreSQL does not answer.
    """

    def __init__(self, settings: Settings, uri: str, tables: Sequence[Table], token: str | None) -> None:
        self._uri = uri
        self._slot = settings.postgres_slot
        self._publication = settings.postgres_publication
        self._keys = {table.origin: table.key for table in tables}
        self._token = token
        for table in tables:
            if any(leaf.name in table.key and leaf.data_class not in PLAIN_CLASSES for leaf in table.columns):
                raise ConfigurationError(
                    f"{table.origin} cannot be followed: its key is personal, and lands as a token",
                    todo="land it without --follow",
                )

    def __enter__(self) -> Changes:
        check_reachable(self._uri)
        self._connection = psycopg.connect(self._uri, autocommit=True)
        try:
            self._check_publication()
            with _explained(self._slot):
                self._take_slot()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    @property
    def token(self) -> str | None:
        """Where the next batch begins."""
        return self._token

    def gather(self) -> Batch:
        """What has changed since the last confirmed batch, its first MAX_CHANGES messages."""
        batch = Batch()
        decoder = Decoder(self._keys)
        with _explained(self._slot):
            # what is written and not flushed is not decoded: a position beyond it would step over changes
            end = str(self._one("select pg_current_wal_flush_lsn()::text")[0])
            # a cursor of the server: a large transaction stays there, and only its keys come to us one after the other
            with (
                self._connection.transaction(),
                self._connection.cursor(name="changes", binary=True) as cursor,
            ):
                cursor.execute(
                    "select data from pg_logical_slot_peek_binary_changes(%s, null, %s, "
                    "'proto_version', '1', 'publication_names', %s)",
                    [self._slot, MAX_CHANGES, _quoted(self._publication)],
                )
                while messages := cursor.fetchmany(_FETCH):
                    for (message,) in messages:
                        for change in decoder.decode(message):
                            batch.add(change)
        # without a commit of ours, everything up to `end` was others'
        batch.token = decoder.end_lsn or end
        return batch

    def confirm(self, token: str) -> None:
        """Let the source forget what lies before `token`. Call it once the load that stands for it is committed."""
        with _explained(self._slot):
            self._connection.execute(
                "select pg_replication_slot_advance(%s, %s::pg_lsn) from pg_replication_slots "
                "where slot_name = %s and confirmed_flush_lsn < %s::pg_lsn",
                [self._slot, token, self._slot, token],
            )
        self._token = token

    def health(self) -> SlotHealth:
        """How the slot is. Raises LoadIncomplete when it is not there."""
        with _explained(self._slot):
            found = _health(self._connection, self._slot)
        if found is None:
            raise _lost(f"the replication slot {self._slot} is gone")
        return found

    def _check_publication(self) -> None:
        """Every pinned table is published with all its changes, under an identity that holds its key."""
        if self._one("select current_setting('wal_level')") != ("logical",):
            raise ConfigurationError(
                "PostgreSQL's log does not tell of changes: wal_level is not logical",
                kept="everything landed before",
                todo="set wal_level = logical and restart the server, or land it without --follow",
            )
        found = self._connection.execute(
            "select pubinsert and pubupdate and pubdelete and pubtruncate from pg_publication where pubname = %s",
            [self._publication],
        ).fetchone()
        if found != (True,):
            raise ConfigurationError(
                f"PostgreSQL has no publication {self._publication}"
                + (" of inserts, updates, deletes and truncates" if found else ""),
                kept="everything landed before",
                todo="docs/runbook.md, 'Follow PostgreSQL', has the statement that its owner runs once",
            )
        identities: dict[str, Sequence[str] | None] = dict(
            self._connection.execute(_IDENTITIES, [self._publication]).fetchall()
        )
        missing = sorted(self._keys.keys() - identities.keys())
        if missing:
            raise ConfigurationError(
                f"the publication {self._publication} does not hold {', '.join(missing)}",
                kept="everything landed before",
                todo=f"ALTER PUBLICATION {self._publication} ADD TABLE {', '.join(missing)}",
            )
        for origin, key in sorted(self._keys.items()):
            if not set(key) <= set(identities[origin] or ()):
                raise ConfigurationError(
                    f"the replica identity of {origin} does not hold its key ({', '.join(key)}): deletions name no row",
                    kept="everything landed before",
                    todo=f"ALTER TABLE {origin} REPLICA IDENTITY FULL, or give it the primary key ({', '.join(key)})",
                )

    def _take_slot(self) -> None:
        """Open the slot where the last load left it, or make it where there is none yet."""
        row = self._connection.execute(
            "select plugin = 'pgoutput' and database = current_database() and not active, wal_status = 'lost', "
            "confirmed_flush_lsn::text, confirmed_flush_lsn > coalesce(%s::pg_lsn, confirmed_flush_lsn) "
            "from pg_replication_slots where slot_name = %s",
            [self._token, self._slot],
        ).fetchone()
        if row is not None and not row[0]:
            raise ConfigurationError(
                f"the replication slot {self._slot} is another program's",
                kept="everything landed before",
                todo="give this installation a slot of its own: POSTGRES_SLOT",
            )
        if self._token is None:
            if row is not None and row[1]:
                self._connection.execute("select pg_drop_replication_slot(%s)", [self._slot])
                row = None
            self._token = self._created() if row is None else str(row[2])
            return
        if row is None or row[1]:
            raise _lost(f"the replication slot {self._slot} " + ("was dropped" if row is None else "was given up"))
        if row[3]:
            raise _lost(f"the replication slot {self._slot} is ahead of what has landed (a restored warehouse?)")
        self.confirm(self._token)

    def _created(self) -> str:
        """A new slot. It waits for the transactions that are open at the source, but not for ever."""
        with self._connection.transaction():
            self._connection.execute(f"set local statement_timeout = '{_SLOT_SECONDS}s'".encode())
            return str(
                self._one("select lsn::text from pg_create_logical_replication_slot(%s, 'pgoutput')", self._slot)[0]
            )

    def _one(self, sql: str, *values: object) -> tuple[Any, ...]:
        return self._connection.execute(sql.encode(), values or None).fetchone() or ()


_IDENTITIES = """
    select
        published.tablename::text,
        case c.relreplident
            when 'n' then null
            when 'f' then array(
                select a.attname::text from pg_attribute as a
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            )
            else array(
                select a.attname::text
                from pg_index as i
                inner join pg_attribute as a on a.attrelid = c.oid and a.attnum = any (i.indkey)
                where i.indrelid = c.oid and case c.relreplident when 'i' then i.indisreplident else i.indisprimary end
            )
        end
    from pg_publication_tables as published
    inner join pg_class as c on c.oid = format('%%I.%%I', published.schemaname, published.tablename)::regclass
    where published.pubname = %s and published.schemaname = 'public' and published.rowfilter is null
"""
"""Published tables, whole ones only, with the columns by which a change names its row; null: a change names none."""


class ChangedReader(OltpReader):
    """Reads the rows of one batch."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, uri: str, batch: Batch) -> None:
        super().__init__(connection, settings, uri)
        self._batch = batch
        self._state: Mapping[str, Any] = {}

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Exactly the changed rows, from a snapshot of now; the whole table where the batch says so."""
        self._state = state
        if table.origin in self._batch.whole:
            return super().plan(table, state, full=True)
        keys = sorted(self._batch.changed[table.origin])
        columns = {name: pa.array([key[place] for key in keys], pa.string()) for place, name in enumerate(table.key)}
        self.connection.register(f"{_KEYS}_text", pa.table(columns))
        types = {leaf.name: leaf.sql_type for leaf in table.columns}
        typed = ", ".join(f'"{name}"::{types[name]} as "{name}"' for name in table.key)
        self.connection.execute(f"create or replace temp table {_KEYS} as select {typed} from {_KEYS}_text")
        self.connection.unregister(f"{_KEYS}_text")
        # literals without a type: PostgreSQL takes the column's, and finds the rows by the key's index
        names = ", ".join(f'"{name}"' for name in table.key)
        wanted = ", ".join("(" + ", ".join(map(sql_text, key)) + ")" for key in keys)
        return self.changed(table, f"({names}) in ({wanted})", _KEYS)

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The cursor stays: what a cursor run reads again, it finds unchanged."""
        return super().advanced(table, plan) if plan.mode == "compare" else dict(self._state)


def slot_health(uri: str, slot: str) -> SlotHealth | None:
    """How the slot is, for who does not follow just now; None when nobody has ever followed.

    Raises SourceUnavailable when PostgreSQL does not answer.
    """
    check_reachable(uri)
    with _explained(slot), psycopg.connect(uri, autocommit=True) as connection:
        return _health(connection, slot)


def _health(connection: psycopg.Connection[Any], slot: str) -> SlotHealth | None:
    row = connection.execute(
        "select wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint, "
        "(select setting::bigint * 1048576 from pg_settings where name = 'max_slot_wal_keep_size') "
        "from pg_replication_slots where slot_name = %s",
        [slot],
    ).fetchone()
    if row is None:
        return None
    status, retained, cap = row
    return SlotHealth(str(status), int(retained or 0), int(cap) if cap >= 0 else None)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _explained(slot: str) -> Iterator[None]:
    """PostgreSQL's errors as ours; its messages may quote values of rows, and stay here."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege:
        raise ConfigurationError(
            "PostgreSQL does not let this account use a replication slot",
            kept="everything landed before",
            todo="ALTER ROLE … REPLICATION, as the server's administrator (docs/runbook.md, 'Follow PostgreSQL')",
        ) from None
    except psycopg.errors.ObjectNotInPrerequisiteState:
        raise _lost(f"the replication slot {slot} was given up") from None
    except psycopg.errors.UndefinedObject:
        raise _lost(f"the replication slot {slot} is gone") from None
    except psycopg.errors.QueryCanceled:
        raise SourceUnavailable(
            f"PostgreSQL did not make the replication slot within {_SLOT_SECONDS} s: a transaction is open there",
            kept="everything landed before",
            todo="end the transaction that has been open longest (pg_stat_activity), then run this again",
        ) from None
    except psycopg.Error as error:
        raise _stopped(error) from None


def _stopped(error: psycopg.Error) -> WarehouseError:
    return SourceUnavailable(
        f"PostgreSQL's changes cannot be read ({type(error).__name__})",
        kept="everything landed before; following goes on from the last batch",
        todo="check the server, then run this again",
    )


def _lost(what: str) -> LoadIncomplete:
    return LoadIncomplete(
        f"PostgreSQL: changes since the last batch are lost: {what}",
        kept="everything landed before",
        todo="`warehouse ingest oltp --follow --full` compares every row, then follows from there",
    )
