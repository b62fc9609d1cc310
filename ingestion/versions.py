"""Versions of rows across sealed loads: the lake's loads as relations, and which version of a key is the last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import duckdb

from ingestion.lake import LakePath, SealedLoad, parts_sql
from ingestion.schema import Table
from warehouse.core.errors import LoadIncomplete

VERSION = "_load_id"
"""Loads follow each other: of two versions of a key, the one of the later load is the newer."""

LATE = "0_"
"""Begins the `_load_id` of a version that was older than the current one when it landed, from an export that was
dropped late. It sorts before every load, so that such a version is history wherever versions are put in order."""
CURRENT = f"{VERSION} >= '1'"
"""SQL: whether a landed row may become current; load ids begin with a year."""


def keys_sql(table: Table, alias: str = "") -> str:
    """The key columns, comma-separated."""
    prefix = f"{alias}." if alias else ""
    return ", ".join(f'{prefix}"{key}"' for key in table.key)


def loads_sql(connection: duckdb.DuckDBPyConnection, table: Table, loads: Sequence[SealedLoad]) -> str:
    """SQL: every row of `loads` in the pinned columns, null where a load is older than a column.

    Raises:
        LoadIncomplete: a file cannot be read, or a column has another type than the pinned one, or the rows are not
            those that were sealed.
    """
    selects = []
    shaped = sorted((load for load in loads if load.files), key=_shape)
    for _, group in groupby(shaped, key=_shape):
        alike = list(group)
        files = [file.path for load in alike for file in load.files]
        select = f"select {_columns(connection, table, alike[0], files[:1])} from {parts_sql(files)}"
        counted = _counted(connection, table, files)
        sealed = sum(load.rows for load in alike)
        if counted != sealed:
            raise _damaged(table, f"holds {counted} rows in loads that were sealed with {sealed}")
        selects.append(select)
    if not selects:
        return "select " + ", ".join(f'null::{kind} as "{name}"' for name, kind in table.landed_columns) + " limit 0"
    return " union all ".join(selects)


def last_sql(table: Table, relation: str) -> str:
    """SQL: key columns and, as `_last`, the load of the newest version of each key in `relation`."""
    return f"select {keys_sql(table)}, max({VERSION}) as _last from ({relation}) group by {keys_sql(table)}"


def _shape(load: SealedLoad) -> str:
    return str(load.manifest.get("schema_fingerprint", ""))


def _columns(connection: duckdb.DuckDBPyConnection, table: Table, load: SealedLoad, files: Sequence[LakePath]) -> str:
    try:
        described = connection.execute(f"describe select * from {parts_sql(files)}").fetchall()
    except duckdb.Error as error:
        raise _damaged(table, f"cannot be read in load {load.load_id} ({type(error).__name__})") from None
    found = {name: kind.lower() for name, kind, *_ in described}
    changed = sorted(name for name, kind in table.landed_columns if found.get(name, kind) != kind)
    if changed:
        raise _damaged(table, f"has another type in load {load.load_id} for {', '.join(changed)}")
    return ", ".join(
        f'"{name}"' if name in found else f'null::{kind} as "{name}"' for name, kind in table.landed_columns
    )


def _counted(connection: duckdb.DuckDBPyConnection, table: Table, files: Sequence[LakePath]) -> int:
    try:
        row = connection.execute(f"select count(*) from {parts_sql(files)}").fetchone()
    except duckdb.Error as error:
        raise _damaged(table, f"cannot be read ({type(error).__name__})") from None
    return int(row[0]) if row else 0


def _damaged(table: Table, problem: str) -> LoadIncomplete:
    return LoadIncomplete(
        f"the lake's {table.source}/{table.name} {problem}",
        kept="the raw tables and the lake, unchanged",
        todo="restore the lake's files, and the keys that belong to them, from your backup",
    )
