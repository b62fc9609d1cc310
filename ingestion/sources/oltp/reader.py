"""PostgreSQL through DuckDB's scanner: set-based, one repeatable-read snapshot for all tables.

Without a `compare` (small tables, or asked for), rows come by cursor: everything at or after the newest value seen,
minus the lag, because equal timestamps and late commits stand behind it; rows without a cursor value are read always.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import duckdb
import psycopg

from ingestion.schema import Table
from ingestion.sources import Plan
from warehouse.core.errors import SchemaDrift, SourceUnavailable
from warehouse.core.settings import Settings

ALIAS = "pg"

_FAMILIES = {
    "varchar": {"character varying", "character", "text", "bpchar", "uuid", "inet", "cidr", "USER-DEFINED"},
    "smallint": {"smallint"},
    "integer": {"integer", "smallint"},
    "bigint": {"bigint", "integer", "smallint"},
    "boolean": {"boolean"},
    "date": {"date"},
    "timestamp with time zone": {"timestamp with time zone"},
    "json": {"json", "jsonb"},
}


class OltpReader:
    """Reads the tables of schema `public`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, settings: Settings, uri: str) -> None:
        self.connection = connection
        self.settings = settings
        self._uri = uri
        self._newest: dict[str, datetime | None] = {}

    def __enter__(self) -> OltpReader:
        check_reachable(self._uri)
        quoted = self._uri.replace("'", "''")
        try:
            self.connection.execute(f"ATTACH '{quoted}' AS {ALIAS} (TYPE postgres, READ_ONLY)")
            self.connection.execute("BEGIN")
        except duckdb.Error as error:
            raise SourceUnavailable(
                f"PostgreSQL cannot be attached ({type(error).__name__})",
                kept="everything landed before",
                todo="`warehouse doctor` tells what is missing",
            ) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.execute("ROLLBACK" if exception[0] else "COMMIT")
        self.connection.execute(f"DETACH {ALIAS}")

    def check_shape(self, tables: list[Table]) -> list[str]:
        """Compare the source's catalog with the pinned schemas.

        Returns alerts: columns that are new at the source and do not land. Raises SchemaDrift when a pinned table or
        column is missing, or has changed its type.
        """
        found: dict[str, dict[str, str]] = {}
        for table_name, column, data_type in self.connection.execute(f"""
            select * from postgres_query('{ALIAS}', $$
                select table_name::text, column_name::text,
                    case when data_type = 'numeric' then 'numeric(' || coalesce(numeric_precision, 0) || ','
                        || coalesce(numeric_scale, 0) || ')' else data_type::text end
                from information_schema.columns where table_schema = 'public'
            $$)
        """).fetchall():
            found.setdefault(table_name, {})[column] = data_type
        problems, alerts = [], []
        for table in tables:
            columns = found.get(table.origin)
            if columns is None:
                problems.append(f"table {table.origin} is missing")
                continue
            for leaf in table.columns:
                if leaf.name not in columns:
                    problems.append(f"column {table.origin}.{leaf.name} is missing (renamed or dropped?)")
                elif not _fits(leaf.sql_type, leaf.data_class, columns[leaf.name]):
                    problems.append(f"column {table.origin}.{leaf.name} is now {columns[leaf.name]}")
            pinned = {leaf.name for leaf in table.columns}
            alerts += [
                f"{table.origin}.{column} is new at the source and does not land"
                for column in sorted(columns.keys() - pinned)
            ]
        if problems:
            raise SchemaDrift(
                "PostgreSQL no longer has the pinned shape: " + "; ".join(problems),
                kept="everything landed before; nothing of this run's PostgreSQL load was kept",
                todo="agree on the change with the owner of the source, then change ingestion/sources/oltp/schema.yml",
            )
        return alerts

    def plan(self, table: Table, state: dict[str, Any], *, full: bool) -> Plan:
        """Compare small tables whole; read large ones by cursor."""
        rows = self._scalar(f"select count(*) from {self._origin(table)}")
        cursor = state.get("cursor")
        if full or cursor is None or table.cursor is None or rows <= self.settings.compare_below_rows:
            return Plan("compare", source_rows=rows, cursor_from=cursor)
        since = datetime.fromisoformat(cursor) - timedelta(seconds=self.settings.cursor_lag_seconds)
        where = f'("{table.cursor}" >= timestamptz \'{since.isoformat()}\' or "{table.cursor}" is null)'
        counted = self._scalar(f"select count(*) from {self._origin(table)} where {where}")
        return Plan("incremental", source_rows=counted, cursor_from=cursor, bounds={"where": where})

    def chunks(self, table: Table, plan: Plan) -> Iterator[str]:
        """One relation: the scanner streams, the boundary's query is pushed over it."""
        columns = ", ".join(f'"{leaf.name}"' for leaf in table.columns)
        where = f" where {plan.bounds['where']}" if "where" in plan.bounds else ""
        yield f"select {columns} from {self._origin(table)}{where}"

    def advanced(self, table: Table, plan: Plan) -> dict[str, Any]:
        """The newest cursor value of the snapshot."""
        if table.cursor is None:
            return {}
        newest = self.connection.execute(f'select max("{table.cursor}") from {self._origin(table)}').fetchone()
        value = newest[0] if newest else None
        return {"cursor": value.isoformat() if value else plan.cursor_from}

    @staticmethod
    def _origin(table: Table) -> str:
        return f'{ALIAS}.public."{table.origin}"'

    def _scalar(self, sql: str) -> int:
        row = self.connection.execute(sql).fetchone()
        return int(row[0]) if row else 0


def check_reachable(uri: str) -> None:
    """Connect once, so that a wrong password and a stopped server are told apart. Messages carry no credentials."""
    try:
        with psycopg.connect(uri, connect_timeout=10) as connection:
            connection.execute("select 1")
    except psycopg.OperationalError as error:
        text = str(error).lower()
        if "password" in text or "authentication" in text or "role" in text:
            what, todo = "PostgreSQL refused the credentials", "correct the user and password in POSTGRES_URI"
        elif "does not exist" in text:
            what, todo = "PostgreSQL has no such database", "correct the database name in POSTGRES_URI"
        else:
            what, todo = (
                "PostgreSQL does not answer",
                "start it (`warehouse sources up` for the embedded one) or correct POSTGRES_URI",
            )
        raise SourceUnavailable(
            what, kept="everything landed before; the published warehouse stays readable", todo=todo
        ) from None


def _fits(sql_type: str, data_class: str, found: str) -> bool:
    if data_class in {"personal", "sensitive", "pan", "forbidden"}:
        return True  # lands as a token of its text, whatever the type
    if sql_type.startswith("decimal"):
        return found == "numeric" + sql_type.removeprefix("decimal")
    return found in _FAMILIES[sql_type]
