"""Models that are too large to be changed in place, because of what DuckDB remembers of the rows they delete.

For as long as a file is open, 16 KiB for each 2,048 rows of a table of which one is gone. Builds put rows in no order,
so that a single day's deletions lie in nearly every 2,048: a build upon tables of 200 million rows in all has 1.6 GB
less for its work. Only a table that is made anew has no deleted rows.
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


def deletions_would_crowd_build(settings: Settings) -> bool:
    """Whether the deletions of an incremental build could take more than :data:`MAX_SHARE` of its memory.

    Which models are incremental is read from the manifest of the last build; without one there is nothing to change.
    """
    manifest = Home.of(settings).dbt_target / "manifest.json"
    if not manifest.exists():
        return False
    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    incremental = [
        f"{node['schema']}.{node['alias']}" for node in nodes if node["config"].get("materialized") == "incremental"
    ]
    with open_warehouse(settings, read_only=True) as connection:
        return _rows(connection, incremental) * BYTES_A_ROW > MAX_SHARE * _bytes(connection, build_memory(settings))


def _rows(connection: duckdb.DuckDBPyConnection, tables: list[str]) -> int:
    """How many rows these tables hold together, by the catalogue: none is read."""
    row = connection.execute(
        "select coalesce(sum(estimated_size), 0) from duckdb_tables() "
        "where database_name = ? and list_contains(?, schema_name || '.' || table_name)",
        [CATALOG, tables],
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate is a row
    return int(row[0])


def _bytes(connection: duckdb.DuckDBPyConnection, size: str) -> int:
    row = connection.execute("select parse_formatted_bytes(?)", [size]).fetchone()
    assert row is not None  # noqa: S101 - an expression is a row
    return int(row[0])
