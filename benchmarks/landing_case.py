"""A table from a source to the sealed lake, as `ingest` does it up to the load: what the document benchmarks time."""

from __future__ import annotations

import base64
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb

from benchmarks.harness import Outcome
from ingestion import boundary, landing
from ingestion.lake import Lake, sql_text
from ingestion.raw import create_raw_tables
from ingestion.run import AnyReader
from ingestion.schema import Table
from warehouse import servers
from warehouse.core.database import LAKE_KEY_NAME, open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.keys import create_missing_keys
from warehouse.core.settings import Settings, load_settings
from warehouse.privacy import vault
from warehouse.privacy.tokens import token_key


@dataclass(frozen=True)
class Home:
    """A warehouse's folder and key: what a case in a process of its own needs to open it."""

    path: str
    key: str

    def settings(self) -> Settings:
        """Its settings, with embedded servers."""
        return load_settings(
            warehouse_home=Path(self.path),
            dbt_env_secret_warehouse_key=self.key,
            postgres_uri=None,
            mongodb_uri=None,
            kafka_bootstrap=None,
        )


@contextmanager
def embedded() -> Iterator[tuple[Home, Endpoints]]:
    """A new home and its servers, removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder, base64.b64encode(secrets.token_bytes(32)).decode())
        settings = home.settings()
        create_missing_keys(settings)
        try:
            yield home, servers.up(settings)
        finally:
            servers.down(settings)


def land(
    settings: Settings, table: Table, make_reader: Callable[[duckdb.DuckDBPyConnection, Endpoints], AnyReader]
) -> Outcome:
    """Read, treat, write and seal. The clock starts with the reader and stops with the seal."""
    load_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        connection.execute("set preserve_insertion_order = false")  # as `ingest` does
        create_raw_tables(connection)
        vault.attach_vault(connection, settings)
        boundary.install(connection, token_key(settings))
        landing.prepare(connection)
        lake = Lake(settings)
        started = time.perf_counter()
        with make_reader(connection, servers.resolve(settings)) as reader:
            plan = reader.plan(table, {}, full=True)
            target = landing.TableLanding(connection, lake, table, load_id, datetime.now(UTC), plan)
            for chunk in reader.chunks(table, plan):
                target.add(chunk)
        counts = target.finish()
        rows = {path.name: found for path, found in counts.files.items()}
        lake.seal(table.source, table.name, load_id, {"rows": rows})
        seconds = time.perf_counter() - started
        files = ", ".join(sql_text(path) for path in counts.files)
        total = connection.execute(
            f"select sum((document ->> 'amount')::decimal(18, 2)) from "
            f"read_parquet([{files}], encryption_config = {{footer_key: '{LAKE_KEY_NAME}'}})"
        ).fetchone()
    return Outcome(seconds, counts.landed_rows, Decimal(total[0]) if total else None)
