"""PostgreSQL → lake and raw tables, beside a drained COPY, dlt's own backends and rivet.

One table of 13 columns like `transaction`, no personal column. Set `BENCH_ROWS` and `BENCH_LARGE_ROWS` for other sizes,
`BENCH_RIVET` and `SLING_BINARY` for the peers' programs; a peer that is not there is reported as not measured.
"""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from benchmarks import peers
from benchmarks.harness import (
    Case,
    Outcome,
    Row,
    Stopwatch,
    Summary,
    check,
    interleaved,
    paired,
    peak_of_command,
    run_case,
    summary,
)  # fmt: skip
from benchmarks.landing_case import ingested, only, without_landings
from ingestion import boundary, landing
from ingestion.lake import Lake
from ingestion.raw import create_raw_tables
from ingestion.schema import Leaf, Table
from ingestion.sources.oltp import OltpReader
from warehouse import servers
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.keys import create_missing_keys
from warehouse.core.settings import Settings, load_settings
from warehouse.privacy.tokens import token_key

ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
LARGE_ROWS = int(os.environ.get("BENCH_LARGE_ROWS", str(3 * ROWS)))
PEER_ROWS = ROWS // 10
"""dlt's own backends are measured on less: their rate does not depend on it, and nobody waits."""
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))

COLUMNS = {
    "payment_id": "varchar", "merchant_id": "varchar", "customer_id": "varchar", "product_id": "varchar",
    "quantity": "integer", "device_id": "varchar", "location_id": "varchar", "currency_code": "varchar",
    "amount": "decimal(18,4)", "tax": "decimal(18,4)", "status_code": "varchar",
    "created_at": "timestamp with time zone", "updated_at": "timestamp with time zone",
}  # fmt: skip
_DECLARED = {"varchar": "text", "decimal(18,4)": "numeric(18,4)", "timestamp with time zone": "timestamptz"}

_FILL = """
    create table {name} as
    select
        'PAY' || lpad(i::text, 10, '0') as payment_id, 'M' || lpad((i % 5000)::text, 6, '0') as merchant_id,
        'C' || lpad((i * 7919 % 200000)::text, 8, '0') as customer_id,
        'P' || lpad((i % 20000)::text, 6, '0') as product_id, (1 + i % 5)::int as quantity,
        'D' || lpad((i % 150000)::text, 8, '0') as device_id, 'L' || lpad((i % 3000)::text, 6, '0') as location_id,
        (array['EUR', 'USD', 'GBP', 'JPY'])[1 + i % 4] as currency_code,
        ((1 + i * 104729 % 1000000)::numeric / 100 + {shift})::numeric(18, 4) as amount,
        ((1 + i * 104729 % 1000000)::numeric / 1000)::numeric(18, 4) as tax, 'captured'::text as status_code,
        timestamptz '2024-01-01' + i * interval '7 seconds' as created_at,
        timestamptz '2024-01-01' + i * interval '7 seconds 1 microsecond' as updated_at
    from generate_series(1::bigint, {rows}) as i
"""


def pinned(history: bool = False, name: str = "payment") -> Table:
    """The table as schema.yml would pin it."""
    return Table(
        source="oltp",
        raw_schema="raw_oltp",
        name="payment",
        origin=name,
        key=("payment_id",),
        cursor="updated_at",
        history=history,
        subject=None,
        amount="amount",
        columns=tuple(
            Leaf(column, "internal", sql_type, declared=_DECLARED.get(sql_type, sql_type))
            for column, sql_type in COLUMNS.items()
        ),
    )


# -- cases: each runs in a process of its own --------------------------------------------------------------------


def drained(source: str, name: str) -> Outcome:
    """The limit: binary COPY, thrown away."""
    with psycopg.connect(source) as connection, connection.cursor() as cursor:
        clock = Stopwatch()
        with cursor.copy(f"copy {name} to stdout (format binary)".encode()) as copy:
            for _ in copy:
                pass
        return clock.outcome(cursor.rowcount)


def appended(source: str, home: Path, name: str, history: bool) -> Outcome:
    """Ours, from PostgreSQL to the raw table, into a home where nothing has landed."""
    settings = _settings(home)
    without_landings(settings)
    return _ingested(settings, source, pinned(history, name))


def merged(source: str, home: Path, name: str) -> Outcome:
    """Ours, on the raw table that :func:`appended` left there, when every row has changed since."""
    return _ingested(_settings(home), source, pinned(name=name))


def unchanged(source: str, home: Path, name: str) -> Outcome:
    """Ours, by cursor, when nothing has changed."""
    return _ingested(_settings(home), source, pinned(name=name), full=False)


def keys_reconciled(source: str, home: Path, name: str) -> Outcome:
    """The same, and all keys compared."""
    return _ingested(_settings(home), source, pinned(name=name), full=False, reconcile_keys=True)


def extracted(source: str, home: Path, name: str) -> Outcome:
    """Ours, as far as the sealed lake."""
    settings, table = _settings(home), pinned(name=name)
    lake = Lake(settings)
    without_landings(settings)
    with open_warehouse(settings, postgres=True, memory_limit=settings.memory_limit) as connection:
        connection.execute("set preserve_insertion_order = false")
        only(table)
        create_raw_tables(connection)
        boundary.install(connection, token_key(settings))
        landing.prepare(connection)
        clock = Stopwatch()
        with OltpReader(connection, settings, source) as reader:
            reader.check_shape([table])
            plan = reader.plan(table, {}, full=False)
            target = landing.TableLanding(connection, lake, table, "bench", datetime.now(UTC), plan)
            for relation in reader.chunks(table, plan):
                target.add(relation)
            counts = target.finish()
        lake.seal("oltp", table.name, "bench", {"rows": {path.name: rows for path, rows in counts.files.items()}})
        clock.stop()
        files = ", ".join(f"'{path}'" for path in counts.files)
        rows, total = _row(
            connection,
            f"select count(*), sum(amount) from read_parquet([{files}], encryption_config = {{footer_key: 'lake'}})",
        )
    return clock.outcome(rows, total)


def by_dlt(source: str, name: str, backend: str) -> Outcome:
    """dlt's own source for databases, into a plain DuckDB file."""
    import dlt
    from dlt.sources.sql_database import sql_table

    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "database.duckdb"
        clock = Stopwatch()
        pipeline = dlt.pipeline("peer", pipelines_dir=folder, destination=dlt.destinations.duckdb(str(database)))
        uri = source.replace("postgresql://", "postgresql+psycopg://")
        table = sql_table(uri, name, backend=backend)  # type: ignore[arg-type]  # a Literal, given as a text
        pipeline.run(table, dataset_name="peer", table_name="payment")
        clock.stop()
        with duckdb.connect(str(database)) as connection:
            return clock.outcome(*_row(connection, "select count(*), sum(amount)::decimal(38, 4) from peer.payment"))


def by_rivet(program: str, source: str, name: str) -> Outcome:
    """rivet-cli, into plain Parquet: its fast profile (without one it waits between batches), no row hash, no check."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rivet.yml"
        config.write_text(
            "source: {type: postgres, url_env: BENCH_SOURCE, tuning: {profile: fast}}\n"
            f"exports: [{{name: payment, table: public.{name}, mode: full, format: parquet, "
            f"destination: {{type: local, path: {folder}/out/}}, "
            "columns: {amount: 'decimal(18,4)', tax: 'decimal(18,4)'}}]\n"
        )
        clock = Stopwatch()
        peak_of_command([program, "--no-notify", "run", "--config", str(config)], {"BENCH_SOURCE": source})
        clock.stop()
        with duckdb.connect() as connection:
            found = _row(connection, f"select count(*), sum(amount) from '{folder}/out/**/*.parquet'")
        return clock.outcome(*found)


def by_sling(program: str, source: str, name: str) -> Outcome:
    """sling, into CSV: for Parquet it would download a program."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "run", "--src-conn", "BENCH_SOURCE", "--src-stream", f"public.{name}"]
        environment = {
            "BENCH_SOURCE": f"{source}?sslmode=disable",
            "HOME": folder,
            "SLING_DISABLE_TELEMETRY": "TRUE",
        }
        clock = Stopwatch()
        peak_of_command([*command, "--tgt-object", f"file://{folder}/out.csv"], environment)
        clock.stop()
        with duckdb.connect() as connection:
            found = _row(connection, f"select count(*), sum(amount::decimal(38, 4)) from '{folder}/out.csv'")
        return clock.outcome(*found)


# -- the suite ---------------------------------------------------------------------------------------------------


def measure() -> list[Row]:
    """Start a PostgreSQL of our own, fill it, measure; it is stopped and removed afterwards."""
    with _source() as (settings, endpoints):
        source = str(endpoints.postgres_uri)
        home = settings.warehouse_home
        expected = _fill(endpoints, "payment", ROWS)
        changed = _fill(endpoints, "payment_changed", ROWS, shift=1)
        few = _fill(endpoints, "payment_few", PEER_ROWS)
        rivet, sling = peers.rivet(), peers.sling()

        drain: Case = (drained, (source, "payment"))
        cases: dict[str, Case] = {
            "drain": drain,
            "append": (appended, (source, home / "append", "payment", False)),
            "history": (appended, (source, home / "history", "payment", True)),
            "lake": (extracted, (source, home / "lake", "payment")),
        }
        if rivet:
            cases["rivet"] = (by_rivet, (rivet, source, "payment"))
        if sling:
            cases["sling"] = (by_sling, (sling, source, "payment"))
        found = interleaved(cases, expected, REPEATS)
        backends = interleaved(
            {backend: (by_dlt, (source, "payment_few", backend)) for backend in ("sqlalchemy", "pyarrow")}, few, 1
        )
        before, merges = [], []
        for _ in range(REPEATS):  # a merge needs a table to merge into, and is compared with the append that made it
            before.append(run_case(cases["append"]))
            merges.append(run_case((merged, (source, home / "append", "payment_changed"))))
            check("merge", merges[-1][0], changed)
        merge, made = summary(merges), summary(before)
        idle = interleaved(
            {
                "quiet": (unchanged, (source, home / "append", "payment_changed")),
                "keys": (keys_reconciled, (source, home / "append", "payment_changed")),
            },
            changed,
            REPEATS,
        )
        large_expected = _fill(endpoints, "payment_large", LARGE_ROWS)
        large = interleaved({"lake": (extracted, (source, home / "lake", "payment_large"))}, large_expected, 1)["lake"]
        whole = interleaved(
            {"append": (appended, (source, home / "append", "payment_large", False))}, large_expected, 1
        )["append"]
        large_idle = interleaved(
            {
                "quiet": (unchanged, (source, home / "append", "payment_large")),
                "keys": (keys_reconciled, (source, home / "append", "payment_large")),
            },
            large_expected,
            1,
        )

    drain_s, append = found["drain"], found["append"]
    flat = large.peak_mb / found["lake"].peak_mb
    quiet, keys = idle["quiet"], idle["keys"]
    return [
        Row(f"COPY binary, drained (all: median of {REPEATS})", drain_s.told()),
        _ratio("append: source → sealed lake → raw", append, "drained COPY", paired(append, drain_s), 0.40),
        *(
            _ratio("the same", append, f"dlt {name} ({PEER_ROWS:,} rows)", append.rate / backends[name].rate, goal)
            for name, goal in (("sqlalchemy", 12), ("pyarrow", 4))
        ),
        _ratio("append with history (written twice)", found["history"], "append", paired(found["history"], append)),
        _ratio("merge, every row changed", merge, f"append ({made.told()})", paired(merge, made), 0.6),
        Row("merge, memory", f"{merge.peak_mb:.0f} MB", "", None, "≤ 800 MB", merge.peak_mb <= 800, merge.peak_mb),
        _peer("source → sealed lake", found["lake"], "rivet-cli", found.get("rivet"), 0.9),
        _peer("source → sealed lake", found["lake"], "sling, into CSV", found.get("sling")),
        Row(
            f"memory of extraction, {LARGE_ROWS:,} rows", f"{large.peak_mb:.0f} MB", f"{ROWS:,} rows", flat,
            "± 15 %", 0.85 <= flat <= 1.15, large.peak_mb,
        ),
        Row(f"append, {LARGE_ROWS:,} rows", whole.told(), "", None, "≤ 4096 MB", whole.peak_mb <= 4096, whole.peak_mb),
        Row(f"no-change run by cursor, {ROWS:,} rows", f"{quiet.seconds:.2f} s", "", None, "≈ 2 s", quiet.seconds <= 2),
        _reconciled(quiet, keys),
        _reconciled(large_idle["quiet"], large_idle["keys"]),
    ]  # fmt: skip


def _reconciled(quiet: Summary, keys: Summary) -> Row:
    """All keys compared, less what the run takes without that; its goal is of ten million."""
    beyond = keys.seconds - quiet.seconds
    ten_million = beyond * 10_000_000 / keys.rows
    said = "" if keys.rows >= 10_000_000 else f"10M keys, extrapolated: {ten_million:.0f} s"
    return Row(
        f"reconciliation of {keys.rows:,} keys, beyond a no-change run", f"{beyond:.2f} s", said,
        None, "≈ 60 s for 10M", ten_million <= 60 if beyond > 0 else None, keys.peak_mb,
    )  # fmt: skip


def _ratio(what: str, found: Summary, against: str, ratio: float, goal: float | None = None) -> Row:
    met = None if goal is None else ratio >= goal
    return Row(what, found.told(), against, ratio, "" if goal is None else f"≥ {goal}", met, found.peak_mb)


def _peer(what: str, found: Summary, name: str, peer: Summary | None, goal: float | None = None) -> Row:
    if peer is None:
        return Row(what, found.told(), f"{name}: not measured, its program is not here", peak_mb=found.peak_mb)
    return _ratio(what, found, f"{name} ({peer.told()}, {peer.peak_mb:.0f} MB)", paired(found, peer), goal)


@contextmanager
def _source() -> Iterator[tuple[Settings, Endpoints]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        # PostgreSQL's own account must be able to enter
        Path(folder).chmod(0o755)
        settings = _settings(Path(folder))
        try:
            yield settings, servers.up(settings)
        finally:
            servers.down(settings)


def _settings(home: Path) -> Settings:
    """A home with keys of its own; the other two sources are named, so that no server is started for them."""
    home.mkdir(parents=True, exist_ok=True)
    key = home / "warehouse.key"
    if not key.exists():
        key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    settings = load_settings(
        warehouse_home=home,
        postgres_uri=None,
        mongodb_uri="mongodb://127.0.0.1:1/none",
        kafka_bootstrap="127.0.0.1:1",
        dbt_env_secret_warehouse_key=key.read_text(),
    )
    create_missing_keys(settings)
    return settings


def _fill(endpoints: Endpoints, name: str, rows: int, shift: int = 0) -> tuple[int, Decimal]:
    """Make a table of the source; returns what must arrive of it."""
    with psycopg.connect(str(endpoints.postgres_admin_uri), autocommit=True) as connection:
        connection.execute(_FILL.format(name=name, rows=rows, shift=shift).encode())
        connection.execute(f"alter table {name} add primary key (payment_id)".encode())
        connection.execute(f"create index on {name} (updated_at)".encode())
        connection.execute(f"vacuum analyze {name}".encode())
        connection.execute(b"checkpoint")
        found = connection.execute(f"select count(*), sum(amount) from {name}".encode()).fetchone()
    return found or (0, Decimal(0))


def _ingested(settings: Settings, source: str, table: Table, *, full: bool = True, **options: Any) -> Outcome:
    return ingested(settings, Endpoints(source, None, None), table, full=full, **options)


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    return connection.execute(sql).fetchone() or ()
