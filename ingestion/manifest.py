"""One row per table and load: what was counted at the source, what became of it, how long it took.

Written even when nothing was new, because "nothing new at 09:14" is what freshness is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ingestion.lake import parts_sql
from ingestion.landing import Counts
from ingestion.schema import Table
from ingestion.sources import Plan
from warehouse.core.settings import CATALOG


@dataclass(frozen=True)
class TableLoad:
    """One table in one load."""

    table: Table
    load_id: str
    plan: Plan
    counts: Counts
    started_at: datetime
    finished_at: datetime


def record(connection: duckdb.DuckDBPyConnection, run_id: str, loads: Sequence[TableLoad]) -> None:
    """Append the manifest rows of one source's load, all of them or none."""
    connection.execute("begin")
    for load in loads:
        amount_sum, checksum = _sums(connection, load)
        counts = load.counts
        connection.execute(
            f"insert into {CATALOG}.raw_ops.load_manifest by name select "
            "$load_id as load_id, $run_id as run_id, $source as source, $table_name as table_name, $mode as mode, "
            "'completed' as status, $started_at::timestamptz as started_at, $finished_at::timestamptz as finished_at, "
            "$source_rows as source_rows, $unchanged as unchanged_rows, $landed as landed_rows, "
            "$deleted as deleted_rows, "
            "$quarantined as quarantined_rows, $unknown as unknown_keys, $amount_sum::decimal(38, 4) as amount_sum, "
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


def _sums(connection: duckdb.DuckDBPyConnection, load: TableLoad) -> tuple[str | None, str | None]:
    """Sum of the table's amount (all currencies: a checksum, not money) and an order-free checksum of the rows."""
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
        f"select {amount}::varchar, bit_xor(md5_number_lower(_row_hash))::varchar from {parts}"
    ).fetchone()
    return (row[0], row[1]) if row else (None, None)
