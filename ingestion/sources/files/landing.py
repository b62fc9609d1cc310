"""Landing what lies in the drop folder, each file once.

A file is read whole into a temporary table first (its spill is encrypted), so that everything that can be wrong with it
as a whole is known before a byte of it lands. Its SHA-256 is committed with its rows, as the position of the source's
channel `files`; `raw_ops.landed_files` is the list of all of them. Killed anywhere, a file lands again completely or
is found to have landed, and is then removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import groupby, zip_longest

import duckdb

from ingestion import manifest, quarantine
from ingestion.boundary import Boundary, compile_boundary
from ingestion.destinations.protocol import Destination
from ingestion.lake import Lake, sql_text
from ingestion.landing import Counts, TableLanding
from ingestion.load import LandedTable
from ingestion.schema import PLAIN_CLASSES, SourceName, Table, tables
from ingestion.settling import settle
from ingestion.sources import Plan
from ingestion.sources.files import drops
from ingestion.sources.files.drops import Drop, RefusedDrop
from ingestion.sources.files.formats import read_drop
from warehouse.core.errors import DropsRefused, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.progress import Progress
from warehouse.core.settings import CATALOG, Settings
from warehouse.privacy import vault

CHUNK_ROWS = 250_000
"""Rows of a file that go through the boundary at a time."""
_REPEATED = "repeated: a later row of the file has this key"
_FORMS = {
    "smallint": "[+-]?[0-9]+",
    "integer": "[+-]?[0-9]+",
    "bigint": "[+-]?[0-9]+",
    "boolean": "t|f|true|false",
    "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "timestamp with time zone": (
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?(Z|[+-][0-9]{2}(:[0-9]{2})?)"
    ),
}
"""How text must look to be a value of a type without rounding: DuckDB casts '3.7' to the bigint 4."""


@dataclass
class DropsReport:
    """What the drop folder gave: `<source>.<table>` → counts, what people should know, what did not land and why."""

    tables: dict[str, Counts] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    files: int = 0
    seconds: float = 0.0

    def failure(self) -> DropsRefused | None:
        """The refusals as one error, or None."""
        if not self.refused:
            return None
        return DropsRefused(
            f"{len(self.refused)} dropped files did not land: "
            + "; ".join(f"{label} {reason}" for label, reason in sorted(self.refused.items())),
            tuple(sorted(self.refused)),
            kept="the files, where they are; the other files have landed",
            todo="have them delivered again as the reason says, or remove them from the drop folder",
        )


@dataclass(frozen=True)
class _Staged:
    """A file that has been through the boundary and waits to be loaded."""

    drop: Drop
    sha256: str
    load: manifest.TableLoad


def land_drops(
    connection: duckdb.DuckDBPyConnection,
    destination: Destination,
    settings: Settings,
    run_id: str,
    progress: Progress,
) -> DropsReport:
    """Land every file that is ready. The connection is prepared as for a live source.

    Raises:
        WarehouseError: the drop folder cannot be read or a package cannot be loaded. What is wrong with single files
            is in the report: they stay, the others land.
    """
    started = datetime.now(UTC)
    report = DropsReport()
    found = drops.find(settings)
    report.refused |= found.refused
    for source in drops.SOURCES:
        waiting = [drop for drop in found.drops if drop.table.source == source]
        if not waiting and not (Home.of(settings).dlt / f"files_{source}").exists():
            continue
        _Channel(connection, destination, settings, run_id, source, report, progress).land(waiting)
    report.seconds = (datetime.now(UTC) - started).total_seconds()
    return report


class _Channel:
    """The drops of one source."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        destination: Destination,
        settings: Settings,
        run_id: str,
        source: SourceName,
        report: DropsReport,
        progress: Progress,
    ) -> None:
        self.connection = connection
        self.destination = destination
        self.settings = settings
        self.run_id = run_id
        self.source = source
        self.report = report
        self.progress = progress
        self.lake = Lake(settings)
        self.folder = drops.drops_folder(settings)

    def land(self, waiting: Sequence[Drop]) -> None:
        """Land `waiting` in rounds of one file per table: the order of the files of a table matters."""
        self.destination.drain_pending(self.source, self.progress)
        self.destination.drain_pending(self.source, self.progress, channel="files")
        settle(self.connection, self.lake, tables(self.source).values())
        self._remember_committed()
        self._settle_manifest()
        by_table = [list(group) for _, group in groupby(waiting, key=lambda drop: drop.table.name)]
        for round_ in zip_longest(*by_table):
            self._round([drop for drop in round_ if drop is not None])

    def _round(self, waiting: Sequence[Drop]) -> None:
        load_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
        self.connection.execute("truncate pending_vault")
        self.connection.execute("truncate pending_quarantine")
        staged: list[_Staged] = []
        for drop in waiting:
            try:
                sha256 = drops.digest(drop)
                if self._landed_before(drop, sha256):
                    continue
                staged.append(_Staged(drop, sha256, self._stage(drop, sha256, load_id)))
            except RefusedDrop as refusal:
                self._refuse(drop, load_id, str(refusal))
            except WarehouseError as error:
                self._refuse(drop, load_id, error.what)
            except duckdb.Error as error:
                self._refuse(drop, load_id, f"could not be landed ({type(error).__name__})")
        if not staged:
            return
        landed = []
        for item in staged:
            load = item.load
            if load.counts.files:
                facts = {
                    "rows": {path.name: rows for path, rows in load.counts.files.items()},
                    "mode": load.plan.mode,
                    "source_rows": load.counts.source_rows,
                    "schema_fingerprint": load.table.fingerprint,
                }
                self.lake.seal(self.source, load.table.name, load_id, facts)
                files, rows = tuple(load.counts.files), load.counts.landed_rows
                landed.append(LandedTable(load.table, load_id, files, rows, True, load.counts.late_rows))
        vault.store_entries(self.connection, "pending_vault", self.settings)
        quarantine.store(self.connection)
        manifest.prepare(self.connection, self.run_id, [item.load for item in staged])
        state = {"files": [_remembered(item) for item in staged]}
        self.destination.load_packages(self.source, landed, state, self.progress, channel="files")
        for entry in landed:
            self.lake.mark_loaded(self.source, entry.table.name, load_id)
        manifest.record(self.connection, load_id)
        self.destination.store_operations()
        self._remember_committed()
        for item in staged:
            self._account(item)
            self._clear(item.drop, item.sha256, item.load.counts.quarantined_rows)

    def _stage(self, drop: Drop, sha256: str, load_id: str) -> manifest.TableLoad:
        started = datetime.now(UTC)
        self.progress(f"files: reading {drop.label}")
        rows = self._read(drop)
        self._check_manifest(drop, rows)
        self._mark_repeated(drop.table)
        plan = Plan("drop", rows, unique_keys=True)
        target = TableLanding(
            self.connection,
            self.lake,
            drop.table,
            load_id,
            started,
            plan,
            boundary=_boundary(drop.table),
            at=f"'drop {sha256[:12]} row ' || line",
        )
        for first in range(0, rows, CHUNK_ROWS):
            target.add(f"select * from dropped where rowid between {first} and {first + CHUNK_ROWS - 1}")
        self.connection.execute("drop table dropped")
        drops.check_unchanged(drop)
        return manifest.TableLoad(drop.table, load_id, plan, target.finish(), started, datetime.now(UTC))

    def _read(self, drop: Drop) -> int:
        """The file's rows as the temporary table `dropped`; returns how many there are."""
        self.connection.execute("drop table if exists dropped")
        rows = 0
        with drops.opened(drop) as file:
            for batch in read_drop(file, drop.path.name, drop.size, drop.table, self._note(drop)):
                self.connection.register("dropped_batch", batch)
                verb = "insert into dropped by name" if rows else "create or replace temp table dropped as"
                self.connection.execute(f"{verb} select * from dropped_batch")
                self.connection.unregister("dropped_batch")
                rows += batch.num_rows
        if not rows:
            raise RefusedDrop("holds no row")
        return rows

    def _note(self, drop: Drop) -> Callable[[str], None]:
        return lambda text: self.report.alerts.append(f"{drop.label}: {text}")

    def _check_manifest(self, drop: Drop, rows: int) -> None:
        """Raise RefusedDrop when the file's manifest states other rows, or another sum of amounts, than it holds."""
        text = drops.manifest_text(drop)
        if text is None:
            return
        try:
            stated = json.loads(text)
            expected = stated["rows"]
            total = None if stated.get("sum") is None else Decimal(str(stated["sum"]))
        except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation, RecursionError):
            raise RefusedDrop('has a manifest that is not {"rows": number, "sum": "amount"}') from None
        if expected != rows:
            raise RefusedDrop("does not hold the rows that its manifest states")
        if total is None:
            return
        amount = drop.table.amount
        if amount is None:
            raise RefusedDrop("has a manifest with a sum, and the table has no amount")
        value = f"json_extract_string(doc, {sql_text('$.' + amount)})" if drop.table.is_document else f'"{amount}"'
        if drop.table.is_document:
            value = f"case when json_valid(doc) then {value} end"
        found = self.connection.execute(
            f"select coalesce(sum(try_cast({value} as decimal(38, 6))), 0) from dropped"
        ).fetchone()
        if found is None or Decimal(found[0]) != total:
            raise RefusedDrop("does not hold the sum of amounts that its manifest states")

    def _mark_repeated(self, table: Table) -> None:
        """Of rows with one key, the last is the file's word; the others go to the quarantine."""
        keys = ", ".join(f'"{key}"' for key in table.key)
        known = " and ".join(f'"{key}" is not null' for key in table.key)
        self.connection.execute(f"""
            update dropped set problem = '{_REPEATED}'
            where problem is null and line in (
                select line from (
                    select line, max(line) over (partition by {keys}) as last
                    from dropped
                    semi join (
                        select {keys} from dropped where problem is null and {known}
                        group by {keys} having count(*) > 1
                    ) using ({keys})
                    where problem is null
                ) where line < last
            )
        """)

    def _landed_before(self, drop: Drop, sha256: str) -> bool:
        """Whether a file with these bytes has landed in this table; if so it is cleared away."""
        found = self.connection.execute(
            f"select quarantined_rows from {CATALOG}.raw_ops.landed_files"
            " where source = ? and table_name = ? and sha256 = ?",
            [drop.table.source, drop.table.name, sha256],
        ).fetchone()
        if found is None:
            return False
        self.report.alerts.append(f"{drop.label} has landed before and was removed")
        self._clear(drop, sha256, found[0])
        return True

    def _clear(self, drop: Drop, sha256: str, quarantined: int) -> None:
        """A landed file leaves the drop folder, unless it was replaced meanwhile: then it is another file."""
        try:
            drops.check_unchanged(drop)
        except RefusedDrop as refusal:
            self.report.alerts.append(f"{drop.label} {refusal}; it is looked at again")
            return
        if quarantined:
            label = drops.set_aside(self.connection, drop, self.folder, sha256)
            self.report.alerts.append(f"{drop.label}: {quarantined} rows did not fit; the file is kept as {label}")
        else:
            drops.remove(drop)

    def _refuse(self, drop: Drop, load_id: str, reason: str) -> None:
        """Leave nothing of a file in this load: the others go on."""
        self.progress(f"files: {drop.label} is refused")
        self.report.refused[drop.label] = reason
        self.connection.execute("drop table if exists dropped")
        for name in ("pending_vault", "pending_quarantine"):
            self.connection.execute(f"delete from {name} where table_name = ?", [drop.table.name])
        self.lake.discard(self.source, drop.table.name, load_id)

    def _account(self, item: _Staged) -> None:
        self.report.files += 1
        if late := item.load.counts.late_rows:
            self.report.alerts.append(
                f"{item.drop.label}: {late} rows are older than what has landed; they are history"
            )
        name = f"{self.source}.{item.drop.table.name}"
        counts = self.report.tables.setdefault(name, Counts())
        for column in (
            "source_rows",
            "read_rows",
            "unchanged_rows",
            "landed_rows",
            "quarantined_rows",
            "unknown_keys",
            "unknown_events",
            "late_rows",
        ):
            setattr(counts, column, getattr(counts, column) + getattr(item.load.counts, column))

    def _settle_manifest(self) -> None:
        committed = self.destination.read_state(self.source, channel="files").get("files", [])
        manifest.settle(self.connection, self.source, {entry["load_id"] for entry in committed}, dropped=True)

    def _remember_committed(self) -> None:
        """Add the files of the last committed package to the list, where a killed run did not."""
        committed = self.destination.read_state(self.source, channel="files").get("files", [])
        for entry in committed:
            self.connection.execute(
                f"""
                insert into {CATALOG}.raw_ops.landed_files
                select $source, $table, $sha256, $bytes, $rows, $quarantined, $load_id, $landed_at::timestamptz
                where not exists (
                    select 1 from {CATALOG}.raw_ops.landed_files
                    where source = $source and table_name = $table and sha256 = $sha256
                )
                """,
                {"source": self.source, **entry},
            )


def _remembered(item: _Staged) -> dict[str, str | int]:
    return {
        "table": item.drop.table.name,
        "sha256": item.sha256,
        "bytes": item.drop.size,
        "rows": item.load.counts.source_rows,
        "quarantined": item.load.counts.quarantined_rows,
        "load_id": item.load.load_id,
        "landed_at": item.load.started_at.isoformat(),
    }


def _boundary(table: Table) -> Boundary:
    """The pinned boundary, and before its reasons what is wrong with a row of the file."""
    boundary = compile_boundary(table)
    if table.is_document:
        return boundary
    forms = [
        f"when typeof(\"{leaf.name}\") = 'VARCHAR' "
        f"and not regexp_full_match(\"{leaf.name}\"::varchar, '{_form(leaf.sql_type)}') then 'type: {leaf.name}'"
        for leaf in table.columns
        if leaf.data_class in PLAIN_CLASSES and (leaf.sql_type in _FORMS or leaf.sql_type.startswith("decimal("))
    ]
    found = f"case when problem is not null then problem {' '.join(forms)} end"
    return replace(boundary, reason=f"coalesce({found}, {boundary.reason})")


def _form(sql_type: str) -> str:
    if sql_type in _FORMS:
        return _FORMS[sql_type]
    scale = sql_type.removesuffix(")").rpartition(",")[2]
    return f"[+-]?[0-9]+([.][0-9]{{0,{scale}}}0*)?"
