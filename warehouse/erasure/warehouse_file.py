"""The warehouse without one person: its file written anew, each table copied as it may stay.

Raw tables follow their pinned `on_erasure`. Of what dbt made from them, a row that tells of a payment or of an error
stays, with the member erased (-3) wherever it pointed at the person; every other row that points at them goes. The next
refresh builds all models anew from the raw tables.
"""

from __future__ import annotations

import re

import duckdb

from ingestion.erasure import ERASED, erased_sql, masked_sql
from warehouse.core.keys import warehouse_key
from warehouse.core.paths import Home
from warehouse.core.rewrite import copy_tables, rewrite
from warehouse.core.settings import CATALOG, Settings
from warehouse.erasure.plan import Plan, pinned_raw
from warehouse.privacy.members import IDENTIFYING, without_person

LEDGER_NOW = "erasing"
"""What is being erased, in plain text, for the connection that does it: a temporary ledger."""
_OF_A_PAYMENT = frozenset({"transaction_id", "transaction_key"})
_OWN_EVENTS = re.compile(r"feedback|interaction|machine_learning")
"""Tables of what a person did or is taken for: their rows go, payment or not."""


def erase_from_warehouse(settings: Settings, plan: Plan) -> dict[str, int]:
    """Returns counts: tables copied and rows removed.

    Raises:
        WarehouseError: the file could not be written anew; the old one stays.
    """
    copy = _Copy(plan)
    rewrite(settings, Home.of(settings).warehouse, warehouse_key(settings), alias=CATALOG, copy=copy)
    Home.of(settings).build_state.unlink(missing_ok=True)  # the raw tables are other ones now
    return {"tables": copy.tables, "rows_removed": copy.removed}


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


class _Copy:
    """Fills the new file."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.tables = self.removed = 0

    def __call__(self, connection: duckdb.DuckDBPyConnection) -> None:
        fill_ledger_now(connection, self._plan)
        self.tables, self.removed = copy_tables(connection, CATALOG, Edits(connection, self._plan).select)


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

    def select(self, schema: str, table: str) -> str:
        """SQL: the table as it may stay."""
        original = f'{self._catalog}."{schema}"."{table}"'
        if (pinned := self._raw.get((schema, table))) is not None:
            gone = erased_sql(self._connection, pinned, LEDGER_NOW)
            if gone is not None:
                return f"select * from {original} where not {gone}"
            return masked_sql(self._connection, pinned, f"select * from {original}", LEDGER_NOW)
        if (schema, table) == ("raw_ops", "quarantine"):
            return _quarantine(original)
        columns = [
            name
            for (name,) in self._connection.execute(
                "select column_name from duckdb_columns() "
                "where database_name = ? and schema_name = ? and table_name = ?",
                [self._catalog, schema, table],
            ).fetchall()
        ]
        pointing = [name for name in IDENTIFYING if name in columns]
        if not pointing or schema == "raw_ops":
            return f"select * from {original}"
        mine = f"({' or '.join(_is_erased(name) for name in pointing)})"
        if not _OF_A_PAYMENT.intersection(columns) or _OWN_EVENTS.search(table):
            return f"select * from {original} where not coalesce({mine}, false)"
        replaced = without_person(columns, _is_erased, ERASED)
        shown = ", ".join(f'{sql} as "{name}"' for name, sql in replaced.items())
        return f"select * replace ({shown}) from {original}"


def _is_erased(column: str) -> str:
    return f'"{column}"::varchar in (select identifier from erased_identifiers)'


def _quarantine(original: str) -> str:
    """A refused row stays refused; where it stood at the source is forgotten."""
    named = "list_has_any(string_split(position, '|'), (select list(identifier) from erased_identifiers))"
    return f"""
        select * replace (
            if({named}, '{ERASED}|' || md5(random()::varchar || load_id), position) as position,
            if({named}, null, payload) as payload
        )
        from {original}
    """


def ledger_entries(plan: Plan) -> list[tuple[str | None, str | None, str | None, str | None]]:
    """(subject, source, table, row key): what must never come back."""
    subjects: list[tuple[str | None, str | None, str | None, str | None]] = [
        (name, None, None, None) for name in plan.ids
    ]
    rows = [(None, "oltp", table, key) for table, keys in plan.owned.items() for key in keys]
    return subjects + rows
