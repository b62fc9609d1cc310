"""A large landed company: the raw rows of a small one, copied set-wise inside the warehouse.

The small company is simulated and landed as any other; simulating and landing millions would take longer than what is
to be measured, and is measured elsewhere. Copy 7 of payment TXN00012345 is TXN00712345, wherever that id stands: in
key columns, in documents, inside the ids of its events, captures and payouts. Customers, merchants, products, devices
and cards are copied with their payments, so that each copy is a company of its own among the same currencies, rates
and countries. Pseudonyms differ between copies, too. No date moves: the small company lives the whole year.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import duckdb

from ingestion.raw import raw_table_names
from ingestion.schema import Table, all_tables
from warehouse import servers, simulation
from warehouse.core.database import open_warehouse
from warehouse.core.keys import create_missing_keys
from warehouse.core.settings import CATALOG, Settings

MOST_PAYMENTS = 50_000
"""Of the small company: the last five digits of an id are its own, those before them name the copy."""
MOST_COPIES = 1000

_SIMULATED = r"(CUSTOMER|CUST|MERCHANT|MERCH|PRODUCT|TXN|TX|LOC|DEV|PM|PO-|EVT-|S-|req-)0?00(\d{5})"
"""The ids that the simulation makes. Those of the reference data set are shorter, and stay the first copy's alone."""
_TOKEN = "v1:[0-9a-f]{3}"  # noqa: S105 - what a pseudonym looks like, not one
_SHARED = {"currency", "status", "country_region_codes", "currency_exchange_rates"}
_ARRIVED = {"oltp": "updated_at", "mongodb": "cursor_at", "stream": "produced_at"}
"""Source → the column that says when a row came to be as it is."""


def land_small(settings: Settings) -> None:
    """Simulate and land the company of these settings on embedded servers, which are stopped afterwards.

    Raises ServerMissing where this machine cannot run them.
    """
    from ingestion.run import ingest  # imports dlt: a second that only this case pays

    create_missing_keys(settings)
    try:
        endpoints = servers.up(settings)
        simulation.fill(settings, endpoints)
        ingest(settings, endpoints, run_id="benchmark")
    finally:
        servers.down(settings)


def multiply(settings: Settings, copies: int, *, memory_limit: str = "2GB") -> int:
    """Make `copies` companies of the landed one; returns the number of payments there are now.

    A transaction per copy and table bounds the memory, and keeps time scattered over the tables: no model may count on
    rows that lie in the order of their dates.

    Raises ValueError for more copies than ids have room for.
    """
    if copies >= MOST_COPIES:
        raise ValueError(f"at most {MOST_COPIES - 1} copies")
    with open_warehouse(settings, memory_limit=memory_limit) as connection:
        connection.execute("set preserve_insertion_order = false")
        for table in all_tables():
            for name in raw_table_names(table):
                if table.name not in _SHARED:
                    _multiply_table(connection, table, _raw(table, name), copies)
            _correct_manifest(connection, table)
        connection.execute(f"checkpoint {CATALOG}")
        return payments(connection)


def payments(connection: duckdb.DuckDBPyConnection) -> int:
    """How many payments have landed, in both databases."""
    row = connection.execute(
        f"select (select count(*) from {CATALOG}.raw_oltp.transaction)"
        f" + (select count(*) from {CATALOG}.raw_mongodb.transactions)"
    ).fetchone()
    assert row is not None  # noqa: S101 - a count is a row
    return int(row[0])


def hold_back(settings: Settings, days: int) -> list[float]:
    """Set what arrived on the last `days` days aside, as if it had not landed; returns each day's share of all rows.

    What a day brings is what any day brings: new payments, events of older ones, changed customers, clicks. It is there
    for :func:`land_day`, the oldest as number 0.
    """
    shares = []
    with open_warehouse(settings) as connection:
        total = sum(_count(connection, _raw(table, name)) for table, name in _raw_names())
        first = _last_midnight(connection) - timedelta(days=days - 1)
        for number in range(days):
            connection.execute(f"create schema {CATALOG}.held_{number}")
            since, until = first + timedelta(days=number), first + timedelta(days=number + 1)
            held = 0
            for table, name in _raw_names():
                aside = _aside(number, table, name)
                arrived = _ARRIVED[table.source]
                within = f"{arrived} >= '{since}'" + (f" and {arrived} < '{until}'" if number < days - 1 else "")
                connection.execute(f"create table {aside} as from {_raw(table, name)} where {within}")
                connection.execute(f"delete from {_raw(table, name)} where {within}")
                held += _count(connection, aside)
            shares.append(held / total)
    return shares


def land_day(settings: Settings, number: int) -> None:
    """A day that was set aside lands now."""
    with open_warehouse(settings) as connection:
        for table, name in _raw_names():
            connection.execute(
                f"insert into {_raw(table, name)} by name "
                f"select * replace (now() as _landed_at) from {_aside(number, table, name)}"
            )
        connection.execute(f"drop schema {CATALOG}.held_{number} cascade")


def _raw(table: Table, name: str) -> str:
    return f"{CATALOG}.{table.raw_schema}.{name}"


def _aside(number: int, table: Table, name: str) -> str:
    return f"{CATALOG}.held_{number}.{table.raw_schema}__{name}"


def _raw_names() -> list[tuple[Table, str]]:
    return [(table, name) for table in all_tables() for name in raw_table_names(table)]


def _last_midnight(connection: duckdb.DuckDBPyConnection) -> datetime:
    """The start of the last day on which payments were made."""
    row = connection.execute(
        f"select date_trunc('day', max(created_at)) from {CATALOG}.raw_oltp.transaction where created_at < now()"
    ).fetchone()
    if row is None or row[0] is None:
        raise ValueError("no payment has landed")
    day: datetime = row[0]
    return day


def _multiply_table(connection: duckdb.DuckDBPyConnection, table: Table, raw: str, copies: int) -> None:
    described = connection.execute(f"describe {raw}").fetchall()
    columns = {str(row[0]): str(row[1]) for row in described}
    step = _count(connection, raw) if table.source != "stream" else _next_offset(connection, raw)
    own = "document" if table.is_document else " || '|' || ".join(table.key)
    connection.execute(
        f"create or replace temp table original as from {raw} where regexp_matches({own}::varchar, $id)",
        {"id": _SIMULATED},
    )
    for copy in range(1, copies):
        written = ", ".join(_copied(name, kind, copy, step) for name, kind in columns.items())
        connection.execute(f"insert into {raw} select {written} from original")
    connection.execute("drop table original")


def _copied(name: str, kind: str, copy: int, offsets: int) -> str:
    """The expression of one column in copy number `copy`."""
    column = f'"{name}"'
    if name == "kafka_offset":
        return f"{column} + {copy * offsets}"
    if name == "_id":  # eight characters of an ObjectId are its time
        return f"left({column}, 8) || left(md5({column} || '{copy}'), 16)"
    if name == "_row_hash":
        return f"'{copy:03x}' || substr({column}, 4)"
    if name.endswith("_token"):
        return f"regexp_replace({column}, '{_TOKEN}', 'v1:{copy:03x}')"
    if kind == "JSON":
        identified = rf"regexp_replace({column}::varchar, '{_SIMULATED}', '\1{copy:03d}\2', 'g')"
        return f"regexp_replace({identified}, '{_TOKEN}', 'v1:{copy:03x}', 'g')"
    if kind == "VARCHAR" and (name.endswith("_id") or name == "message_key") and not name.startswith("_"):
        return rf"regexp_replace({column}, '{_SIMULATED}', '\1{copy:03d}\2', 'g')"
    return column


def _correct_manifest(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """The loads that brought the small company brought all of it: source = unchanged + landed + quarantined."""
    landed = _count(connection, _raw(table, table.name))
    connection.execute(
        f"""
        update {CATALOG}.raw_ops.load_manifest
        set landed_rows = $landed, source_rows = $landed + unchanged_rows + quarantined_rows
        where source = $source and table_name = $table
        """,
        {"landed": landed, "source": table.source, "table": table.name},
    )


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"select count(*) from {table}").fetchone()
    assert row is not None  # noqa: S101 - a count is a row
    return int(row[0])


def _next_offset(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"select coalesce(max(kafka_offset), 0) + 1 from {table}").fetchone()
    assert row is not None  # noqa: S101 - an aggregate is a row
    return int(row[0])
