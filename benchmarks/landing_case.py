"""A table from a source to the sealed lake, as `ingest` does it up to the load, and the whole of `ingest` beside it.

The lake is what PERFORMANCE's goals for documents and events name. Its files are the real ones: read, treated, hashed,
encrypted, sealed with their digests. The whole landing adds the vault, the manifest, dlt's package and the load of
current rows (and of history, where the table has one) into the encrypted warehouse.
"""

from __future__ import annotations

import base64
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import duckdb

from benchmarks.harness import Outcome, Stopwatch
from ingestion import boundary, landing
from ingestion.lake import Lake, sql_text
from ingestion.load import read_state
from ingestion.raw import create_raw_tables
from ingestion.run import AnyReader, ingest
from ingestion.schema import Table, tables
from warehouse import servers
from warehouse.core.database import LAKE_KEY_NAME, open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.keys import create_missing_keys
from warehouse.core.paths import Home as Folders
from warehouse.core.settings import CATALOG, Settings, load_settings
from warehouse.privacy import vault
from warehouse.privacy.tokens import token_key


@dataclass(frozen=True)
class Home:
    """A warehouse's folder and key: what a case in a process of its own needs to open it."""

    path: str
    key: str

    @classmethod
    def new(cls, folder: str) -> Self:
        """A home in a folder, under a new key."""
        return cls(folder, base64.b64encode(secrets.token_bytes(32)).decode())

    def settings(self, **others: Any) -> Settings:
        """Its settings, with embedded servers, and `others` by name."""
        return load_settings(
            **others,
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
        home = Home.new(folder)
        settings = home.settings()
        create_missing_keys(settings)
        try:
            yield home, servers.up(settings)
        finally:
            servers.down(settings)


def land(
    settings: Settings, table: Table, make_reader: Callable[[duckdb.DuckDBPyConnection, Endpoints], AnyReader]
) -> Outcome:
    """Read, treat, write and seal, where nothing has landed. The clock starts with the reader, stops with the seal."""
    without_landings(settings)
    load_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    with open_warehouse(settings, memory_limit=settings.memory_limit) as connection:
        connection.execute("set preserve_insertion_order = false")  # as `ingest` does
        create_raw_tables(connection)
        vault.attach_vault(connection, settings)
        boundary.install(connection, token_key(settings))
        landing.prepare(connection)
        lake = Lake(settings)
        clock = Stopwatch()
        with make_reader(connection, servers.resolve(settings)) as reader:
            plan = reader.plan(table, {}, full=True)
            target = landing.TableLanding(connection, lake, table, load_id, datetime.now(UTC), plan)
            for chunk in reader.chunks(table, plan):
                target.add(chunk)
        counts = target.finish()
        rows = {path.name: found for path, found in counts.files.items()}
        lake.seal(table.source, table.name, load_id, {"rows": rows})
        clock.stop()
        files = ", ".join(sql_text(path) for path in counts.files)
        total = connection.execute(
            f"select sum((document ->> 'amount')::decimal(18, 2)) from "
            f"read_parquet([{files}], encryption_config = {{footer_key: '{LAKE_KEY_NAME}'}})"
        ).fetchone()
    return clock.outcome(counts.landed_rows, Decimal(total[0]) if total else None)


def ingested(settings: Settings, endpoints: Endpoints, table: Table, *, full: bool = True, **options: Any) -> Outcome:
    """All of `ingest` for one table of its source, then its rows in the warehouse counted. Start-up is not measured."""
    only(table)
    with open_warehouse(settings, postgres=table.source == "oltp") as connection:
        create_raw_tables(connection)
        read_state(connection, settings, table.source)
    clock = Stopwatch()
    ingest(settings, endpoints, run_id="bench", sources=(table.source,), full=full, **options)
    clock.stop()
    amount = "(document ->> 'amount')::decimal(18, 2)" if table.is_document else str(table.amount)
    with open_warehouse(settings, read_only=True) as connection:
        found = connection.execute(
            f"select count(*), sum({amount}) from {CATALOG}.{table.qualified} where _deleted_at is null"
        ).fetchone()
    return clock.outcome(*(found or (0,)))


def only(table: Table) -> None:
    """From here on this process knows no other table of the source."""
    known = tables(table.source)
    known.clear()
    known[table.name] = table


def without_landings(settings: Settings) -> None:
    """Forget what has landed: the lake and the warehouse of these settings, not their keys."""
    folders = Folders.of(settings)
    shutil.rmtree(folders.lake, ignore_errors=True)
    for path in folders.root.glob("warehouse.duckdb*"):
        path.unlink()
