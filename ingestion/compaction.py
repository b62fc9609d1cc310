"""Housekeeping of the lake: many small loads become one, and versions that nobody needs any more go.

What was erased, or is older than its class allows, goes with either: that holds for every row that is written anew.
Both write a new sealed load that says which ones it `replaces`. From the moment its seal is durable the old loads are
no longer part of the lake; only then are they deleted. Killed anywhere, the lake holds the same rows once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from ingestion.erasure import LEDGER, erased_sql, masked_sql
from ingestion.lake import Lake, LakePath, SealedLoad, parts_sql, write_part
from ingestion.load import drain_pending
from ingestion.raw import create_raw_tables
from ingestion.schema import SourceName, Table, all_tables, tables
from ingestion.settling import settle
from ingestion.versions import VERSION, keys_sql, last_sql, loads_sql
from warehouse.core.database import open_warehouse
from warehouse.core.errors import LoadIncomplete
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.tokens import install, token_key

SMALL_BYTES = 64 * 2**20
"""A load below this is worth joining with others."""


@dataclass(frozen=True)
class Housekeeping:
    """What was done, or would be, to one table: loads before and after, rows and history rows removed, bytes read."""

    table: str
    loads: int
    loads_after: int
    size: int
    removed: int = 0
    history_removed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return dict(self.__dict__)


def compact(
    settings: Settings, *, min_loads: int = 8, dry_run: bool = False, progress: Progress = silent
) -> list[Housekeeping]:
    """Join the small loads of every table that has at least `min_loads` of them. The caller holds the writer's lock.

    Raises:
        LoadIncomplete: a sealed file is missing or changed, or the joined load does not hold the same rows. The old
            loads stay.
    """
    done = []
    lake = Lake(settings)
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        install(connection, token_key(settings))  # the ledger of what was erased holds tokens
        settle_all(connection, settings, lake, progress)
        for table in all_tables():
            sealed = lake.sealed_loads(table.source, table.name)
            small = [load for load in sealed if load.size < SMALL_BYTES]
            if len(small) < max(min_loads, 2):
                continue
            size = sum(load.size for load in small)
            progress(f"compact: {table.qualified}, {len(small)} loads, {size:,} bytes")
            erased = _count_erased(connection, table, small)
            if not dry_run:
                replace_loads(connection, lake, table, small, "true")
            done.append(Housekeeping(table.qualified, len(sealed), len(sealed) - len(small) + 1, size, erased))
    return done


def retain(settings: Settings, *, days: int, dry_run: bool = False, progress: Progress = silent) -> list[Housekeeping]:
    """Drop versions that landed more than `days` ago and are not the last of their key, from lake and history.

    The caller holds the writer's lock. The lake goes first: killed between, the next call finishes the history.

    Raises:
        LoadIncomplete: a sealed file is missing or changed. That table stays as it was.
    """
    cutoff = datetime.now(UTC) - timedelta(days=days)
    old = f"_landed_at < timestamptz '{cutoff.isoformat()}'"
    done = []
    lake = Lake(settings)
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        install(connection, token_key(settings))  # the ledger of what was erased holds tokens
        settle_all(connection, settings, lake, progress)
        for table in all_tables():
            sealed = lake.sealed_loads(table.source, table.name)
            connection.execute(
                f"create or replace temp table last_versions as {last_sql(table, loads_sql(connection, table, sealed))}"
            )
            affected: list[SealedLoad] = []
            removed = 0
            for load in sealed:
                gone = f"({old} and {_superseded(table)}) or {erased_sql(connection, table) or 'false'}"
                superseded = f"({loads_sql(connection, table, [load])}) as version where {gone}"
                if count := _one(connection, f"select count(*) from {superseded}"):
                    affected.append(load)
                    removed += count
            from_history = _retain_history(connection, table, old, dry_run=True)
            if not affected and not from_history:
                continue
            progress(f"retain: {table.qualified}, {removed:,} old versions in {len(affected)} loads")
            if not dry_run:
                if affected:
                    replace_loads(connection, lake, table, affected, f"not ({old} and {_superseded(table)})")
                _retain_history(connection, table, old, dry_run=False)
            after = len(sealed) - len(affected) + bool(affected)
            size = sum(load.size for load in affected)
            done.append(Housekeeping(table.qualified, len(sealed), after, size, removed, from_history))
    return done


def replace_loads(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    table: Table,
    loads: Sequence[SealedLoad],
    kept: str,
    ledger: str = LEDGER,
) -> None:
    """One sealed load with the rows of `loads` for which `kept` (SQL over `version`) holds, in their place.

    Rows that the erasure ledger names are left out, or stay as they may. By the lasting ledger, rows that are older
    than their class allows are left out, too.
    """
    for load in loads:
        load.verify()
    erased = erased_sql(connection, table, ledger) or "false"
    relation = masked_sql(
        connection,
        table,
        f"select * from ({loads_sql(connection, table, loads)}) as version where ({kept}) and not {erased}",
        ledger,
    )
    load_id = fresh_id(lake, table, loads)
    path = lake.part_path(table.source, table.name, load_id, 0)
    rows = write_part(connection, relation, path)
    if not rows:
        path.unlink()
    lake.mark_loaded(table.source, table.name, load_id)
    facts = {
        "rows": {path.name: rows} if rows else {},
        "mode": "compact",
        "schema_fingerprint": table.fingerprint,
        "replaces": [load.load_id for load in loads],
    }
    expected = _checksum(connection, relation)
    # what is written is compared before it may replace anything: an unsealed load is thrown away
    written = _checksum(connection, _written_sql(table, path)) if rows else (0, None)
    if written != expected:
        lake.discard(table.source, table.name, load_id)
        raise LoadIncomplete(
            f"the joined load of {table.source}/{table.name} does not hold the rows of the old ones",
            kept="the old loads; the joined one was discarded",
            todo="run this again; if it repeats, check the disk",
        )
    lake.seal(table.source, table.name, load_id, facts)
    lake.discard_replaced(table.source, table.name)


def _count_erased(connection: duckdb.DuckDBPyConnection, table: Table, loads: Sequence[SealedLoad]) -> int:
    erased = erased_sql(connection, table)
    if erased is None:
        return 0
    return _one(connection, f"select count(*) from ({loads_sql(connection, table, loads)}) as version where {erased}")


def _written_sql(table: Table, path: LakePath) -> str:
    columns = ", ".join(f'"{name}"' for name, _ in table.landed_columns)
    return f"select {columns} from {parts_sql([path])}"


def _checksum(connection: duckdb.DuckDBPyConnection, relation: str) -> tuple[int, str | None]:
    row = connection.execute(f"select count(*), sum(hash(version))::varchar from ({relation}) as version").fetchone()
    return (int(row[0]), row[1]) if row else (0, None)


def _superseded(table: Table) -> str:
    same = " and ".join(f'last."{key}" = version."{key}"' for key in table.key)
    return f"exists (select 1 from last_versions as last where {same} and version.{VERSION} < last._last)"


def _retain_history(connection: duckdb.DuckDBPyConnection, table: Table, old: str, *, dry_run: bool) -> int:
    """Remove (or count) the versions of the raw history that are old and superseded there."""
    if not table.history:
        return 0
    history = f'{CATALOG}.{table.raw_schema}."{table.name}_history"'
    last = last_sql(table, f"select {keys_sql(table)}, {VERSION} from {history}")
    same = " and ".join(f'last."{key}" = version."{key}"' for key in table.key)
    condition = f"{old} and exists (select 1 from ({last}) as last where {same} and version.{VERSION} < last._last)"
    if dry_run:
        return _one(connection, f"select count(*) from {history} as version where {condition}")
    return _one(connection, f"delete from {history} as version where {condition}")


def fresh_id(lake: Lake, table: Table, loads: Sequence[SealedLoad]) -> str:
    """Sorts right after the newest of `loads`, and was never a load of theirs: `<load>.c001`, `.c002` …

    An id that is free again must not be given twice: of two loads that name each other as replaced, none would be left.
    """
    base = max(load.load_id for load in loads).partition(".c")[0]
    generations = [
        int(generation or 0)
        for load in (*lake.sealed_loads(table.source, table.name), *loads)
        for name, _, generation in [load.load_id.partition(".c")]
        if name == base
    ]
    return f"{base}.c{max(generations, default=0) + 1:03d}"


def settle_all(connection: duckdb.DuckDBPyConnection, settings: Settings, lake: Lake, progress: Progress) -> None:
    """Leave nothing in flight: pending packages are loaded, doubtful loads settled, replaced ones deleted."""
    create_raw_tables(connection)
    sources: tuple[SourceName, ...] = ("oltp", "mongodb", "stream")
    for source in sources:
        # a pending package names files of the lake: it is finished before any of them goes
        drain_pending(connection, settings, source, progress)
        drain_pending(connection, settings, source, progress, channel="files")
        settle(connection, lake, tables(source).values())
    for table in all_tables():
        lake.discard_replaced(table.source, table.name)


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0
