"""What a killed run left in the lake: settled before anything else is done with it.

A load is sealed before the warehouse commits it, and marked afterwards. Between the two a run can die, so each load
without the mark is compared with the warehouse: committed, it gets its mark; not committed, it is discarded, because
no position moved with it and its rows are read again.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from ingestion.lake import Lake
from ingestion.raw import raw_table_names
from ingestion.schema import Table
from ingestion.versions import LATE
from warehouse.core.settings import CATALOG


def settle(connection: duckdb.DuckDBPyConnection, lake: Lake, pinned: Iterable[Table]) -> list[str]:
    """Leave no load of these tables in doubt. Call when no package is pending; the raw tables exist.

    Returns `<table>/<load_id>` of what was discarded.
    """
    discarded = []
    for table in pinned:
        discarded += [f"{table.name}/{load_id}" for load_id in lake.discard_unsealed(table.source, table.name)]
        for load_id in lake.unsettled(table.source, table.name):
            if _committed(connection, table, load_id):
                lake.mark_loaded(table.source, table.name, load_id)
            else:
                lake.discard(table.source, table.name, load_id)
                discarded.append(f"{table.name}/{load_id}")
    return discarded


def _committed(connection: duckdb.DuckDBPyConnection, table: Table, load_id: str) -> bool:
    """Whether the warehouse has the load: in its manifest, or (killed before that was written) in the raw tables."""
    known = " union all ".join(
        (
            f"select 1 from {CATALOG}.raw_ops.load_manifest"
            " where source = $source and table_name = $table_name and load_id = $load_id",
            *(
                f'select 1 from {CATALOG}.{table.raw_schema}."{name}" where _load_id in ($load_id, $late)'
                for name in raw_table_names(table)
            ),
        )
    )
    found = connection.execute(
        f"select 1 from ({known}) limit 1",
        {"source": table.source, "table_name": table.name, "load_id": load_id, "late": LATE + load_id},
    ).fetchone()
    return found is not None
