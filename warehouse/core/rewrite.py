"""A database file written anew: what is deleted from a DuckDB file stays readable in it until then."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import duckdb

from warehouse.core.database import attach, blank_connection
from warehouse.core.errors import WarehouseError
from warehouse.core.settings import Settings

OLD, NEW = "rewrite_old", "rewrite_new"
RowsOf = Callable[[str, str], str]
"""Given schema and table, SQL: the rows that go into the new file."""
Prepare = Callable[[duckdb.DuckDBPyConnection], RowsOf]
"""Given the connection, with the old database attached: makes temporary tables, or none."""

REMEMBERED_A_ROW = 8
"""Bytes that DuckDB holds, until it closes a file, for each row of a table in which rows were deleted."""
_MOST_REMEMBERED = 32_000_000
"""Bytes of it, after which the old file is opened again: all of a large company's would be more than memory."""


def rewrite(
    settings: Settings, path: Path, key: str, *, alias: str = OLD, prepare: Prepare | None = None
) -> tuple[int, int]:
    """Write an encrypted database into a new file, which takes the old one's place in one step.

    Args:
        settings: whose home; for extensions and spill.
        path: the database. Nobody else may hold it.
        key: of both files.
        alias: what the old one is attached as; its views are bound by this name.
        prepare: says which rows of each table stay; default: all.

    Returns:
        How many tables were copied, and how many rows were left out.

    Raises:
        WarehouseError: it could not be written; the old file stays.
    """
    new = path.with_name(path.name + ".new")
    _remove(new)
    connection = blank_connection(settings, memory_limit=settings.memory_limit)
    try:
        attach(connection, path, alias, key)
        connection.execute(f"checkpoint {alias}")  # nothing may be left in a log beside the file
        attach(connection, new, NEW, key)
        select = prepare(connection) if prepare else lambda schema, table: f'select * from {alias}."{schema}"."{table}"'
        connection.execute(f"copy from database {alias} to {NEW} (schema)")
        tables = connection.execute(
            "select schema_name, table_name, estimated_size from duckdb_tables() where database_name = $name "
            "order by all",
            {"name": alias},
        ).fetchall()
        left_out = remembered = 0
        for schema, table, size in tables:
            of_this = size * REMEMBERED_A_ROW
            remembered += of_this
            if remembered > _MOST_REMEMBERED:
                connection.execute(f"detach {alias}")
                attach(connection, path, alias, key)
                remembered = of_this
            left_out += _copy(
                connection, f'{alias}."{schema}"."{table}"', f'"{schema}"."{table}"', select(schema, table)
            )
        connection.execute(f"detach {NEW}")
        connection.execute(f"detach {alias}")
        new.chmod(0o600)
        _sync(new)
        path.with_name(path.name + ".wal").unlink(missing_ok=True)
        new.replace(path)
        _sync(path.parent)
    except (duckdb.Error, OSError) as error:
        raise WarehouseError(
            f"{path.name} could not be written anew ({type(error).__name__})",
            kept=f"{path.name} as it was",
            todo="look for a full disk: the new file needs as much room as the old one; then run this again",
        ) from None
    finally:
        connection.close()
        _remove(new)
    return len(tables), left_out


def _copy(connection: duckdb.DuckDBPyConnection, old: str, table: str, rows: str) -> int:
    """Fill one table; returns how many rows were left out."""
    before = connection.execute(f"select count(*) from {old}").fetchone()
    after = connection.execute(f"insert into {NEW}.{table} {rows}").fetchone()
    return int((before or (0,))[0] - (after or (0,))[0])


def _remove(new: Path) -> None:
    new.unlink(missing_ok=True)
    new.with_name(new.name + ".wal").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
