"""When what DuckDB keeps of deleted rows is a reason to build the incremental models anew.

For as long as a file is open, 16 KiB for each 2,048 rows of a table of which one is gone. Builds put rows in no order,
so that a single day's deletions lie in nearly every 2,048: a build upon tables of 200 million rows in all has 1.6 GB
less for its work. In the file, the rows themselves stay: to merge what is left of them costs more each day than all
else that the day changes (decision 43). A table that is made anew has neither.
"""

from __future__ import annotations

import json

import duckdb

from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import build_memory

BYTES_A_ROW = 8
MAX_MEMORY_SHARE = 0.25
"""Of a build's memory. At half of it, a day upon five million payments ran out."""
MAX_ROOM_SHARE = 0.2
"""Of the rows in the file. A day's deletions take 0.3 %, so this comes every two months."""


def reason_to_build_anew(settings: Settings) -> str | None:
    """Why an incremental build should be a full one, in words for the run report; None where it should not.

    Which models are incremental is read from the manifest of the last build; without one there is nothing to change.
    """
    manifest = Home.of(settings).dbt_target / "manifest.json"
    if not manifest.exists():
        return None
    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    incremental = [
        f"{node['schema']}.{node['alias']}" for node in nodes if node["config"].get("materialized") == "incremental"
    ]
    with open_warehouse(settings, read_only=True) as connection:
        in_file, alive = _rows(connection, incremental)
        memory = _bytes(connection, build_memory(settings))
    if in_file * BYTES_A_ROW > MAX_MEMORY_SHARE * memory:
        return f"what is remembered of deleted rows could take more than {MAX_MEMORY_SHARE:.0%} of the build's memory"
    if in_file - alive > MAX_ROOM_SHARE * in_file:
        return f"{(in_file - alive) / in_file:.0%} of the incremental models' rows are deleted: their room comes back"
    return None


def _rows(connection: duckdb.DuckDBPyConnection, tables: list[str]) -> tuple[int, int]:
    """How many rows the file has of these tables together, and how many of them are not deleted: no column is read."""
    found = connection.execute(
        'select format(\'{}."{}"."{}"\', database_name, schema_name, table_name), estimated_size from duckdb_tables() '
        "where database_name = ? and list_contains(?, schema_name || '.' || table_name)",
        [CATALOG, tables],
    ).fetchall()
    counted = [connection.execute(f"select count(*) from {table}").fetchone() for table, _ in found]
    return sum(size for _, size in found), sum(row[0] for row in counted if row)


def _bytes(connection: duckdb.DuckDBPyConnection, size: str) -> int:
    row = connection.execute("select parse_formatted_bytes(?)", [size]).fetchone()
    assert row is not None  # noqa: S101 - an expression is a row
    return int(row[0])
