"""Replay: the raw tables again, from the sealed loads of the lake alone. No source is asked, no cursor moves.

Each table is built beside the one in use, in one transaction, and named after what it was built from; all are swapped
in together, in one more. Killed anywhere, the raw tables are what they were, and the next replay takes up every table
that was finished and is still true. What was erased, or is older than its class allows, stays out. The vault and the
quarantine are not touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

from ingestion.erasure import LEDGER, erased_sql, masked_sql
from ingestion.lake import Lake, SealedLoad, sql_text
from ingestion.load import drain_pending
from ingestion.raw import column_list, create_raw_tables, raw_table_names
from ingestion.retention import basis as retention_basis
from ingestion.schema import SourceName, Table, all_tables, tables
from ingestion.settling import settle
from ingestion.versions import VERSION, keys_sql, last_sql, loads_sql
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.tokens import install, token_key

SUFFIX = "__replay"
"""A table being rebuilt is called like the one it will replace, and this."""


@dataclass(frozen=True)
class ReplayedTable:
    """What became of one table; `rows` counts current rows, `versions` what its loads hold."""

    name: str
    loads: int
    versions: int
    rows: int
    erased: int


@dataclass
class ReplayReport:
    """What a replay rebuilt."""

    tables: list[ReplayedTable] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "seconds": round(self.seconds, 2),
            "tables": {
                table.name: {
                    "loads": table.loads,
                    "versions": table.versions,
                    "rows": table.rows,
                    "erased": table.erased,
                }
                for table in self.tables
            },
        }


def replay(settings: Settings, *, since: str | None = None, progress: Progress = silent) -> ReplayReport:
    """Rebuild `raw_*` from the lake. The caller holds the writer's lock.

    Args:
        since: keep what earlier loads brought as it is in the raw tables, and replay from this load id on.

    Raises:
        ConfigurationError: no table has a load `since`.
        LoadIncomplete: a sealed file is missing or changed, or rows of the raw tables are in no load of the lake.
            The raw tables stay as they were.
    """
    started = datetime.now(UTC)
    lake = Lake(settings)
    report = ReplayReport()
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        install(connection, token_key(settings))  # the ledger of what was erased holds tokens
        connection.execute("set preserve_insertion_order = false")
        create_raw_tables(connection)
        sources: tuple[SourceName, ...] = ("oltp", "mongodb", "stream")
        for source in sources:
            drain_pending(connection, settings, source, progress)
            drain_pending(connection, settings, source, progress, channel="files")
            settle(connection, lake, tables(source).values())
        pinned = all_tables()
        loads = {table.qualified: lake.sealed_loads(table.source, table.name) for table in pinned}
        if since is not None and not any(load.load_id == since for of_table in loads.values() for load in of_table):
            raise ConfigurationError(
                f"the lake has no load {since}", todo="name one of the load_id in raw_ops.load_manifest"
            )
        for number, table in enumerate(pinned, 1):
            progress(f"replay: {number}/{len(pinned)} {table.qualified}")
            report.tables.append(_rebuild(connection, table, loads[table.qualified], since))
        for table in pinned:
            _check_nothing_vanishes(connection, table)
        progress("replay: swapping the tables in")
        _swap(connection, pinned)
        # the tables are other ones now, whatever their landing times say: the next refresh builds everything anew
        Home.of(settings).build_state.unlink(missing_ok=True)
    report.seconds = (datetime.now(UTC) - started).total_seconds()
    return report


def _rebuild(
    connection: duckdb.DuckDBPyConnection, table: Table, loads: Sequence[SealedLoad], since: str | None
) -> ReplayedTable:
    wanted = [load for load in loads if since is None or load.load_id >= since]
    for load in wanted:
        load.verify()
    basis = _basis(connection, table, wanted, since)
    if (finished := _finished(connection, table, basis)) is not None:
        return finished
    relation = loads_sql(connection, table, wanted)
    if since is not None:
        relation = f"select * from ({relation}) where {VERSION} >= {sql_text(since)}"
    versions = _one(connection, f"select count(*) from ({relation})")
    erased = erased_sql(connection, table)
    kept = f"select * from ({relation}) where not {erased}" if erased else relation
    if since is not None:
        columns = ", ".join(f'"{name}"' for name, _ in table.landed_columns)
        before = f"select {columns} from {_raw(table, raw_table_names(table)[-1])} where {VERSION} < {sql_text(since)}"
        kept = f"{kept} union all " + (f"select * from ({before}) where not {erased}" if erased else before)
    kept = masked_sql(connection, table, kept)
    connection.execute("begin")
    try:
        result = _build(connection, table, kept, f"replay:{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        dropped = _one(connection, f"select count(*) from ({relation}) where {erased}") if erased else 0
        replayed = ReplayedTable(table.qualified, len(wanted), versions, result, dropped)
        note = json.dumps({"basis": basis, "table": [replayed.loads, versions, result, dropped]})
        connection.execute(f"comment on table {_fresh(table, table.name)} is {sql_text(note)}")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    return replayed


def _build(connection: duckdb.DuckDBPyConnection, table: Table, relation: str, dlt_load_id: str) -> int:
    """Fill the fresh tables of one table; returns how many current rows there are."""
    for name in raw_table_names(table):
        connection.execute(f"create or replace table {_fresh(table, name)} ({column_list(table)})")
    marked = f"select *, {sql_text(dlt_load_id)} as _dlt_load_id"
    if table.history:
        history = _fresh(table, f"{table.name}_history")
        connection.execute(f"insert into {history} {marked} from ({relation})")
        relation = f"select * exclude (_dlt_load_id) from {history}"
    connection.execute(f"create or replace temp table last_versions as {last_sql(table, relation)}")
    same = " and ".join(f'version."{key}" = last."{key}"' for key in table.key)
    current = _fresh(table, table.name)
    connection.execute(f"""
        insert into {current} {marked} from (
            select version.* from ({relation}) as version
            inner join last_versions as last on {same} and version.{VERSION} = last._last
        )
    """)
    rows = _one(connection, f"select count(*) from {current}")
    keys = _one(connection, "select count(*) from last_versions")
    if rows > keys:  # a load that holds one key twice: the version that landed last counts
        connection.execute(f"""
            delete from {current} where rowid in (
                select rowid from (
                    select rowid, row_number() over (
                        partition by {keys_sql(table)} order by _landed_at desc, rowid desc
                    ) as place
                    from {current}
                ) where place > 1
            )
        """)
        rows = _one(connection, f"select count(*) from {current}")
    connection.execute("drop table last_versions")
    if rows != keys:
        raise LoadIncomplete(
            f"{table.qualified}: {keys} keys were replayed into {rows} rows", kept="the raw tables, unchanged"
        )
    return rows


def _check_nothing_vanishes(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """A lake that lacks what the warehouse has is the wrong lake, or a damaged one."""
    erased = erased_sql(connection, table)
    missing = _one(
        connection,
        f"select count(*) from {_raw(table, table.name)} as raw "
        f"anti join {_fresh(table, table.name)} as fresh using ({keys_sql(table)})"
        + (f" where not {erased}" if erased else ""),
    )
    if missing:
        raise LoadIncomplete(
            f"{missing} rows of {table.qualified} are in no sealed load of the lake",
            kept="the raw tables, unchanged",
            todo="correct LAKE_URI, or restore the lake from your backup",
        )


def _swap(connection: duckdb.DuckDBPyConnection, pinned: Sequence[Table]) -> None:
    connection.execute("begin")
    try:
        for table in pinned:
            for name in raw_table_names(table):
                connection.execute(f"drop table {_raw(table, name)}")
                connection.execute(f'alter table {_fresh(table, name)} rename to "{name}"')
            connection.execute(f"comment on table {_raw(table, table.name)} is null")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute(f"checkpoint {CATALOG}")


def _basis(connection: duckdb.DuckDBPyConnection, table: Table, loads: Sequence[SealedLoad], since: str | None) -> str:
    """A digest of everything a rebuilt table follows from."""
    ledger = connection.execute(f"select count(*), max(erased_at)::varchar from {LEDGER}").fetchone()
    before = 0
    if since is not None:
        newest = raw_table_names(table)[-1]
        before = _one(connection, f"select count(*) from {_raw(table, newest)} where {VERSION} < {sql_text(since)}")
    facts = [
        table.fingerprint,
        since,
        before,
        list(ledger or ()),
        retention_basis(connection, table),
        [(load.load_id, [file.sha256 for file in load.files]) for load in loads],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _finished(connection: duckdb.DuckDBPyConnection, table: Table, basis: str) -> ReplayedTable | None:
    """What an interrupted replay of the same basis left of this table, complete."""
    found = connection.execute(
        "select comment from duckdb_tables() where database_name = ? and schema_name = ? and table_name = ?",
        [CATALOG, table.raw_schema, table.name + SUFFIX],
    ).fetchone()
    if found is None or not found[0]:
        return None
    note = json.loads(found[0])
    return ReplayedTable(table.qualified, *note["table"]) if note["basis"] == basis else None


def _raw(table: Table, name: str) -> str:
    return f'{CATALOG}.{table.raw_schema}."{name}"'


def _fresh(table: Table, name: str) -> str:
    return f'{CATALOG}.{table.raw_schema}."{name}{SUFFIX}"'


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0
