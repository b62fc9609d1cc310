"""What DuckDB keeps of deleted rows, and when it is too much.

In memory, for as long as a file is open: 16 KiB for each 2,048 rows of a table of which one is gone. Builds put rows in
no order, so that a single day's deletions lie in nearly every 2,048: a build upon tables of 200 million rows in all has
1.6 GB less for its work. Only a table that is made anew has no deleted rows.

In the file: their room. DuckDB would close such gaps whenever it makes a checkpoint, which costs a day more than all
else that it changes (decision 43). None of our connections does; the file is written anew when a fifth of it is gaps.
"""

from __future__ import annotations

from collections.abc import Collection

import duckdb

from warehouse.core.database import open_warehouse
from warehouse.core.errors import WarehouseError
from warehouse.core.keys import warehouse_key
from warehouse.core.paths import Home
from warehouse.core.rewrite import REMEMBERED_A_ROW, rewrite
from warehouse.core.settings import CATALOG, Settings
from warehouse.dbt import build_memory

MAX_SHARE = 0.25
"""Of a build's memory. At half of it, a day upon five million payments ran out."""
MAX_GAPS = 0.2
"""Of all rows in the file. A day's deletions take 0.3 %, so this comes every two months."""


def remembered_by_table(settings: Settings, changed: Collection[str]) -> dict[str, int]:
    """Bytes that a build may hold for a table: for those that it changes, and for any that has deleted rows already.

    Tables, also of `changed`, are named with their schema.
    """
    with open_warehouse(settings, read_only=True) as connection:
        return {
            name: rows * REMEMBERED_A_ROW
            for name, rows in _tables(connection)
            if name in changed or _alive(connection, name) < rows
        }


def most_remembered(settings: Settings) -> int:
    """How many bytes of it leave enough memory for a build's own work."""
    with duckdb.connect() as connection:
        row = connection.execute("select parse_formatted_bytes(?)", [build_memory(settings)]).fetchone()
    assert row is not None  # noqa: S101 - an expression is a row
    return int(MAX_SHARE * row[0])


def is_full_of_gaps(settings: Settings) -> bool:
    """Whether more than :data:`MAX_GAPS` of the rows in the warehouse's file are deleted. No column is read for it."""
    with open_warehouse(settings, read_only=True) as connection:
        tables = _tables(connection)
        alive = sum(_alive(connection, name) for name, _ in tables)
    in_file = sum(rows for _, rows in tables)
    return in_file - alive > MAX_GAPS * in_file


def rewrite_if_due(settings: Settings) -> str | None:
    """After a build: write the warehouse's file anew where retention asks for it, or it is full of gaps.

    Nobody else may hold it. Returns what was done, in words; None when nothing was due. That gaps could not be closed,
    on a full disk for example, stops nobody: it is tried again after the next build. What retention asks for must be.

    Raises:
        WarehouseError: what retention has deleted is still in the file.
    """
    home = Home.of(settings)
    asked = home.rewrite_due.exists()
    if not asked and not is_full_of_gaps(settings):
        return None
    try:
        rewrite(settings, home.warehouse, warehouse_key(settings), alias=CATALOG)
    except WarehouseError as error:
        if asked:
            raise
        return f"keeps the room of deleted rows: {error.what}; {error.todo}"
    home.rewrite_due.unlink(missing_ok=True)
    return "written anew, without the room of deleted rows"


def _tables(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    """Schema and name of every table, and how many rows the file has of it, by the catalogue: deleted ones, too."""
    found: list[tuple[str, int]] = connection.execute(
        "select schema_name || '.' || table_name, estimated_size from duckdb_tables() where database_name = ?",
        [CATALOG],
    ).fetchall()
    return found


def _alive(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    schema, _, table = name.partition(".")
    row = connection.execute(f'select count(*) from {CATALOG}."{schema}"."{table}"').fetchone()
    assert row is not None  # noqa: S101 - a count is a row
    return int(row[0])
