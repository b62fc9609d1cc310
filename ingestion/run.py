"""One landing run: every source in turn, each in one snapshot, each load all or nothing.

Order within a source, and why: the lake is sealed first (the record), then the vault and the quarantine (repeatable
inserts) and what the manifest will say, then the destination loads the sealed files and commits the cursors with them,
then the manifest. Killed anywhere, the next run reads again from the last committed cursor and lands nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from ingestion import boundary, landing, manifest, quarantine
from ingestion.destinations.choice import open_destination
from ingestion.destinations.protocol import Destination
from ingestion.lake import Lake
from ingestion.load import Channel, LandedTable, discard_package
from ingestion.raw import create_raw_tables
from ingestion.schema import SourceName, Table, tables
from ingestion.settling import settle
from ingestion.sources.files import land_drops
from ingestion.sources.mongodb import MongoReader
from ingestion.sources.oltp import OltpReader
from ingestion.sources.stream import StreamReader
from ingestion.unchanged import Equal
from warehouse.core.database import open_warehouse
from warehouse.core.disk import name_full_disk
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import ConfigurationError, WarehouseError
from warehouse.core.progress import Progress, silent
from warehouse.core.settings import Settings
from warehouse.privacy import vault
from warehouse.privacy.tokens import token_key

KEYS_AT = "keys_at"
"""In the state of a table: when all its keys were last compared with the source's."""

AnyReader = OltpReader | MongoReader | StreamReader

LIVE_SOURCES: tuple[SourceName, ...] = ("oltp", "mongodb", "stream")
ALL_SOURCES: tuple[SourceName, ...] = (*LIVE_SOURCES, "files")


@dataclass(frozen=True)
class Part:
    """A load of part of a source: a micro-batch.

    Attributes:
        reader: makes the reader, in place of the source's own.
        tables: raw names of the tables to read; None for all. The state of the others stays as it is.
        state: kept in the source's state beside the tables, committed with the load.
    """

    reader: Callable[[duckdb.DuckDBPyConnection], AnyReader] | None = None
    tables: frozenset[str] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class SourceReport:
    """What one source gave: table → counts, and what a person should know about its shape."""

    source: SourceName
    tables: dict[str, landing.Counts] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    resolved: int = 0
    """Entries of the quarantine whose row fits now."""
    seconds: float = 0.0

    def total(self, name: str) -> int:
        """Sum of one count over the tables."""
        return sum(getattr(counts, name) for counts in self.tables.values())


@dataclass
class IngestReport:
    """What a run landed."""

    run_id: str
    sources: list[SourceReport] = field(default_factory=list)

    @property
    def landed_rows(self) -> int:
        """New versions, deletions included."""
        return sum(report.total("landed_rows") + report.total("deleted_rows") for report in self.sources)

    def to_dict(self) -> dict[str, Any]:
        """For `--json` and the run report."""
        names = (
            "source_rows",
            "landed_rows",
            "unchanged_rows",
            "deleted_rows",
            "quarantined_rows",
            "unknown_keys",
            "unknown_events",
        )
        return {
            "run_id": self.run_id,
            "landed_rows": self.landed_rows,
            "sources": {
                report.source: {
                    "seconds": round(report.seconds, 2),
                    "alerts": report.alerts,
                    "resolved": report.resolved,
                    "tables": {
                        table: {name: getattr(counts, name) for name in names}
                        for table, counts in report.tables.items()
                    },
                }
                for report in self.sources
            },
        }


def ingest(
    settings: Settings,
    endpoints: Endpoints,
    *,
    run_id: str,
    sources: Sequence[SourceName] = ALL_SOURCES,
    full: bool = False,
    accept_deletes: bool = False,
    reconcile_keys: bool = False,
    retry_quarantined: bool = False,
    part: Part = Part(),  # immutable
    progress: Progress = silent,
) -> IngestReport:
    """Land what is new at the sources. The caller holds the writer's lock.

    Args:
        full: compare every row and key with what has landed, whatever the size; read topics from their beginning.
        accept_deletes: let a comparison delete more than the threshold.
        reconcile_keys: of tables that are read by cursor, compare all keys too: what is gone at the source is marked
            as deleted, and what never landed is an alert. Done in any case every `RECONCILE_KEYS_HOURS`.
        retry_quarantined: read only the rows that are in quarantine, again; no cursor moves.
        part: with one source: what of it to read, and how.

    Raises:
        WarehouseError: of the first source that failed; the others have landed all the same.
    """
    report = IngestReport(run_id)
    failures: list[WarehouseError] = []
    try:
        with ExitStack() as opened:
            connection = opened.enter_context(
                open_warehouse(settings, postgres=True, memory_limit=settings.memory_limit)
            )
            connection.execute("set preserve_insertion_order = false")
            create_raw_tables(connection)
            destination = opened.enter_context(open_destination(connection, settings))
            vault.attach_vault(connection, settings)
            boundary.install(connection, token_key(settings))
            landing.prepare(connection)
            quarantine.prepare(connection)
            for source in sources:
                try:
                    if source == "files":
                        if retry_quarantined:  # what a file held is not asked for again
                            continue
                        dropped = land_drops(connection, destination, settings, run_id, progress)
                        report.sources.append(
                            SourceReport("files", dropped.tables, dropped.alerts, seconds=dropped.seconds)
                        )
                        if (refused := dropped.failure()) is not None:
                            failures.append(refused)
                        continue
                    report.sources.append(
                        _ingest_source(
                            connection,
                            destination,
                            settings,
                            endpoints,
                            source,
                            run_id,
                            full,
                            accept_deletes,
                            reconcile_keys,
                            retry_quarantined,
                            part,
                            progress,
                        )
                    )
                except WarehouseError as error:
                    progress(f"{source}: failed")
                    failures.append(name_full_disk(error, settings))
                except (duckdb.Error, OSError) as error:
                    # DuckDB's own messages may quote a value: only their class may leave this place
                    failures.append(name_full_disk(landing_failure(source, error), settings))
    except WarehouseError as error:  # before any source was read
        raise name_full_disk(error, settings) from None
    if failures:
        failures[0].kept += "; landed in this run: " + (", ".join(done.source for done in report.sources) or "nothing")
        raise failures[0]
    return report


def discard_pending(settings: Settings, sources: Sequence[SourceName] = ALL_SOURCES) -> dict[SourceName, int]:
    """Give up the packages that could not be loaded, with their files in the lake: source → loads discarded.

    Nothing is lost by it: no cursor moved with them, so the next run reads their rows again. The caller holds the
    writer's lock.
    """
    lake = Lake(settings)
    discarded: dict[SourceName, int] = {}
    with open_warehouse(settings) as connection:
        for name in sources:
            channel: Channel = "files" if name == "files" else "live"
            for source in LIVE_SOURCES if name == "files" else (name,):
                loads = discard_package(connection, settings, source, channel=channel)
                for load in loads:
                    lake.discard(source, load.table, load.load_id)
                if loads:
                    discarded[name] = discarded.get(name, 0) + len(loads)
    return discarded


def _ingest_source(
    connection: duckdb.DuckDBPyConnection,
    destination: Destination,
    settings: Settings,
    endpoints: Endpoints,
    source: SourceName,
    run_id: str,
    full: bool,
    accept_deletes: bool,
    reconcile_keys: bool,
    retry_quarantined: bool,
    part: Part,
    progress: Progress,
) -> SourceReport:
    started = datetime.now(UTC)
    lake = Lake(settings)
    destination.drain_pending(source, progress)
    destination.drain_pending(source, progress, channel="files")
    state = destination.read_state(source)
    pinned = [table for name, table in tables(source).items() if part.tables is None or name in part.tables]
    load_id = f"{started:%Y%m%dT%H%M%S%f}Z"
    report = SourceReport(source)
    loads: list[manifest.TableLoad] = []
    new_state: dict[str, Any] = {**state, **part.state}
    settle(connection, lake, pinned)
    manifest.settle(connection, source, manifest.committed_load(state))
    connection.execute("truncate pending_vault")
    connection.execute("truncate pending_quarantine")
    connection.execute("truncate pending_resolved")

    made = part.reader(connection) if part.reader else open_reader(connection, settings, endpoints, source)
    with made as reader:
        report.alerts = reader.check_shape(pinned)
        for table in pinned:
            positions = quarantine.open_positions(connection, table) if retry_quarantined else None
            if positions == []:
                continue
            loads.append(
                _land_table(
                    connection,
                    settings,
                    lake,
                    reader,
                    table,
                    state.get(table.name, {}),
                    load_id,
                    full,
                    accept_deletes,
                    reconcile_keys,
                    new_state,
                    positions,
                )
            )
            counts = report.tables[table.name] = loads[-1].counts
            if counts.missing_keys:
                report.alerts.append(f"{table.origin}: {counts.missing_keys:,} keys of the source never landed: --full")
            progress(f"{source}.{table.name}: {_summary(loads[-1].counts)}")

    if not retry_quarantined:  # which reads nothing else, so that a share would say nothing
        read = {name: (counts.quarantined_rows, counts.read_rows) for name, counts in report.tables.items()}
        report.alerts += quarantine.alerts(read)
    landed = []
    for load in loads:
        if load.counts.files:
            rows = load.counts.landed_rows + load.counts.deleted_rows
            lake.seal(source, load.table.name, load_id, _seal_facts(load))
            landed.append(LandedTable(load.table, load_id, tuple(load.counts.files), rows, load.plan.unique_keys))
    vault.store_entries(connection, "pending_vault", settings)
    quarantine.store(connection)
    manifest.prepare(connection, run_id, loads)
    report.alerts += [
        f"{load.table.origin}: {load.counts.unknown_events:,} events landed that no model knows the type or version of"
        for load in loads
        if load.counts.unknown_events
    ]
    if landed or new_state != state:
        new_state[manifest.COMMITTED] = load_id
        destination.load_packages(source, landed, new_state, progress)
    for entry in landed:
        lake.mark_loaded(source, entry.table.name, load_id)
    report.resolved = quarantine.resolve(connection, source, started)
    manifest.record(connection, load_id)
    destination.store_operations()
    report.seconds = (datetime.now(UTC) - started).total_seconds()
    return report


def _land_table(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    lake: Lake,
    reader: AnyReader,
    table: Table,
    state: dict[str, Any],
    load_id: str,
    full: bool,
    accept_deletes: bool,
    reconcile_keys: bool,
    new_state: dict[str, Any],
    positions: Sequence[str] | None,
) -> manifest.TableLoad:
    started = datetime.now(UTC)
    plan = reader.plan(table, state, full=full) if positions is None else reader.at(table, positions)
    target = landing.TableLanding(connection, lake, table, load_id, started, plan)
    if _is_equal(connection, settings, reader, target, state, full):
        new_state[table.name] = state
        target.counts.cursor_to = _cursor_text(state)
        return manifest.TableLoad(table, load_id, plan, target.finish(), started, datetime.now(UTC))
    for relation in reader.chunks(table, plan):
        target.add(relation)
    quarantine.hold_fitting(connection, table)
    keys_at = _keys_at(state) or started
    due = reconcile_keys or started - keys_at >= timedelta(hours=settings.reconcile_keys_hours)
    if due and plan.mode == "incremental" and isinstance(reader, OltpReader):
        target.compare_keys(reader.keys(table, target.telling_columns))
        target.mark_deleted(accept=accept_deletes)
        keys_at = started
    if plan.mode == "compare":
        target.mark_deleted(accept=accept_deletes)
    elif plan.mode == "changes":
        target.mark_deleted(accept=True, among=plan.bounds["keys"])
    elif plan.mode == "offsets" and full and isinstance(reader, StreamReader):
        target.mark_deleted(accept=True, among=reader.beyond(table, plan))
    counts = target.finish()
    if plan.mode != "retry":
        equal = target.equal()
        new_state[table.name] = reader.advanced(table, plan) | (equal.state() if equal else {})
        if isinstance(reader, OltpReader):
            if plan.mode == "incremental":
                new_state[table.name][KEYS_AT] = keys_at.isoformat()
            elif plan.mode == "compare" and plan.source_rows > settings.compare_below_rows:
                new_state[table.name][KEYS_AT] = started.isoformat()
    counts.cursor_to = _cursor_text(new_state.get(table.name, {}))
    return manifest.TableLoad(table, load_id, plan, counts, started, datetime.now(UTC))


def _keys_at(state: dict[str, Any]) -> datetime | None:
    """When all keys of a table that is read by cursor were last compared; None before it was first read so."""
    said = state.get(KEYS_AT)
    return None if said is None else datetime.fromisoformat(said)


def _is_equal(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    reader: AnyReader,
    target: landing.TableLanding,
    state: dict[str, Any],
    full: bool,
) -> bool:
    """Whether a table that is compared whole is what it was when it was compared last."""
    if isinstance(reader, StreamReader) or not target.may_stay:
        return False
    if target.plan.source_rows > settings.compare_below_rows or quarantine.open_positions(connection, target.table):
        return False  # read by cursor the next time; or a row may fit now that did not
    known = None if full else Equal.of(state)
    return target.is_equal(reader.digest(target.table, target.plan), token_key(settings), known)


def open_reader(
    connection: duckdb.DuckDBPyConnection, settings: Settings, endpoints: Endpoints, source: SourceName
) -> AnyReader:
    """The reader of a source, a context manager. Raises ConfigurationError when the source has no address."""
    address = {
        "oltp": endpoints.postgres_uri,
        "mongodb": endpoints.mongodb_uri,
        "stream": endpoints.kafka_bootstrap,
    }.get(source)
    if address is None:
        raise ConfigurationError(
            f"there is no address for the source {source}", todo="set its *_URI, or `warehouse sources up`"
        )
    match source:
        case "oltp":
            return OltpReader(connection, settings, address)
        case "mongodb":
            return MongoReader(connection, settings, address)
        case _:
            return StreamReader(connection, settings, address)


def _seal_facts(load: manifest.TableLoad) -> dict[str, Any]:
    return {
        "rows": {path.name: rows for path, rows in load.counts.files.items()},
        "mode": load.plan.mode,
        "source_rows": load.counts.source_rows,
        "schema_fingerprint": load.table.fingerprint,
    }


def landing_failure(source: str, error: duckdb.Error | OSError) -> WarehouseError:
    """DuckDB's error as ours: its class only, because its message may quote a value."""
    return WarehouseError(
        f"{source}: landing failed ({type(error).__name__})",
        kept="everything landed before; the load that failed is discarded on the next run",
        todo="run this again; `warehouse doctor` looks for causes",
    )


def _summary(counts: landing.Counts) -> str:
    parts = [f"{counts.landed_rows:,} new"]
    if counts.unchanged_rows:
        parts.append(f"{counts.unchanged_rows:,} unchanged")
    if counts.deleted_rows:
        parts.append(f"{counts.deleted_rows:,} deleted at the source")
    if counts.quarantined_rows:
        parts.append(f"{counts.quarantined_rows:,} quarantined")
    return ", ".join(parts)


def _cursor_text(state: dict[str, Any]) -> str | None:
    if "offsets" in state:
        return ",".join(f"{partition}:{offset}" for partition, offset in sorted(state["offsets"].items())) or None
    cursor = state.get("cursor")
    return str(cursor) if cursor else None
