"""Tables written anew inside their database file, so that nothing of the old ones stays readable in it.

Writing the whole file anew (:mod:`warehouse.core.rewrite`) costs in proportion to the file; this, to the tables that
change. DuckDB leaves the blocks of a dropped table as they are until others are written there, and may put small pieces
of two tables into one block. So tables that share a block with a changed one are written anew too, and all room that
is free afterwards is overwritten. That it was is not believed but looked at: each block of the file then belongs to a
live table or to the catalogue, or does not hold what it held.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import duckdb

from warehouse.core.errors import WarehouseError

TableName = tuple[str, str]
"""Schema and table."""
Select = Callable[[str], str]
"""Given where a table's rows are read, SQL: its rows as they are to be."""

_HEADERS = 3 * 4096
"""What stands before a file's first block."""
_MARK = 64
"""So many first bytes of a block tell whether it was written: a nonce of its own, or a checksum of all of it."""
_FILLER = "overwritten_room"
_NUMBERS_A_BLOCK = 32_000
"""A little fewer than fit, so that there are rather too many blocks than too few."""
_BETWEEN_CHECKPOINTS = 256
"""Blocks of replaced tables after which their room is given back: 64 MB."""
_ATTEMPTS = 3


class RoomNotOverwritten(WarehouseError):
    """A block still holds what it held; the file has to be written anew as a whole."""


def replace_tables(
    connection: duckdb.DuckDBPyConnection, path: Path, alias: str, selects: Mapping[TableName, Select]
) -> dict[str, int]:
    """Write tables of an attached database anew, and overwrite what they leave.

    Nobody else may hold the file. Killed, each table is the old one or the new one, and the room may still be readable.

    Args:
        connection: with the database `path` attached as `alias`; spills and memory are its own.
        selects: the tables that change. Those beside them are found here.

    Returns:
        Counts: `tables` written anew, `rows_removed`, `blocks_overwritten`.

    Raises:
        RoomNotOverwritten: a block could not be overwritten.
        duckdb.Error: a table could not be written; it is as it was.
    """
    connection.execute("set preserve_insertion_order = false")
    connection.execute(f"checkpoint {alias}")  # nothing may be left in a log beside the file
    blocks = _blocks(connection, alias)
    changed = _with_neighbours(blocks, selects)
    removed = written = 0
    # the largest first: those after it fit into its room
    for name in sorted(changed, key=lambda one: -len(blocks[one])):
        before, after = replace_table(connection, alias, name, selects.get(name, _as_it_is))
        removed += before - after
        written += len(blocks[name])
        if written >= _BETWEEN_CHECKPOINTS:
            connection.execute(f"checkpoint {alias}")
            written = 0
    untouched = {name: numbers for name, numbers in blocks.items() if name not in changed}
    overwritten = overwrite_room(connection, path, alias, untouched)
    return {"tables": len(changed), "rows_removed": removed, "blocks_overwritten": overwritten}


def read_as(alias: str, name: TableName) -> str:
    """A table of an attached database, in SQL."""
    return f'{alias}."{name[0]}"."{name[1]}"'


def overwrite_room(
    connection: duckdb.DuckDBPyConnection, path: Path, alias: str, untouched: Mapping[TableName, set[int]] | None = None
) -> int:
    """Write something else wherever the file has room; returns the number of blocks.

    Args:
        connection: with the database `path` attached as `alias`.
        untouched: blocks of tables in which nothing was to be removed: asking for them takes a second a gigabyte.

    Raises:
        RoomNotOverwritten: a block that nothing live is in still holds what it held.
    """
    before = _marks(path, _block_size(connection, alias))
    stale: set[int] = set()
    for _ in range(_ATTEMPTS):
        connection.execute(f"checkpoint {alias}")
        room = _one(connection, f"select free_blocks from pragma_database_size() where database_name = '{alias}'")
        try:
            connection.execute("set force_compression = 'uncompressed'")
            connection.execute(
                f"create or replace table {alias}.main.{_FILLER} as "
                f"select range as number from range({(room + 16) * _NUMBERS_A_BLOCK})"
            )
            connection.execute(f"checkpoint {alias}")
        finally:
            connection.execute("set force_compression = 'auto'")
        live = set().union(*_blocks(connection, alias, untouched).values()) | _catalogue_blocks(connection, alias)
        after = _marks(path, _block_size(connection, alias))
        stale = {number for number, mark in before.items() if after.get(number) == mark and number not in live}
        connection.execute(f"drop table {alias}.main.{_FILLER}")
        connection.execute(f"checkpoint {alias}")
        if not stale:
            return room
    raise RoomNotOverwritten(
        f"{len(stale)} blocks of {path.name} could not be overwritten",
        kept=f"{path.name}, in order, with what was deleted still in its room",
        todo="run this again",
    )


def replace_table(
    connection: duckdb.DuckDBPyConnection, alias: str, name: TableName, select: Select
) -> tuple[int, int]:
    """One table, whole or not at all: its columns, constraints and comments stay. Rows before and after.

    What the old one held stays readable in the file.
    """
    schema, table = name
    place = {"alias": alias, "schema": schema, "table": table}
    one = "database_name = $alias and schema_name = $schema and table_name = $table"
    definition, said = connection.execute(f"select sql, comment from duckdb_tables() where {one}", place).fetchall()[0]
    comments = connection.execute(
        f"select column_name, comment from duckdb_columns() where {one} and comment is not null", place
    ).fetchall()
    old = (schema, f"{table}__replaced")
    before = _one(connection, f"select count(*) from {read_as(alias, name)}")
    connection.execute(f"use {alias}.main")
    connection.execute("begin")
    try:
        connection.execute(f'alter table {read_as(alias, name)} rename to "{old[1]}"')
        connection.execute(definition)
        row = connection.execute(f"insert into {read_as(alias, name)} {select(read_as(alias, old))}").fetchone()
        connection.execute(f"drop table {read_as(alias, old)}")
        if said:
            connection.execute(f"comment on table {read_as(alias, name)} is {_text(said)}")
        for column, text in comments:
            connection.execute(f'comment on column {read_as(alias, name)}."{column}" is {_text(text)}')
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    return before, int(row[0]) if row else 0


def _as_it_is(relation: str) -> str:
    return f"select * from {relation}"


def _with_neighbours(blocks: Mapping[TableName, set[int]], changed: Collection[TableName]) -> set[TableName]:
    """The tables, and those that share a block with one of them, and so on."""
    inside: dict[int, list[TableName]] = {}
    for name, numbers in blocks.items():
        for number in numbers:
            inside.setdefault(number, []).append(name)
    found, due = set(changed), list(changed)
    while due:
        for number in blocks[due.pop()]:
            new = [name for name in inside[number] if name not in found]
            found.update(new)
            due += new
    return found


def _blocks(
    connection: duckdb.DuckDBPyConnection, alias: str, known: Mapping[TableName, set[int]] | None = None
) -> dict[TableName, set[int]]:
    """Table → the blocks that its rows are in. It is not asked again of a table whose blocks are `known`."""
    tables = connection.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = ?", [alias]
    ).fetchall()
    found = dict(known or {})
    for schema, table in tables:
        if (schema, table) in found:
            continue
        numbers = connection.execute(
            "select distinct unnest(list_append(additional_block_ids, block_id)) from pragma_storage_info($name)",
            {"name": f'{alias}."{schema}"."{table}"'},
        ).fetchall()
        found[str(schema), str(table)] = {int(number) for (number,) in numbers if number is not None and number >= 0}
    return found


def _catalogue_blocks(connection: duckdb.DuckDBPyConnection, alias: str) -> set[int]:
    return {
        int(row[0]) for row in connection.execute(f"select block_id from pragma_metadata_info('{alias}')").fetchall()
    }


def _marks(path: Path, size: int) -> dict[int, bytes]:
    """Number of a block → its first bytes."""
    found = {}
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for number in range((os.fstat(descriptor).st_size - _HEADERS) // size):
            found[number] = os.pread(descriptor, _MARK, _HEADERS + number * size)
    finally:
        os.close(descriptor)
    return found


def _block_size(connection: duckdb.DuckDBPyConnection, alias: str) -> int:
    return _one(connection, f"select block_size from pragma_database_size() where database_name = '{alias}'")


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
