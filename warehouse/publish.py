"""Publishing: a second database for readers, swapped in whole.

Readers never meet the writer: they open their own file, encrypted under its own key. A new one is written beside it
and takes its name in one step; whoever has the old one open keeps reading it. A failure leaves the old one in place.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from warehouse.core.database import attach, open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete, WarehouseError
from warehouse.core.keys import file_key
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.replace import TableName, read_as, replace_table, replace_tables
from warehouse.core.settings import CATALOG, Settings

PUBLISHED_SCHEMAS = ("public", "features", "ops")
PUBLISHED_BOOKKEEPING = ("load_manifest", "run_steps")
"""Of `raw_ops`: what was loaded and run, for `warehouse status`. Not `quarantine`, which holds payloads."""

ACCOUNTS = ("ops", "raw_ops")
"""Schemas of what every run adds to, even one that finds nothing new."""

_NEW = "published_new"


@dataclass(frozen=True)
class PublishReport:
    """What was published."""

    path: Path
    published_at: str
    """ISO 8601, UTC."""
    tables: dict[str, int]
    """`public.fct_sales` → rows."""
    bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For run reports and `--json`."""
        return {
            "published_at": self.published_at,
            "tables": self.tables,
            "rows": sum(self.tables.values()),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 2),
        }


def publish(settings: Settings, progress: Progress = silent, *, key: str = "published") -> PublishReport:
    """Copy what readers may see into a new database and put it in place of the old one.

    The caller holds the writer's lock. `key` names the key that the copy is written under.

    Raises:
        ConfigurationError: there is nothing to publish, or a key is missing.
        LoadIncomplete: a copied table does not hold the rows of its original.
        WarehouseError: the copy could not be written, for example because the disk is full.
    """
    started = time.perf_counter()
    target = Home.of(settings).published
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _swapped_in(target) as new:
        tables = _copy(settings, new, key, progress)
    return PublishReport(
        path=target,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        tables=tables,
        bytes=target.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def is_current(settings: Settings) -> bool:
    """Whether the published copy is of what was built last: nothing was built since, and every table is as long."""
    home = Home.of(settings)
    if not home.published.exists() or not home.build_state.exists():
        return False
    if home.build_state.stat().st_mtime > home.published.stat().st_mtime:
        return False
    with open_warehouse(settings, read_only=True) as connection:
        attach(connection, home.published, _NEW, file_key(settings, "published"), read_only=True)
        names = _publishable(connection)
        copied = connection.execute(
            "select schema_name, table_name from duckdb_tables() where database_name = ? order by all", [_NEW]
        ).fetchall()
        return copied == names and all(
            _rows(connection, read_as(CATALOG, name)) == _rows(connection, read_as(_NEW, name))
            for name in names
            if name[0] != "raw_ops"  # a run goes on being told of after it has published
        )


def publish_tables(settings: Settings, changed: Collection[TableName]) -> int:
    """Publish some tables of the warehouse again, in a copy of the published file that then takes its place.

    The others stay as they are: ask :func:`is_current` before they change. The caller holds the writer's lock. Of what
    the tables held before nothing is left in the file.

    Returns:
        How many were written anew.

    Raises:
        WarehouseError: a table does not fit, or could not be written. The published copy is as it was.
    """
    target = Home.of(settings).published
    with _swapped_in(target) as new:
        shutil.copy(target, new)  # with its mode: nobody else may read it meanwhile
        with open_warehouse(settings, read_only=True, memory_limit=settings.memory_limit) as connection:
            attach(connection, new, _NEW, file_key(settings, "published"))
            done = replace_tables(connection, new, _NEW, {name: partial(_from_warehouse, name) for name in changed})
            connection.execute("use memory.main")
            connection.execute(f"detach {_NEW}")
    return done["tables"]


def publish_accounts(settings: Settings) -> list[TableName]:
    """Publish the accounts of loads and runs anew, where nothing else is: ask :func:`is_current` before they change.

    They hold nothing of a person, so what is left of the old ones in the file need not be overwritten.

    Returns:
        What was written anew, in a copy of the published file that has taken its place.

    Raises:
        WarehouseError: the copy could not be written. The published one is as it was.
    """
    target = Home.of(settings).published
    with _swapped_in(target) as new:
        shutil.copy(target, new)
        with open_warehouse(settings, read_only=True, memory_limit=settings.memory_limit) as connection:
            attach(connection, new, _NEW, file_key(settings, "published"))
            accounts = [name for name in _publishable(connection) if name[0] in ACCOUNTS]
            for name in accounts:
                replace_table(connection, _NEW, name, partial(_from_warehouse, name))
            connection.execute("use memory.main")
            connection.execute(f"detach {_NEW}")
    return accounts


@contextmanager
def _swapped_in(target: Path) -> Iterator[Path]:
    """Where a new copy is to be written. Complete, it takes the place of `target`; otherwise that is as it was.

    Raises:
        WarehouseError: the copy could not be written.
    """
    new = new_copy(target)
    _remove(new)
    try:
        yield new
        new.chmod(0o600)
        new.replace(target)
        _sync(target.parent)
    except (duckdb.Error, OSError) as error:
        raise _write_error(error, target) from None
    finally:
        _remove(new)


def _from_warehouse(name: TableName, _: str) -> str:
    return f"select * from {read_as(CATALOG, name)}"


def _rows(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = connection.execute(f"select count(*) from {relation}").fetchone()
    return int(row[0]) if row else 0


def new_copy(published: Path) -> Path:
    """Where the next copy is written; found there after a run, it is what a killed one left behind."""
    return published.with_name(published.name + ".new")


def _copy(settings: Settings, new: Path, key: str, progress: Progress) -> dict[str, int]:
    with open_warehouse(settings, read_only=True, memory_limit=settings.memory_limit) as connection:
        names = _publishable(connection)
        if not any(schema == "public" for schema, _ in names):
            raise ConfigurationError(
                "there is nothing to publish: the warehouse has no marts yet",
                kept="the published copy, if there is one",
                todo="run `warehouse build` first",
            )
        attach(connection, new, _NEW, file_key(settings, key))
        connection.execute("begin")  # one snapshot: a table never shows rows that its neighbour does not know of
        tables: dict[str, int] = {}
        for number, (schema, table) in enumerate(names, start=1):
            progress(f"{schema}.{table} ({number} of {len(names)})")
            tables[f"{schema}.{table}"] = _copy_table(connection, schema, table)
        connection.execute("commit")
        _describe(connection, names, Home.of(settings).dbt_target / "manifest.json")
        connection.execute(f"detach {_NEW}")
    return tables


def _publishable(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return connection.execute(
        """
        select table_schema, table_name
        from information_schema.tables
        where table_catalog = $catalog
            and (
                table_schema in (select unnest($schemas))
                or (table_schema = 'raw_ops' and table_name in (select unnest($bookkeeping)))
            )
        order by table_schema, table_name
        """,
        {"catalog": CATALOG, "schemas": list(PUBLISHED_SCHEMAS), "bookkeeping": list(PUBLISHED_BOOKKEEPING)},
    ).fetchall()


def _copy_table(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> int:
    """Copy one table, or what a view shows; its rows, counted on both sides."""
    original, copy = f'{CATALOG}."{schema}"."{table}"', f'{_NEW}."{schema}"."{table}"'
    connection.execute(f'create schema if not exists {_NEW}."{schema}"')
    connection.execute(f"create table {copy} as select * from {original}")
    counts = connection.execute(f"select (select count(*) from {original}), (select count(*) from {copy})").fetchone()
    assert counts is not None  # noqa: S101  # a select without from has one row
    if counts[0] != counts[1]:
        raise LoadIncomplete(
            f"{schema}.{table} was copied with {counts[1]} of its {counts[0]} rows",
            kept="the published copy of the last run",
            todo="run `warehouse publish` again; if it repeats, run `warehouse doctor`",
        )
    rows: int = counts[0]
    return rows


def _describe(connection: duckdb.DuckDBPyConnection, names: list[tuple[str, str]], manifest: Path) -> None:
    """Carry the descriptions of dbt's manifest over as comments, so that `describe` tools show them."""
    try:
        nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    except (FileNotFoundError, json.JSONDecodeError):
        return
    existing = {
        (schema, table, column)
        for schema, table, column in connection.execute(
            "select schema_name, table_name, column_name from duckdb_columns() where database_name = ?", [_NEW]
        ).fetchall()
    }
    for node in nodes:
        place = (node["schema"], node.get("alias"))
        if place not in names:
            continue
        relation = f'{_NEW}."{place[0]}"."{place[1]}"'
        if node["description"]:
            connection.execute(f"comment on table {relation} is {_text(node['description'])}")
        for name, column in node["columns"].items():
            if column["description"] and (*place, name) in existing:
                connection.execute(f'comment on column {relation}."{name}" is {_text(column["description"])}')


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _remove(new: Path) -> None:
    new.unlink(missing_ok=True)
    new.with_name(new.name + ".wal").unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the swap survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(error: Exception, target: Path) -> WarehouseError:
    kept = "nothing was published before"
    if target.exists():
        since = datetime.fromtimestamp(target.stat().st_mtime, UTC)
        kept = f"the copy published on {since:%Y-%m-%d at %H:%M} UTC stays readable"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or any(sign in str(error) for sign in ("No space left", "File too large", "quota exceeded")):
        return WarehouseError(
            "the published copy could not be written: no space left on the disk",
            kept=kept,
            todo=f"free space below {target.parent}, then run `warehouse publish`",
        )
    return WarehouseError(
        f"the published copy could not be written: {type(error).__name__}",
        kept=kept,
        todo="run `warehouse doctor`, then `warehouse publish`",
    )
