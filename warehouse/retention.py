"""Retention by class: how long each kind of record may be kept, what is older, and dropping it everywhere.

cutoffs → lake → warehouse → vault. The cutoffs come first: from then on nothing older lands, is replayed, joined or
reconciled (`ingestion.retention`). Each step looks for what is left to drop, and a file takes another's place in one
move: killed anywhere, the same call finishes. What was made from the dropped rows (models, the published copy and the
role exports) is made anew by the next refresh, which also writes the warehouse's file anew.

Rows of whoever is under a legal hold stay, and go with the first call after it is released.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from typing import Any

import duckdb

from ingestion.compaction import replace_loads, settle_all
from ingestion.lake import Lake, sql_text
from ingestion.raw import raw_table_names
from ingestion.replay import SUFFIX
from ingestion.retention import (
    CUTOFFS,
    HELD,
    PARTY_DOMAIN,
    PAYMENT_DOMAIN,
    cutoff_of,
    expired_sql,
    named_sql,
    old_sql,
    scope_sql,
)
from ingestion.schema import BOOKKEEPING, Retention, Table, all_tables, position_sql
from ingestion.versions import loads_sql
from warehouse.core.database import attach, open_warehouse
from warehouse.core.errors import ConfigurationError
from warehouse.core.keys import file_key, warehouse_key
from warehouse.core.paths import Home
from warehouse.core.progress import Progress, silent
from warehouse.core.rewrite import RowsOf, rewrite
from warehouse.core.settings import CATALOG, PROJECT_ROOT, Settings
from warehouse.privacy.holds import held_subjects
from warehouse.privacy.subjects import canonical_sql
from warehouse.privacy.tokens import install, token_key
from warehouse.privacy.vault import ALIAS, open_vault

_PLACE = "source, table_name, row_key, path, token"
"""What tells one value of the vault from another."""
RETENTION_SEED = PROJECT_ROOT / "seeds" / "retention_classes.csv"


@dataclass(frozen=True)
class RetentionClass:
    """How long a kind of record may be kept, and why."""

    record_type: str
    months: int
    basis: str


@dataclass
class Dropped:
    """What went of one table."""

    table: str
    record_type: str
    cutoff: str
    """What is older is out, UTC."""
    rows: int = 0
    """Of the raw table."""
    history_rows: int = 0
    loads: int = 0
    """Of the lake, written anew."""
    lake_rows: int = 0
    vault_values: int = 0
    held_rows: int = 0
    """Older than the cutoff, and kept in the raw table because of a legal hold."""

    @property
    def total(self) -> int:
        """Rows and values, over all places."""
        return self.rows + self.history_rows + self.lake_rows + self.vault_values


@dataclass
class RetentionReport:
    """What one call did."""

    tables: list[Dropped] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows and values, over all tables and places."""
        return sum(table.total for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"dropped": self.total, "tables": [vars(table) for table in self.tables]}


def retention_classes() -> dict[str, RetentionClass]:
    """The seed, by record type."""
    with RETENTION_SEED.open(encoding="utf-8", newline="") as file:
        rows = [
            RetentionClass(row["record_type"], int(row["retention_months"]), row["basis"])
            for row in csv.DictReader(file)
        ]
    return {row.record_type: row for row in rows}


def overdue(settings: Settings) -> list[dict[str, Any]]:
    """Table by table: its class, how many rows are older than that, and how far retention was carried out."""
    classes = retention_classes()
    found = []
    with open_warehouse(settings, read_only=True) as connection:
        for table, retention in _retained():
            kept = classes[retention.record_type]
            row = connection.execute(
                f'select count(*) filter ("{retention.age}" < {_limit_sql(kept)}), '
                f'count(*) filter ("{retention.age}" is null) from {CATALOG}.{table.qualified}'
            ).fetchone()
            old, undated = row or (0, 0)
            found.append(
                {
                    "record_type": kept.record_type,
                    "table": table.qualified,
                    "months": kept.months,
                    "basis": kept.basis,
                    "overdue": int(old),
                    "undated": int(undated),
                    "applied_to": cutoff_of(connection, table),
                }
            )
    return found


def apply_retention(settings: Settings, progress: Progress = silent) -> RetentionReport:
    """Drop what is older than its class allows from lake, raw tables, histories and vault, for good.

    The caller holds the writer's lock. Called again on the same day it does nothing more.

    Raises:
        ConfigurationError: nothing has landed yet, or the target is not DuckDB.
        LoadIncomplete: a sealed file is missing or changed. What was dropped before stays dropped.
        WarehouseError: a file could not be written anew; the old one stays.
    """
    if settings.dbt_target != "duckdb":
        raise ConfigurationError(
            f"retention covers the DuckDB warehouse; the target is {settings.dbt_target}",
            todo="apply it with DBT_TARGET=duckdb; on the other warehouse delete what lies before the same cutoffs",
        )
    held = held_subjects(settings)
    report = RetentionReport()
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        install(connection, token_key(settings))
        lake = Lake(settings)
        settle_all(connection, settings, lake, progress)
        progress("retention: cutoffs")
        record_cutoffs(connection, held)
        for table, retention in _retained():
            dropped = Dropped(table.qualified, retention.record_type, cutoff_of(connection, table) or "")
            _count_raw(connection, table, dropped)
            drop_from_lake(connection, lake, table, dropped, progress)
            report.tables.append(dropped)
        if gone := any(item.rows or item.history_rows for item in report.tables):
            for table in all_tables():  # what a killed replay left; it would be built again anyhow
                for name in raw_table_names(table):
                    connection.execute(f'drop table if exists {CATALOG}.{table.raw_schema}."{name}{SUFFIX}"')
    if gone:
        progress("retention: warehouse")
        drop_from_warehouse(settings)
    progress("retention: vault")
    drop_from_vault(settings, report.tables)
    return report


def record_cutoffs(connection: duckdb.DuckDBPyConnection, held: frozenset[str]) -> None:
    """Write down, all at once, from when on each table keeps its rows, and whose stay: canonical ids, as tokens."""
    classes = retention_classes()
    connection.execute("begin")
    try:
        _find_held(connection, held)
        for table, retention in _retained():
            limit = _limit_sql(classes[retention.record_type])
            before = cutoff_of(connection, table)
            _record_held(connection, table, retention, before)
            if before is None:
                connection.execute(
                    f"insert into {CUTOFFS} values ({sql_text(table.source)}, {sql_text(table.name)}, {limit}, now())"
                )
            else:
                connection.execute(
                    f"update {CUTOFFS} set cutoff = {limit}, applied_at = now() "
                    f"where {scope_sql(table)} and cutoff < {limit}"
                )
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def drop_from_lake(
    connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, dropped: Dropped, progress: Progress
) -> None:
    """Every load that holds a row too old is written anew without it."""
    expired = expired_sql(connection, table) or "false"
    affected = []
    for load in lake.sealed_loads(table.source, table.name):
        if rows := _one(connection, f"select count(*) from ({loads_sql(connection, table, [load])}) where {expired}"):
            affected.append(load)
            dropped.lake_rows += rows
    if affected:
        progress(f"retention: {table.qualified}, {dropped.lake_rows:,} rows in {len(affected)} loads of the lake")
        replace_loads(connection, lake, table, affected, "true")
        dropped.loads = len(affected)


def drop_from_warehouse(settings: Settings) -> None:
    """The warehouse's file anew, without what is too old. The models are to be built anew, and are not trusted."""
    home = Home.of(settings)
    home.build_state.unlink(missing_ok=True)  # first: killed from here on, a build too many is all that comes of it
    home.rewrite_due.touch(mode=0o600)

    def prepare(connection: duckdb.DuckDBPyConnection) -> RowsOf:
        install(connection, token_key(settings))
        expired = {
            (table.raw_schema, name): expired_sql(connection, table)
            for table, _ in _retained()
            for name in raw_table_names(table)
        }
        return lambda schema, table: (
            f'select * from {CATALOG}."{schema}"."{table}" where not {expired.get((schema, table)) or "false"}'
        )

    rewrite(settings, home.warehouse, warehouse_key(settings), alias=CATALOG, prepare=prepare)


def drop_from_vault(settings: Settings, tables: list[Dropped]) -> None:
    """Values of rows that are gone and keys under which nothing lies any more go; the vault's file is written anew."""
    with open_vault(settings) as vault:
        _find_left_over(vault, settings)
        named = "select 'raw_' || source || '.' || table_name, count(*) from left_over group by all"
        counts = dict(vault.execute(named).fetchall())
    for dropped in tables:
        dropped.vault_values = counts.get(dropped.table, 0)
    if not counts:
        return

    def prepare(connection: duckdb.DuckDBPyConnection) -> RowsOf:
        _find_left_over(connection, settings)
        entry, key = f"{ALIAS}.main.sealed_entry", f"{ALIAS}.main.subject_key"
        stays = f"select * from {entry} anti join left_over using ({_PLACE})"
        selects = {
            "sealed_entry": stays,
            "subject_key": f"select * from {key} where owner in (select owner from ({stays}))",
        }
        return lambda _, table: selects.get(table) or f'select * from {ALIAS}.main."{table}"'

    rewrite(settings, Home.of(settings).vault, file_key(settings, "vault"), alias=ALIAS, prepare=prepare)


def _find_left_over(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """`left_over`: the entries of the attached vault whose row is gone, or whose version is, where all are known."""
    attach(connection, Home.of(settings).warehouse, CATALOG, warehouse_key(settings), read_only=True)
    entries = f"select {_PLACE} from {ALIAS}.main.sealed_entry"
    connection.execute(f"create or replace temp table left_over as {entries} limit 0")
    for table, _ in _retained():
        if cutoff_of(connection, table) is None:
            continue
        texts = ", ".join(f'"{name}"::varchar' for name in _texts(table))
        versions = " union all ".join(
            f"select {position_sql(table)} as row_key, concat_ws(' ', {texts}) as landed "
            f'from {CATALOG}.{table.raw_schema}."{name}"'
            for name in raw_table_names(table)
        )
        # where versions are kept, a value goes with the last of them that held it
        stands = "contains(version.landed, entry.token)" if table.history else "true"
        mine = f"{entries} where {scope_sql(table)}"
        connection.execute(f"""
            insert into left_over
            select {_PLACE} from ({mine}) anti join (
                select distinct entry.row_key, entry.token
                from ({mine}) as entry
                inner join ({versions}) as version on version.row_key = entry.row_key and {stands}
            ) using (row_key, token)
        """)
    connection.execute(f"detach {CATALOG}")


def _texts(table: Table) -> list[str]:
    """The landed columns that can hold a token."""
    bookkeeping = {name for name, _ in BOOKKEEPING}
    return [name for name, kind in table.landed_columns if kind in {"varchar", "json"} and name not in bookkeeping]


def _count_raw(connection: duckdb.DuckDBPyConnection, table: Table, dropped: Dropped) -> None:
    expired, old = expired_sql(connection, table) or "false", old_sql(connection, table) or "false"
    current, *history = (f'{CATALOG}.{table.raw_schema}."{name}"' for name in raw_table_names(table))
    dropped.rows = _one(connection, f"select count(*) from {current} where {expired}")
    dropped.held_rows = _one(connection, f"select count(*) from {current} where {old}") - dropped.rows
    dropped.history_rows = sum(
        _one(connection, f"select count(*) from {relation} where {expired}") for relation in history
    )


def _find_held(connection: duckdb.DuckDBPyConnection, held: frozenset[str]) -> None:
    """`held_tokens`: those of held parties, and of the payments that any of their rows names."""
    connection.execute("create or replace temp table held_party (party varchar)")
    if held:
        connection.executemany("insert into held_party values (?)", [[subject] for subject in sorted(held)])
    payments = " union ".join(
        f'select {named_sql(table, retention.payment)} as payment from {CATALOG}.{table.raw_schema}."{name}" '
        f"where {canonical_sql(named_sql(table, party))} in (select party from held_party)"
        for table, retention in _retained()
        if retention.payment is not None
        for party in retention.parties
        for name in raw_table_names(table)
    )
    connection.execute(f"""
        create or replace temp table held_tokens as
        select pseudonymise('{PARTY_DOMAIN}', party) as party_token, null::varchar as payment_token from held_party
        union all
        select null, pseudonymise('{PAYMENT_DOMAIN}', payment) from ({payments if held else "select null as payment"})
        where payment is not null
    """)


def _record_held(connection: duckdb.DuckDBPyConnection, table: Table, retention: Retention, before: str | None) -> None:
    """Who is held now; of those who were already, from when on. What was dropped before a hold began stays dropped."""
    same = (
        "held.party_token is not distinct from now.party_token "
        "and held.payment_token is not distinct from now.payment_token"
    )
    concerns = "payment_token is not null" if retention.payment else "false"
    concerns += " or party_token is not null" if retention.parties else ""
    connection.execute(
        f"delete from {HELD} as held where {scope_sql(table)} "
        f"and not exists (select 1 from held_tokens as now where {same})"
    )
    since = "null" if before is None else f"timestamptz {sql_text(before)}"
    connection.execute(f"""
        insert into {HELD}
        select {sql_text(table.source)}, {sql_text(table.name)}, party_token, payment_token, {since}
        from held_tokens as now
        where ({concerns}) and not exists (select 1 from {HELD} as held where {scope_sql(table)} and {same})
    """)


def _retained() -> list[tuple[Table, Retention]]:
    return [(table, table.retention) for table in all_tables() if table.retention is not None]


def _limit_sql(kept: RetentionClass) -> str:
    """SQL: the first moment that the class allows; whole days, so that a day's second call finds nothing more."""
    return f"(date_trunc('day', now()) - interval '{kept.months} months')"


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0
