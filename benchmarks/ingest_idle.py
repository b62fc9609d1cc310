"""A run of `ingest` that finds nothing new, over every table of the three sources.

A company of `BENCH_COMPANY` payments (50,000 by default) is simulated on embedded servers and lands. Its PostgreSQL
payments are multiplied to `BENCH_ROWS` rows first, by copies under ids of their own: that is the table whose size a run
must not feel. The topic is not multiplied; the embedded broker keeps everything in memory, and what is committed of it
is not read again anyhow.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import psycopg

from benchmarks.harness import Case, Outcome, Row, Stopwatch, interleaved, run_case
from benchmarks.landing_case import Home
from ingestion.load import read_state
from ingestion.run import LIVE_SOURCES, ingest
from ingestion.schema import all_tables
from warehouse import servers, simulation
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.keys import create_missing_keys
from warehouse.core.settings import CATALOG

ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
COMPANY = int(os.environ.get("BENCH_COMPANY", "50000"))
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))

_COLUMNS = (
    "merchant_id, customer_id, payment_method_id, product_id, quantity, device_id, location_id, currency_code, amount, "
    "tax, status_code, created_at, updated_at"
)


def measure() -> list[Row]:
    """Fill, land once, then look for changes where there are none."""
    with _company() as (home, endpoints):
        landed, _ = run_case((first, (home, endpoints)))
        case: Case = (unchanged, (home, endpoints))
        quiet = interleaved({"quiet": case}, (landed.rows, Decimal(0)), REPEATS)["quiet"]
    what = f"no-change run, {len(all_tables())} tables, {landed.rows:,} rows of them in the warehouse, beyond start-up"
    return [Row(what, quiet.told(), "", None, "≈ 2 s", quiet.seconds <= 2, quiet.peak_mb)]


def first(home: Home, endpoints: Endpoints) -> Outcome:
    """The landing that makes it so."""
    settings = home.settings()
    clock = Stopwatch()
    ingest(settings, endpoints, run_id="first", sources=LIVE_SOURCES)
    clock.stop()
    return clock.outcome(_landed(home))


def unchanged(home: Home, endpoints: Endpoints) -> Outcome:
    """The same again. Extensions and dlt are loaded before the clock starts.

    Raises RuntimeError when something landed: then it was not this that was measured.
    """
    settings = home.settings()
    with open_warehouse(settings, postgres=True) as connection:
        read_state(connection, settings, "oltp")
    clock = Stopwatch()
    report = ingest(settings, endpoints, run_id="unchanged", sources=LIVE_SOURCES)
    clock.stop()
    if report.landed_rows:
        raise RuntimeError(f"{report.landed_rows} rows landed in a run that was to find nothing new")
    return clock.outcome(_landed(home))


@contextmanager
def _company() -> Iterator[tuple[Home, Endpoints]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's own account must be able to enter
        home = Home.new(folder)
        settings = home.settings(sim_transactions=COMPANY)
        create_missing_keys(settings)
        try:
            endpoints = servers.up(settings)
            simulation.fill(settings, endpoints)
            _multiply_payments(endpoints)
            yield home, endpoints
        finally:
            servers.down(settings)


def _multiply_payments(endpoints: Endpoints) -> None:
    with psycopg.connect(str(endpoints.postgres_admin_uri), autocommit=True) as connection:
        connection.execute(b"set session_replication_role = replica")  # the copies refer to what is there
        connection.execute(
            f"""
            insert into public.transaction (transaction_id, {_COLUMNS})
            select transaction_id || '-' || copy, {_COLUMNS}
            from public.transaction
            cross join generate_series(1, {ROWS} / (select count(*) from public.transaction)) as copies (copy)
            limit greatest({ROWS} - (select count(*) from public.transaction), 0)
            """.encode()
        )
        connection.execute(b"vacuum analyze public.transaction")


def _landed(home: Home) -> int:
    with open_warehouse(home.settings(), read_only=True) as connection:
        counts = " + ".join(f"(select count(*) from {CATALOG}.{table.qualified})" for table in all_tables())
        row = connection.execute(f"select {counts}").fetchone()
    return int(row[0]) if row else 0
