"""Landed tokens under a new key: in the lake, the raw tables and the quarantine, with the row hashes that cover them.

Nothing here needs a value: a token of the new version is made from the old one (`warehouse.privacy.tokens`). Each load
of the lake is replaced by one with the same rows, as compaction does it; the raw tables change in one transaction. Both
leave alone what is done already, so a killed rotation is taken up by running it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from ingestion.compaction import fresh_id
from ingestion.erasure import LEDGER
from ingestion.lake import Lake, SealedLoad, write_part
from ingestion.raw import raw_table_names
from ingestion.retention import HELD
from ingestion.schema import BOOKKEEPING, Table, all_tables, row_hash_sql
from ingestion.versions import loads_sql
from warehouse.core.errors import LoadIncomplete
from warehouse.core.progress import Progress
from warehouse.core.settings import CATALOG

TOKEN_VERSION = "token_version"  # noqa: S105  # a name
"""In a seal: the version of the tokens in the load; 1 where it says nothing."""


@dataclass(frozen=True)
class Rekeyed:
    """What was rewritten."""

    loads: int
    lake_rows: int
    raw_rows: int
    quarantined_rows: int


def rekey(connection: duckdb.DuckDBPyConnection, lake: Lake, version: int, progress: Progress) -> Rekeyed:
    """Move everything landed to tokens of `version`. The connection knows `rekeyed()` and the lake's key.

    The caller holds the writer's lock and has left nothing in flight.

    Raises:
        LoadIncomplete: a sealed file is missing or changed, or a rewritten load does not hold the rows of the old one.
    """
    loads = lake_rows = 0
    for table in all_tables():
        if not rekeyed_columns(table):
            continue
        for load in lake.sealed_loads(table.source, table.name):
            if int(load.manifest.get(TOKEN_VERSION, 1)) < version and load.files:
                progress(f"lake: {table.qualified}, {load.load_id}")
                _replace(connection, lake, table, load, version)
                loads, lake_rows = loads + 1, lake_rows + load.rows
        lake.discard_replaced(table.source, table.name)
    progress("raw tables")
    connection.execute("begin")
    raw = sum(
        _update(connection, f'{CATALOG}.{table.raw_schema}."{name}"', _changes(table), version)
        for table in all_tables()
        if rekeyed_columns(table)
        for name in raw_table_names(table)
    )
    payload = {"payload": "rekeyed(payload::varchar)::json"}
    quarantined = _update(connection, f"{CATALOG}.raw_ops.quarantine", payload, version)
    # who was erased is known there by tokens: under the old key they would come back
    for column in ("subject_token", "row_key_token"):
        _update(connection, LEDGER, {column: f"rekeyed({column})"}, version)
    for column in ("party_token", "payment_token"):
        _update(connection, HELD, {column: f"rekeyed({column})"}, version)
    connection.execute("commit")
    return Rekeyed(loads, lake_rows, raw, quarantined)


def rekeyed_columns(table: Table) -> list[str]:
    """The landed columns that may hold tokens: those of a flat table by name, all text of documents."""
    bookkeeping = {name for name, _ in BOOKKEEPING}
    return [
        name
        for name, sql_type in table.landed_columns
        if name not in bookkeeping
        and sql_type in {"varchar", "json"}
        and (table.is_document or name.endswith("_token"))
    ]


def _changes(table: Table) -> dict[str, str]:
    """Column → SQL of what it becomes."""
    types = dict(table.landed_columns)
    changed = {
        name: f'rekeyed("{name}"::varchar)::json' if types[name] == "json" else f'rekeyed("{name}")'
        for name in rekeyed_columns(table)
    }
    old, new = row_hash_sql(table), row_hash_sql(table, changed)
    changed["_row_hash"] = f"""case
        when _row_hash = {old} then {new}
        when _row_hash = md5('deleted' || {old}) then md5('deleted' || {new})
        else _row_hash -- landed in an older shape: it is compared anew either way
    end"""
    return changed


def _replace(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, load: SealedLoad, version: int) -> None:
    load.verify()
    changed = _changes(table)
    columns = ", ".join(f'{changed.get(name, quoted(name))} as "{name}"' for name, _ in table.landed_columns)
    load_id = fresh_id(lake, table, [load])
    path = lake.part_path(table.source, table.name, load_id, 0)
    rows = write_part(connection, f"select {columns} from ({loads_sql(connection, table, [load])})", path)
    if rows != load.rows:
        lake.discard(table.source, table.name, load_id)
        raise LoadIncomplete(
            f"the rewritten load of {table.source}/{table.name} holds {rows} of {load.rows} rows",
            kept="the old load; the rewritten one was discarded",
            todo="run this again; if it repeats, check the disk",
        )
    if load.loaded:
        lake.mark_loaded(table.source, table.name, load_id)
    facts = {name: value for name, value in load.manifest.items() if name != "files"}
    facts |= {
        "rows": {path.name: rows},
        "schema_fingerprint": table.fingerprint,
        "replaces": [load.load_id],
        TOKEN_VERSION: version,
    }
    lake.seal(table.source, table.name, load_id, facts)


def _update(connection: duckdb.DuckDBPyConnection, relation: str, changes: dict[str, str], version: int) -> int:
    old = f"v{version - 1}:"
    held = " or ".join(f"contains({quoted(name)}::varchar, '{old}')" for name in changes if name != "_row_hash")
    changed = ", ".join(f"{quoted(name)} = {sql}" for name, sql in changes.items())
    row = connection.execute(f"update {relation} set {changed} where {held}").fetchone()
    return int(row[0]) if row else 0


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return f'"{name}"'


def occurrences_sql(connection: duckdb.DuckDBPyConnection, lake: Lake, tables: Sequence[Table], token: str) -> str:
    """SQL: (place, token) for every token in the raw tables and the lake; `token` is the regular expression."""
    parts = []
    for table in tables:
        columns = rekeyed_columns(table)
        if not columns:
            continue
        relations = {f"{table.qualified}{'_history' * at}": f'{CATALOG}.{table.raw_schema}."{name}"'
                     for at, name in enumerate(raw_table_names(table))}  # fmt: skip
        if loads := [load for load in lake.sealed_loads(table.source, table.name) if load.files]:
            relations[f"lake/{table.source}/{table.name}"] = f"({loads_sql(connection, table, loads)})"
        for place, relation in relations.items():
            parts += [
                f"select '{place}.{name}' as place, "
                f"unnest(regexp_extract_all({quoted(name)}::varchar, '{token}')) as token from {relation}"
                for name in columns
            ]
    return " union all ".join(parts)
