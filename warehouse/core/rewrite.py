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
Copy = Callable[[duckdb.DuckDBPyConnection], None]


def rewrite(settings: Settings, path: Path, key: str, *, alias: str = OLD, copy: Copy | None = None) -> None:
    """Write an encrypted database into a new file, which takes the old one's place in one step.

    Args:
        settings: whose home; for extensions and spill.
        path: the database. Nobody else may hold it.
        key: of both files.
        alias: what the old one is attached as; its views are bound by this name.
        copy: fills the new database, attached as `NEW`, from the old one; default: everything as it is.

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
        if copy is None:
            connection.execute(f"copy from database {alias} to {NEW}")
        else:
            copy(connection)
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


def copy_tables(
    connection: duckdb.DuckDBPyConnection, alias: str, select: Callable[[str, str], str]
) -> tuple[int, int]:
    """Fill the database `NEW` with the tables of `alias`, each with the rows of `select(schema, table)`, SQL.

    Views come along as they are. Returns how many tables were copied and how many rows were left out.
    """
    connection.execute(f"copy from database {alias} to {NEW} (schema)")
    tables = connection.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = $name order by all", {"name": alias}
    ).fetchall()
    left_out = 0
    for schema, table in tables:
        before = connection.execute(f'select count(*) from {alias}."{schema}"."{table}"').fetchone()
        after = connection.execute(f'insert into {NEW}."{schema}"."{table}" {select(schema, table)}').fetchone()
        left_out += (before or (0,))[0] - (after or (0,))[0]
    return len(tables), left_out


def _remove(new: Path) -> None:
    new.unlink(missing_ok=True)
    new.with_name(new.name + ".wal").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
