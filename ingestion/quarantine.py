"""The quarantine: rows that do not fit their pinned schema, until they do.

An entry is never removed. It is resolved when its row is read again and fits, by the next landing that meets it or by
`warehouse ingest --retry-quarantined`, which asks the source for exactly the rows that are open.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb

from ingestion.schema import Table, position_sql
from warehouse.core.settings import CATALOG

MAX_QUARANTINED_SHARE = 0.01
"""Of the rows that a table's newest load read; above it, people are told and the landing expectations fail."""


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the holding place for what this load resolves."""
    connection.execute("create or replace temp table pending_resolved (table_name varchar, position varchar)")


def open_positions(connection: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """Where the rows stand that are in quarantine and not resolved."""
    rows = connection.execute(
        f"select distinct position from {CATALOG}.raw_ops.quarantine"
        " where source = ? and table_name = ? and resolved_at is null and position is not null order by all",
        [table.source, table.name],
    ).fetchall()
    return [position for (position,) in rows]


def hold_fitting(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Note which open entries of `table` were read by the landing that just ended, and fit now."""
    if not open_positions(connection, table):
        return
    connection.execute(
        f"""
        insert into pending_resolved
        select distinct kept.table_name, kept.position
        from {CATALOG}.raw_ops.quarantine as kept
        semi join (select {position_sql(table)} as position from seen_keys) as seen on kept.position = seen.position
        anti join (select position from pending_quarantine where table_name = $table_name) as bad
            on kept.position = bad.position
        where kept.source = $source and kept.table_name = $table_name and kept.resolved_at is null
        """,
        {"source": table.source, "table_name": table.name},
    )


def store(connection: duckdb.DuckDBPyConnection) -> None:
    """Record what `pending_quarantine` holds. A bad row that is read again is not counted again, unless it was
    resolved meanwhile, or it or its reason changed; so this is safe to repeat.
    """
    connection.execute(f"""
        insert into {CATALOG}.raw_ops.quarantine by name
        select pending.* from pending_quarantine as pending
        anti join {CATALOG}.raw_ops.quarantine as kept
            on pending.source = kept.source and pending.table_name = kept.table_name
            and pending.position is not distinct from kept.position
            and pending.reason = kept.reason and pending.payload::varchar is not distinct from kept.payload::varchar
            and kept.resolved_at is null
    """)


def resolve(connection: duckdb.DuckDBPyConnection, source: str, at: datetime) -> int:
    """Mark what `pending_resolved` holds. Call once the rows are loaded; returns how many entries were resolved."""
    row = connection.execute(
        f"""
        update {CATALOG}.raw_ops.quarantine as kept set resolved_at = $at::timestamptz
        from pending_resolved as pending
        where kept.source = $source and kept.table_name = pending.table_name
            and kept.position = pending.position and kept.resolved_at is null
        """,
        {"source": source, "at": at.isoformat()},
    ).fetchone()
    return int(row[0]) if row else 0


def alerts(counts: Mapping[str, tuple[int, int]]) -> list[str]:
    """One line per table whose load refused more than the share of what it read: table → (refused, read)."""
    return [
        f"{name}: {refused} of the {read} rows that were read are in quarantine"
        for name, (refused, read) in counts.items()
        if refused > MAX_QUARANTINED_SHARE * read
    ]
