"""What is loaded, how fresh it is, how the last run went; and, by :mod:`warehouse.doctor`, what is broken.

Read from the run reports and the published copy, so that it answers while a refresh holds the warehouse.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb

from ingestion import quarantine
from warehouse.core.database import open_published
from warehouse.core.errors import WarehouseError
from warehouse.core.locks import describe_holder
from warehouse.core.paths import Home
from warehouse.core.settings import CATALOG, Settings
from warehouse.doctor import Finding, doctor
from warehouse.report import last_report

__all__ = ["Finding", "Status", "TableLoad", "doctor", "status"]


@dataclass(frozen=True)
class TableLoad:
    """The newest completed load of one raw table."""

    source: str
    table: str
    mode: str
    finished_at: datetime
    """UTC."""
    age_hours: float
    source_rows: int
    landed_rows: int
    quarantined_rows: int
    deleted_rows: int
    amount_sum: Decimal | None
    """Of what landed, all currencies: a checksum, not money."""
    key_checksum: str | None
    cursor_from: str | None
    cursor_to: str | None
    seconds: float
    lake_bytes: int


@dataclass(frozen=True)
class Status:
    """One installation, now. What does not exist yet is None or empty."""

    home: str
    running: str | None
    """Who holds the warehouse, for people."""
    last_run: dict[str, Any] | None
    """The newest run report."""
    published_at: datetime | None
    """UTC."""
    published_age_hours: float | None
    published_rows: dict[str, int]
    """`public.fct_sales` → rows."""
    loads: tuple[TableLoad, ...]
    """As of the last publish."""
    alerts: tuple[str, ...]
    """Tables whose newest load refused more than the tolerated share."""
    quality: dict[str, dict[str, Any]]
    """Border → its last quality report."""
    problem: str | None
    """Why the published copy cannot be read, if there is one that cannot."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`; times in ISO 8601."""
        data = asdict(self)
        data["published_at"] = self.published_at.isoformat(timespec="seconds") if self.published_at else None
        for load in data["loads"]:
            load["finished_at"] = load["finished_at"].isoformat(timespec="seconds")
            load["amount_sum"] = None if load["amount_sum"] is None else str(load["amount_sum"])
        return data


def status(settings: Settings, *, now: datetime | None = None) -> Status:
    """Read the state of this installation; never raises for what is missing or broken, but says so.

    Args:
        settings: whose warehouse.
        now: the time that ages are counted to; default the clock's.
    """
    now = now or datetime.now(UTC)
    home = Home.of(settings)
    published_at: datetime | None = None
    rows: dict[str, int] = {}
    loads: tuple[TableLoad, ...] = ()
    problem: str | None = None
    if home.published.exists():
        published_at = datetime.fromtimestamp(home.published.stat().st_mtime, UTC)
        try:
            with open_published(settings) as connection:
                rows = count_rows(connection)
                loads = _loads(connection, now)
        except (WarehouseError, duckdb.Error) as error:
            problem = error.what if isinstance(error, WarehouseError) else type(error).__name__
    return Status(
        home=str(home.root),
        running=describe_holder(settings),
        last_run=last_report(settings),
        published_at=published_at,
        published_age_hours=_hours(now, published_at) if published_at else None,
        published_rows=rows,
        loads=loads,
        alerts=tuple(
            quarantine.alerts(
                {f"{load.source}.{load.table}": (load.quarantined_rows, load.source_rows) for load in loads}
            )
        ),
        quality=_quality(home),
        problem=problem,
    )


def count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows of every base table of the attached warehouse or published copy: `public.fct_sales` → rows."""
    tables = connection.execute(
        "select table_schema, table_name from information_schema.tables"
        " where table_catalog = ? and table_type = 'BASE TABLE' order by all",
        [CATALOG],
    ).fetchall()
    counts = {}
    for schema, table in tables:
        row = connection.execute(f'select count(*) from {CATALOG}."{schema}"."{table}"').fetchone()
        counts[f"{schema}.{table}"] = row[0] if row else 0
    return counts


def _loads(connection: duckdb.DuckDBPyConnection, now: datetime) -> tuple[TableLoad, ...]:
    rows = connection.execute(
        f"""
        select
            source, table_name, mode, finished_at, source_rows, landed_rows, quarantined_rows, deleted_rows,
            amount_sum, key_checksum, cursor_from, cursor_to,
            epoch(finished_at) - epoch(started_at) as seconds, lake_bytes
        from {CATALOG}.raw_ops.load_manifest
        where status = 'completed' and mode <> 'retry'
        qualify row_number() over (partition by source, table_name order by finished_at desc) = 1
        order by source, table_name
        """
    ).fetchall()
    return tuple(
        TableLoad(source, table, mode, finished, _hours(now, finished), *counts)
        for source, table, mode, finished, *counts in rows
    )


def _quality(home: Home) -> dict[str, dict[str, Any]]:
    reports = {}
    for path in sorted((home.site / "data_docs").glob("*/report.json")):
        try:
            reports[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            continue  # a run that died while writing it; the next one writes it again
    return reports


def _hours(now: datetime, then: datetime) -> float:
    return round((now - then).total_seconds() / 3600, 2)
