"""One row per table and load: what was counted at the source, what became of it, how long it took.

Written even when nothing was new, because "nothing new at 09:14" is what freshness is measured on.

The rows are prepared before the load and moved into the manifest after it. The position that the load commits names
the load (:data:`COMMITTED`), so that the next run knows of rows still waiting whether their load is in the warehouse:
then they are recorded, once; otherwise the load was discarded, and they go with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from ingestion.lake import parts_sql, sql_text
from ingestion.landing import Counts
from ingestion.schema import SourceName, Table
from ingestion.sources import Plan
from warehouse.core.settings import CATALOG

COMMITTED = "_load"
"""Where a source's state names the load that it was committed with."""
_MANIFEST = f"{CATALOG}.raw_ops.load_manifest"
_PREPARED = f"{CATALOG}.raw_ops.prepared_loads"
_DROPPED = "mode = 'drop'"
"""What tells the loads of file drops from those of the live source."""


@dataclass(frozen=True)
class TableLoad:
    """One table in one load."""

    table: Table
    load_id: str
    plan: Plan
    counts: Counts
    started_at: datetime
    finished_at: datetime


def prepare(connection: duckdb.DuckDBPyConnection, run_id: str, loads: Sequence[TableLoad]) -> None:
    """Write down the manifest rows of one source's load before it is loaded, all of them or none."""
    connection.execute("begin")
    for load in loads:
        amount_sum, checksum = _sums(connection, load)
        counts = load.counts
        counts.unknown_events = _unknown_events(connection, load)
        connection.execute(
            f"insert into {_PREPARED} by name select "
            "$load_id as load_id, $run_id as run_id, $source as source, $table_name as table_name, $mode as mode, "
            "'completed' as status, $started_at::timestamptz as started_at, $finished_at::timestamptz as finished_at, "
            "$source_rows as source_rows, $unchanged as unchanged_rows, $landed as landed_rows, "
            "$deleted as deleted_rows, "
            "$quarantined as quarantined_rows, $unknown as unknown_keys, "
            "$unknown_events as unknown_events, $amount_sum::decimal(38, 4) as amount_sum, "
            "$checksum as key_checksum, $cursor_from as cursor_from, $cursor_to as cursor_to, "
            "$fingerprint as schema_fingerprint, $files as lake_files, $bytes as lake_bytes",
            {
                "load_id": load.load_id,
                "run_id": run_id,
                "source": load.table.source,
                "table_name": load.table.name,
                "mode": load.plan.mode,
                "started_at": load.started_at.isoformat(),
                "finished_at": load.finished_at.isoformat(),
                "source_rows": counts.source_rows,
                "unchanged": counts.unchanged_rows,
                "landed": counts.landed_rows,
                "deleted": counts.deleted_rows,
                "quarantined": counts.quarantined_rows,
                "unknown": counts.unknown_keys,
                "unknown_events": counts.unknown_events,
                "amount_sum": amount_sum,
                "checksum": checksum,
                "cursor_from": load.plan.cursor_from,
                "cursor_to": counts.cursor_to,
                "fingerprint": load.table.fingerprint,
                "files": len(counts.files),
                "bytes": sum(path.stat().st_size for path in counts.files),
            },
        )
    connection.execute("commit")


def record(connection: duckdb.DuckDBPyConnection, load_id: str) -> int:
    """Move the prepared rows of a load into the manifest; returns how many. Safe to repeat."""
    connection.execute("begin")
    row = connection.execute(
        f"insert into {_MANIFEST} by name from {_PREPARED} where load_id = ?", [load_id]
    ).fetchone()
    connection.execute(f"delete from {_PREPARED} where load_id = ?", [load_id])
    connection.execute("commit")
    return int(row[0]) if row else 0


def settle(
    connection: duckdb.DuckDBPyConnection, source: SourceName, committed: Collection[str], *, dropped: bool = False
) -> int:
    """Record what a killed run left prepared, if its load is committed, and forget the rest; returns how many rows.

    Args:
        committed: the loads that the position of the source's channel names. Call when no package is pending.
        dropped: of file drops, not of the live source.
    """
    mine = f"source = ? and {_DROPPED if dropped else f'not ({_DROPPED})'}"
    waiting = connection.execute(f"select distinct load_id from {_PREPARED} where {mine}", [source]).fetchall()
    recorded = sum(record(connection, load_id) for (load_id,) in waiting if load_id in committed)
    if waiting:
        connection.execute(f"delete from {_PREPARED} where {mine}", [source])
    return recorded


def committed_load(state: Mapping[str, Any]) -> tuple[str, ...]:
    """The load that a live source's state was committed with."""
    return (state[COMMITTED],) if COMMITTED in state else ()


def _unknown_events(connection: duckdb.DuckDBPyConnection, load: TableLoad) -> int:
    """How many of the landed rows no model understands; a tombstone has no type to be unknown."""
    if not load.table.known or not load.counts.files:
        return 0
    unknown = " or ".join(
        f"coalesce(json_extract_string(document, {sql_text('$.' + key)}), '') not in "
        f"({', '.join(sql_text(value) for value in values)})"
        for key, values in load.table.known
    )
    row = connection.execute(
        f"select count(*) from {parts_sql(tuple(load.counts.files))} where document is not null and ({unknown})"
    ).fetchone()
    return int(row[0]) if row else 0


def _sums(connection: duckdb.DuckDBPyConnection, load: TableLoad) -> tuple[str | None, str | None]:
    """Sum of the table's amount (all currencies: a checksum, not money) and an order-free checksum of the rows.

    Both are read back from what was written. A row's hash is a digest already: 60 bits of it are added up as they are.
    Of the result a digest is kept: a number of so many digits can pass for a card's, and a search would find it.
    """
    if not load.counts.files:
        return None, None
    amount = "null"
    if load.table.amount:
        value = (
            f"json_extract_string(document, '$.{load.table.amount}')" if load.table.is_document else load.table.amount
        )
        amount = f"sum(try_cast({value} as decimal(18, 4)))"
    parts = parts_sql(tuple(load.counts.files))
    row = connection.execute(
        f"select {amount}::varchar, md5(bit_xor(('0x' || left(_row_hash, 15))::bigint)::varchar) from {parts}"
    ).fetchone()
    return (row[0], row[1]) if row else (None, None)
