"""The warehouse without one person: each table that holds something of theirs written anew, as it may stay.

That happens inside the file, whose free room is overwritten and looked at; where it cannot be, or was interrupted, the
whole file is written anew. Raw tables follow their pinned `on_erasure`. Of what dbt made from them, a row that tells of
a payment or of an error stays, with the member erased (-3) wherever it pointed at the person; every other row that
points at them goes. The next refresh builds all models anew from the raw tables.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial

import duckdb

from ingestion.erasure import ERASED, erased_sql, masked_sql, touched_sql
from warehouse.core.database import open_published, open_warehouse
from warehouse.core.keys import warehouse_key
from warehouse.core.paths import Home
from warehouse.core.replace import RoomNotOverwritten, Select, TableName, read_as, replace_tables
from warehouse.core.rewrite import RowsOf, rewrite
from warehouse.core.settings import CATALOG, Settings
from warehouse.erasure.plan import Plan, mark_done, pinned_raw
from warehouse.privacy.members import IDENTIFYING, without_person

LEDGER_NOW = "erasing"
"""What is being erased, in plain text, for the connection that does it: a temporary ledger."""
QUARANTINE = ("raw_ops", "quarantine")
_QUARANTINED = "list_has_any(string_split(position, '|'), (select list(identifier) from erased_identifiers))"
_OF_A_PAYMENT = frozenset({"transaction_id", "transaction_key"})
_OWN_EVENTS = re.compile(r"feedback|interaction|machine_learning")
"""Tables of what a person did or is taken for: their rows go, payment or not."""


BEGUN = "warehouse begun"
"""Marks an erasure that has begun to replace tables. Which blocks those shared is known no more after a kill."""


def erase_from_warehouse(settings: Settings, plan: Plan) -> dict[str, int]:
    """Returns counts: tables written anew, rows removed, blocks overwritten.

    Raises:
        WarehouseError: the file could not be written anew; the old one stays.
    """
    Home.of(settings).build_state.unlink(missing_ok=True)  # the raw tables are other ones now
    if not mark_done(settings, plan, BEGUN):
        return _whole_file(settings, plan)
    try:
        with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
            fill_ledger_now(connection, plan)
            selects = Edits(connection, plan).touched()
            return replace_tables(connection, Home.of(settings).warehouse, CATALOG, selects)
    except (duckdb.Error, RoomNotOverwritten):
        return _whole_file(settings, plan)


def changed_in_published(settings: Settings, plan: Plan) -> list[TableName]:
    """The tables of the published copy that an erasure changes: what holds something of theirs, and every report."""
    with open_published(settings, locked_down=False) as connection:
        fill_ledger_now(connection, plan)
        reports = connection.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = ? and table_name like 'rpt\\_%' "
            "escape '\\' or schema_name = 'raw_ops' and database_name = ?",
            [CATALOG, CATALOG],
        ).fetchall()
        return sorted({*Edits(connection, plan).touched(), *reports})


def _whole_file(settings: Settings, plan: Plan) -> dict[str, int]:
    def prepare(connection: duckdb.DuckDBPyConnection) -> RowsOf:
        fill_ledger_now(connection, plan)
        edits = Edits(connection, plan)
        return lambda *name: edits.select(name, read_as(CATALOG, name))

    tables, removed = rewrite(
        settings, Home.of(settings).warehouse, warehouse_key(settings), alias=CATALOG, prepare=prepare
    )
    return {"tables": tables, "rows_removed": removed}


def fill_ledger_now(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Make the temporary ledger of this erasure."""
    connection.execute(
        f"create or replace temp table {LEDGER_NOW} (subject varchar, source varchar, table_name varchar, "
        "row_key varchar, subject_token varchar, row_key_token varchar)"
    )
    connection.executemany(f"insert into {LEDGER_NOW} (subject) values (?)", [[name] for name in plan.ids])
    rows = [["oltp", table, key] for table, keys in plan.owned.items() for key in keys]
    if rows:
        connection.executemany(f"insert into {LEDGER_NOW} (source, table_name, row_key) values (?, ?, ?)", rows)


class Edits:
    """How each table reads without the person. The connection has the temporary ledger."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: Plan, catalog: str = CATALOG) -> None:
        """Prepare; `catalog` is the attached database."""
        self._connection, self._catalog = connection, catalog
        connection.execute("create or replace temp table erased_identifiers (identifier varchar)")
        connection.executemany("insert into erased_identifiers values (?)", [[name] for name in plan.identifiers])
        connection.execute("create or replace temp table erased_tokens (token varchar)")
        if plan.tokens:
            connection.executemany("insert into erased_tokens values (?)", [[token] for token in plan.tokens])
        self._raw = pinned_raw()

    def touched(self) -> dict[TableName, Select]:
        """The tables that hold something of the person, and how each reads without them."""
        tables = self._connection.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = ? order by all", [self._catalog]
        ).fetchall()
        return {name: partial(self.select, name) for name in tables if self._holds_some(name)}

    def _holds_some(self, name: TableName) -> bool:
        theirs = self._is_theirs(name)
        if theirs is None:
            return False
        some = f"select 1 from {read_as(self._catalog, name)} where {theirs} limit 1"
        return self._connection.execute(some).fetchone() is not None

    def select(self, name: TableName, original: str) -> str:
        """SQL: the table as it may stay, its rows read from `original`."""
        theirs = self._is_theirs(name)
        if theirs is None:
            return f"select * from {original}"
        others = f"select * from {original} where not coalesce({theirs}, false)"
        changed = self._changed(name, f"select * from {original} where coalesce({theirs}, false)")
        # most rows are others': they are not asked column by column
        return others if changed is None else f"{others} union all {changed}"

    def _changed(self, name: TableName, relation: str) -> str | None:
        """SQL: rows of theirs as they may stay; None: all of them go."""
        if (pinned := self._raw.get(name)) is not None:
            if erased_sql(self._connection, pinned, LEDGER_NOW) is not None:
                return None
            return masked_sql(self._connection, pinned, relation, LEDGER_NOW)
        if name == QUARANTINE:
            return _quarantine(relation)
        columns, _ = self._pointing(name)
        if loses_rows(name, columns):
            return None
        replaced = without_person(columns, _is_erased, ERASED)
        shown = ", ".join(f'{sql} as "{column}"' for column, sql in replaced.items())
        return f"select * replace ({shown}) from ({relation})"

    def _is_theirs(self, name: TableName) -> str | None:
        """SQL: whether a row changes or goes; None when none can."""
        if (pinned := self._raw.get(name)) is not None:
            gone = erased_sql(self._connection, pinned, LEDGER_NOW)
            touched = gone or touched_sql(self._connection, pinned, LEDGER_NOW)
            return None if touched == "false" else touched
        return _QUARANTINED if name == QUARANTINE else self._pointing(name)[1]

    def _pointing(self, name: TableName) -> tuple[list[str], str | None]:
        """The columns of a model's table and, where some may point at a person, SQL: whether one points at this one."""
        columns = [
            column
            for (column,) in self._connection.execute(
                "select column_name from duckdb_columns() "
                "where database_name = ? and schema_name = ? and table_name = ?",
                [self._catalog, *name],
            ).fetchall()
        ]
        pointing = [column for column in IDENTIFYING if column in columns]
        if not pointing or name[0] == "raw_ops":
            return columns, None
        return columns, f"({' or '.join(map(_is_erased, pointing))})"


def loses_rows(name: TableName, columns: Collection[str]) -> bool:
    """Whether rows of a model's table that point at the person go; those of a payment or an error stay."""
    pointing = any(column in columns for column in IDENTIFYING)
    return pointing and (not _OF_A_PAYMENT.intersection(columns) or _OWN_EVENTS.search(name[1]) is not None)


def _is_erased(column: str) -> str:
    return f'"{column}"::varchar in (select identifier from erased_identifiers)'


def _quarantine(relation: str) -> str:
    """A refused row stays refused; where it stood at the source is forgotten."""
    return f"""
        select * replace ('{ERASED}|' || md5(random()::varchar || load_id) as position, null as payload)
        from ({relation})
    """


def ledger_entries(plan: Plan) -> list[tuple[str | None, str | None, str | None, str | None]]:
    """(subject, source, table, row key): what must never come back."""
    subjects: list[tuple[str | None, str | None, str | None, str | None]] = [
        (name, None, None, None) for name in plan.ids
    ]
    rows = [(None, "oltp", table, key) for table, keys in plan.owned.items() for key in keys]
    return subjects + rows
