"""Is the warehouse what the sources are? Every row of every table, compared without landing anything.

An independent check: it shares the boundary with landing, because a token can only be compared with a token, and
nothing else. It does not use landing's row hash, counts, cursors or joins, but digests the landed columns of both
sides itself, so it also sees what went wrong between the lake and the warehouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

import duckdb

from ingestion import boundary
from ingestion.destinations.choice import open_destination
from ingestion.erasure import marked_sql
from ingestion.lake import Lake, sql_text
from ingestion.run import LIVE_SOURCES, AnyReader, landing_failure, open_reader
from ingestion.schema import BOOKKEEPING, SourceName, Table, tables
from ingestion.sources import Plan
from ingestion.sources.files import drops
from ingestion.sources.stream.reader import offsets_of
from ingestion.treatment import Treatment
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import LoadIncomplete
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy.tokens import token_key


@dataclass(frozen=True)
class TableComparison:
    """One table against its source."""

    source: SourceName
    table: str
    source_rows: int
    quarantined_rows: int
    """Rows at the source that do not fit the pinned schema; they are compared no further."""
    warehouse_rows: int
    """Current rows, deleted ones aside."""
    missing_rows: int
    """At the source and not in the warehouse: lost, or not landed yet."""
    surplus_rows: int
    """In the warehouse and not at the source: a deletion that was not seen, or invented."""
    different_rows: int
    """On both sides under one key, with other content."""
    repeated_rows: int
    """Rows beyond the first of their key, on either side."""
    source_amount: Decimal | None = None
    """Sum of the table's amount over the rows that fit (a checksum of all currencies, not money)."""
    warehouse_amount: Decimal | None = None
    expired_rows: int = 0
    """Messages in the warehouse that the broker's retention has dropped since: not a difference."""
    left_out_rows: int = 0
    """At the source, and not to land: erased, or older than their class allows. They are compared no further."""
    skipped_offsets: int = 0
    """Offsets below the end that the broker delivers no message for (transaction markers, compaction)."""
    problems: tuple[str, ...] = ()
    """Each counts as one difference."""

    @property
    def amounts_differ(self) -> bool:
        """Whether the sums differ; no row at all is a sum of nothing."""
        return (self.source_amount or 0) != (self.warehouse_amount or 0)

    @property
    def differences(self) -> int:
        """0 when the table is what its source is."""
        rows = self.missing_rows + self.surplus_rows + self.different_rows + self.repeated_rows
        return rows + self.amounts_differ + len(self.problems)


@dataclass
class Reconciliation:
    """Every table that was compared."""

    tables: list[TableComparison] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """Over all tables."""
        return sum(table.differences for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`; amounts as text."""
        return {
            "differences": self.differences,
            "tables": [
                {
                    **asdict(table),
                    "source_amount": _text(table.source_amount),
                    "warehouse_amount": _text(table.warehouse_amount),
                    "differences": table.differences,
                }
                for table in self.tables
            ],
        }


def reconcile(
    settings: Settings,
    endpoints: Endpoints,
    *,
    sources: Sequence[SourceName] = LIVE_SOURCES,
    progress: Progress = silent,
) -> Reconciliation:
    """Compare the raw tables with their sources, each source in one snapshot where it has one. Changes nothing.

    A dropped file is gone once it has landed: of `files`, the list of what landed (content hash, rows) is compared
    with the manifest and the seals of the lake, and what lies in the drop folder with the list.

    What changed at a source since the last landing is a difference. The caller holds the writer's lock.

    Raises:
        SourceUnavailable, SchemaDrift: as for landing.
        WarehouseError: a comparison could not be made.
    """
    result = Reconciliation()
    with open_warehouse(settings, read_only=True, postgres=True) as connection:
        boundary.install(connection, token_key(settings))
        for source in sources:
            try:
                if source == "files":
                    result.tables += _compare_files(connection, settings, progress)
                    continue
                result.tables += _compare_source(connection, settings, endpoints, source, progress)
            except duckdb.Error as error:
                raise landing_failure(source, error) from None
    return result


def _compare_source(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    endpoints: Endpoints,
    source: SourceName,
    progress: Progress,
) -> list[TableComparison]:
    with open_destination(connection, settings) as destination:
        state = destination.read_state(source)
    pinned = list(tables(source).values())
    compared = []
    with open_reader(connection, settings, endpoints, source) as reader:
        reader.check_shape(pinned)
        for table in pinned:
            found = _compare(connection, reader, table, state.get(table.name, {}))
            progress(f"{source}.{table.name}: {found.source_rows:,} rows, {found.differences:,} differences")
            compared.append(found)
    return compared


def _compare_files(
    connection: duckdb.DuckDBPyConnection, settings: Settings, progress: Progress
) -> list[TableComparison]:
    compared = []
    waiting = _waiting_files(connection, settings)
    rows = connection.execute(f"""
        with listed as (
            select
                files.source || '.' || files.table_name as name, files.rows, files.quarantined_rows,
                count(manifest.load_id) as times,
                any_value(manifest.source_rows) as source_rows,
                any_value(manifest.landed_rows + manifest.unchanged_rows) as held,
                any_value(manifest.quarantined_rows) as refused
            from {CATALOG}.raw_ops.landed_files as files
            left join {CATALOG}.raw_ops.load_manifest as manifest
                on manifest.mode = 'drop' and manifest.source = files.source
                and manifest.table_name = files.table_name and manifest.load_id = files.load_id
            group by files.source, files.table_name, files.sha256, files.rows, files.quarantined_rows
        )
        select
            name, sum(rows), sum(quarantined_rows), coalesce(sum(held), 0),
            coalesce(sum(rows) filter (times = 0), 0),
            coalesce(sum(abs(rows - source_rows) + abs(quarantined_rows - refused)), 0),
            coalesce(sum((times - 1) * rows) filter (times > 1), 0)
        from listed group by name
    """).fetchall()
    found = {name: counts for name, *counts in rows}
    for name in sorted(found.keys() | waiting.keys()):
        read, quarantined, held, missing, different, repeated = map(int, found.get(name, [0] * 6))
        problems = tuple(f"{label} has not landed" for label in waiting.get(name, ()))
        problems += tuple(_damaged_seals(connection, settings, name))
        progress(f"files: {name}: {read:,} rows of landed files, {len(problems)} problems")
        compared.append(
            TableComparison(
                source="files",
                table=name,
                source_rows=read,
                quarantined_rows=quarantined,
                warehouse_rows=held,
                missing_rows=missing,
                surplus_rows=0,
                different_rows=different,
                repeated_rows=repeated,
                problems=problems,
            )
        )
    return compared


def _waiting_files(connection: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str, list[str]]:
    """Table → files of the drop folder whose content is not on the list."""
    waiting: dict[str, list[str]] = {}
    for drop in drops.find(settings).drops:
        known = connection.execute(
            f"select 1 from {CATALOG}.raw_ops.landed_files where source = ? and table_name = ? and sha256 = ?",
            [drop.table.source, drop.table.name, drops.digest(drop)],
        ).fetchone()
        if known is None:
            waiting.setdefault(f"{drop.table.source}.{drop.table.name}", []).append(drop.label)
    return waiting


def _damaged_seals(connection: duckdb.DuckDBPyConnection, settings: Settings, name: str) -> Iterator[str]:
    """Loads of files that are in the lake as they landed, and do not hold what the manifest says or was sealed."""
    source, _, table = name.partition(".")
    landed = dict(
        connection.execute(
            f"select load_id, landed_rows from {CATALOG}.raw_ops.load_manifest"
            " where mode = 'drop' and source = ? and table_name = ?",
            [source, table],
        ).fetchall()
    )
    for load in Lake(settings).sealed_loads(source, table):
        if load.load_id not in landed:
            continue  # of the live source, or joined with others
        if load.rows != landed[load.load_id]:
            yield f"{name}: load {load.load_id} holds {load.rows} rows, not {landed[load.load_id]}"
        try:
            load.verify()
        except LoadIncomplete as error:
            yield error.what


def _compare(
    connection: duckdb.DuckDBPyConnection, reader: AnyReader, table: Table, state: dict[str, Any]
) -> TableComparison:
    plan = reader.plan(table, {}, full=True)
    left_out = _digest_source(connection, reader, table, plan)
    still_there = _still_there(plan)
    connection.execute(f"""
        create or replace temp table in_warehouse as
        select {_digest(table.key)} as k, {_digest(_columns(table))} as v, {_amount(table)} as amount
        from {CATALOG}.{table.qualified}
        where _deleted_at is null and {still_there}
    """)
    total = f"select count(*) from {CATALOG}.{table.qualified} where _deleted_at is null"
    source_rows, quarantined, source_amount = _row(
        connection, "select count(*), count(*) filter (not fits), sum(amount) filter (fits) from at_source"
    )
    (warehouse_rows,) = _row(connection, total)
    (compared_rows,) = _row(connection, "select count(*) from in_warehouse")
    (warehouse_amount,) = _row(
        connection, "select sum(amount) from in_warehouse anti join (from at_source where not fits) using (k)"
    )
    missing, surplus, different, repeated = _row(
        connection,
        """
        with source as (
            select k, any_value(v) as v, bool_and(fits) as fits, count(*) as n from at_source group by k
        ),
        warehouse as (select k, any_value(v) as v, count(*) as n from in_warehouse group by k)
        select
            count(*) filter (warehouse.k is null and source.fits),
            count(*) filter (source.k is null),
            count(*) filter (source.fits and warehouse.k is not null and source.v <> warehouse.v),
            coalesce(sum(if(source.fits, source.n, 1) - 1 + coalesce(warehouse.n, 1) - 1), 0)::bigint
        from source full join warehouse using (k)
        """,
    )
    return TableComparison(
        source=table.source,
        table=table.name,
        source_rows=source_rows,
        quarantined_rows=quarantined,
        warehouse_rows=warehouse_rows,
        missing_rows=missing,
        surplus_rows=surplus,
        different_rows=different,
        repeated_rows=repeated,
        source_amount=source_amount,
        warehouse_amount=warehouse_amount,
        expired_rows=warehouse_rows - compared_rows,
        left_out_rows=left_out,
        skipped_offsets=max(plan.source_rows - source_rows - left_out, 0) if plan.mode == "offsets" else 0,
        problems=_problems(table, plan, state, source_rows + left_out),
    )


def _digest_source(connection: duckdb.DuckDBPyConnection, reader: AnyReader, table: Table, plan: Plan) -> int:
    """Fill `at_source`: 16 bytes of key and 16 of content per row, so that ten million fit into memory.

    Returns how many rows were left out, because they are not to land.
    """
    treatment = Treatment(connection, table)
    connection.execute(
        "create or replace temp table at_source (k uhugeint, v uhugeint, amount decimal(38, 4), fits boolean, "
        "gone boolean)"
    )
    for relation in reader.chunks(table, plan):
        connection.execute(f"""
            insert into at_source
            select {_digest(table.key)}, {_digest(_columns(table))}, {_amount(table)}, reason is null, _gone
            from ({marked_sql(connection, table, treatment.sql(relation, keep=False))})
        """)
    (left_out,) = _row(connection, "delete from at_source where gone")
    if not table.is_document and not plan.unique_keys:  # of rows that share a key, none can be taken for the true one
        connection.execute("""
            update at_source set fits = false
            where k in (select k from at_source group by k having count(*) > 1)
        """)
    return int(left_out)


def _columns(table: Table) -> tuple[str, ...]:
    kept = {name for name, _ in BOOKKEEPING}
    return tuple(name for name, _ in table.landed_columns if name not in kept)


def _digest(columns: Sequence[str]) -> str:
    """SQL: one number for the values of these columns, in which null is not the empty text."""
    values = ", ".join(f'coalesce("{name}"::varchar, chr(30))' for name in columns)
    return f"md5_number(concat_ws(chr(31), {values}))"


def _amount(table: Table) -> str:
    if table.amount is None:
        return "null::decimal(38, 4)"
    value = f"json_extract_string(document, '$.{table.amount}')" if table.is_document else f'"{table.amount}"'
    return f"try_cast({value} as decimal(38, 4))"


def _still_there(plan: Plan) -> str:
    """SQL: whether a landed message is one that the broker still has; true for every other row."""
    starts = plan.bounds.get("start")
    if starts is None:
        return "true"
    ranges = " or ".join(
        f"(kafka_topic = {sql_text(topic)} and kafka_partition = {partition} and kafka_offset >= {start})"
        for (topic, partition), start in starts.items()
    )
    return f"({ranges or 'false'})"


def _problems(table: Table, plan: Plan, state: dict[str, Any], read: int) -> tuple[str, ...]:
    """What is wrong with a position rather than with a row."""
    if plan.mode != "offsets":
        if read != plan.source_rows:
            return (f"{table.origin}: the source counts {plan.source_rows} rows and gave {read}",)
        return ()
    found = []
    for (topic, partition), position in sorted(offsets_of(table, state).items()):
        if (topic, partition) not in plan.bounds["stop"]:
            found.append(f"{topic}: partition {partition} is gone")
        elif position > plan.bounds["stop"][topic, partition]:
            found.append(f"{topic}: partition {partition} ends before the committed offset")
        elif position < plan.bounds["start"][topic, partition]:
            found.append(f"{topic}: partition {partition} lost messages that were never read")
    return tuple(found)


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    return row if row is not None else ()


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)
