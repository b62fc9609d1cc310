"""What DuckDB keeps of deleted rows, and when it is too much.

In memory, for as long as a file is open: 16 KiB for each 2,048 rows of a table of which one is gone. Builds put rows in
no order, so that a single day's deletions lie in nearly every 2,048: a build upon tables of 200 million rows in all has
1.6 GB less for its work. Only a table that is made anew has no deleted rows.

In the file: their room. DuckDB would close such gaps whenever it makes a checkpoint, which costs a day more than all
else that it changes (decision 43). None of our connections does; the file is written anew when a fifth of it is gaps.
"""

from __future__ import annotations

import json

import duckdb

from warehouse.core.database import open_warehouse
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import build_memory

BYTES_A_ROW = 8
MAX_SHARE = 0.25
"""Of a build's memory. At half of it, a day upon five million payments ran out."""
MAX_GAPS = 0.2
"""Of all rows in the file. A day's deletions take 0.3 %, so this comes every two months."""


def deletions_would_crowd_build(settings: Settings) -> bool:
    """Whether the deletions of an incremental build could take more than :data:`MAX_SHARE` of its memory.

    Which models are incremental is read from the manifest of the last build; without one there is nothing to change.
    """
    manifest = Home.of(settings).dbt_target / "manifest.json"
    if not manifest.exists():
        return False
    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    incremental = {
        f"{node['schema']}.{node['alias']}" for node in nodes if node["config"].get("materialized") == "incremental"
    }
    with open_warehouse(settings, read_only=True) as connection:
        rows = sum(size for name, size in _tables(connection) if name in incremental)
        return rows * BYTES_A_ROW > MAX_SHARE * _bytes(connection, build_memory(settings))


def is_full_of_gaps(settings: Settings) -> bool:
    """Whether more than :data:`MAX_GAPS` of the rows in the warehouse's file are deleted. No column is read for it."""
    with open_warehouse(settings, read_only=True) as connection:
        tables = _tables(connection)
        alive = 0
        for name, _ in tables:
            schema, _, table = name.partition(".")
            row = connection.execute(f'select count(*) from {CATALOG}."{schema}"."{table}"').fetchone()
            alive += row[0] if row else 0
    in_file = sum(size for _, size in tables)
    return in_file - alive > MAX_GAPS * in_file


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    """Schema and name of every table, and how many rows the file has of it, by the catalogue: deleted ones, too."""
    found: list[tuple[str, int]] = connection.execute(
        "select schema_name || '.' || table_name, estimated_size from duckdb_tables() where database_name = ?",
        [CATALOG],
    ).fetchall()
    return found


def _bytes(connection: duckdb.DuckDBPyConnection, size: str) -> int:
    row = connection.execute("select parse_formatted_bytes(?)", [size]).fetchone()
    assert row is not None  # noqa: S101 - an expression is a row
    return int(row[0])
