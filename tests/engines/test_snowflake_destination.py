"""Loading the same sealed lake files into Snowflake: exact, once, and nothing half done after a kill at any statement.

Run against fakesnow: Snowflake's own driver and protocol, DuckDB behind them. What only Snowflake itself would show
(its type system, its stage encryption, locks between sessions) is asserted on the generated statements instead.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
import sqlglot
from sqlglot import exp

from ingestion.destinations import snowflake, snowflake_sql
from ingestion.destinations.choice import open_destination
from ingestion.destinations.protocol import Destination
from ingestion.destinations.snowflake import Session, snowflake_session
from ingestion.lake import Lake
from ingestion.load import LandedTable
from ingestion.raw import OPS_TABLES, create_raw_tables, raw_table_names
from ingestion.run import ingest
from ingestion.schema import all_tables
from tests.engines.fakesnow_server import PASSPHRASE
from tests.integration.landed_home import NOWHERE, drop
from tests.integration.test_load import (
    CURRENCY,
    CURRENCY_ROWS,
    EVENT_ROWS,
    EVENTS,
    PLANTED,
    PRODUCT,
    PRODUCT_ROWS,
    hits,
    land,
    rows_sql,
)
from tests.security.test_access_audit import HISTORY
from warehouse.core.database import blank_connection, open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete, WarehouseError
from warehouse.core.keys import create_missing_keys
from warehouse.core.paths import Home
from warehouse.core.settings import Settings, load_settings
from warehouse.privacy.access_audit import land_own, land_snowflake
from warehouse.privacy.audit import record
from warehouse.privacy.ocsf import Activity, Actor


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[duckdb.DuckDBPyConnection, Destination]]:
    with open_warehouse(settings) as connection, open_destination(connection, settings) as destination:
        yield connection, destination


def quiet(_: str) -> None:
    """No progress."""


def asked(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    """The answer of Snowflake to a query."""
    with snowflake_session(settings) as session:
        return session.run(query, step="a test's question")


def totals(settings: Settings, name: str) -> tuple[int, int, Decimal]:
    """Rows, distinct keys and the sum of prices of a product table in Snowflake."""
    # added up here: fakesnow adds decimals up as doubles
    rows = asked(settings, f"select product_id, unit_price from raw_oltp.{name}")
    return len(rows), len({key for key, _ in rows}), sum((price for _, price in rows), Decimal(0))


def local_totals(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[int, int, Decimal]:
    query = f"select count(*), count(distinct product_id), sum(unit_price) from raw_oltp.{name}"
    return connection.execute(query).fetchone()


def prices(count: int, first: int = 0) -> Decimal:
    """The sum that PRODUCT_ROWS give for `count` rows from `first`."""
    return sum(
        (Decimal("99999999999999.9999") - n * Decimal("0.0001") for n in range(first, first + count)), Decimal(0)
    )


# -- what arrives ------------------------------------------------------------------------------------------------


def test_every_type_arrives_exactly(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snowflake, "PART_BYTES", 4096)  # several parts
    monkeypatch.setattr(snowflake, "BATCH_ROWS", 2048)
    products = rows_sql(PRODUCT, PRODUCT_ROWS, "5000", "l1")
    with opened(settings) as (connection, destination):
        landed = land(connection, settings, PRODUCT, "l1", products)
        result = destination.load_packages("oltp", [landed], {"cursor": "c1"}, quiet)
        names = ", ".join(
            f"epoch_us({name})" if sql_type == "timestamp with time zone" else name
            for name, sql_type in PRODUCT.landed_columns
        )
        expected = connection.execute(f"select {names} from ({products}) order by product_id").fetchall()
    assert result.rows == {"product": 5000}
    # as numbers: fakesnow hands an instant that is null over as 1970
    columns = ", ".join(
        f"date_part(epoch_microsecond, {name})" if sql_type == "timestamp with time zone" else name
        for name, sql_type in PRODUCT.landed_columns
    )
    for name in raw_table_names(PRODUCT):
        found = asked(settings, f"select {columns} from raw_oltp.{name} order by product_id")
        assert found == expected
    assert asked(settings, "select distinct _dlt_load_id from raw_oltp.product") == [(result.dlt_load_id,)]


def test_documents_and_compound_keys_arrive_exactly(settings: Settings) -> None:
    with opened(settings) as (connection, destination):
        first = land(connection, settings, EVENTS, "l1", rows_sql(EVENTS, EVENT_ROWS, "300", "l1"))
        again = land(connection, settings, EVENTS, "l2", rows_sql(EVENTS, EVENT_ROWS, "200, 400", "l2"))
        destination.load_packages("stream", [first], {"n": 1}, quiet)
        destination.load_packages("stream", [again], {"n": 2}, quiet)
    rows = asked(
        settings,
        "select kafka_partition, kafka_offset, document, message_key, _load_id "
        "from raw_stream.payments_transactions order by kafka_offset",
    )
    assert [row[:2] for row in rows] == [(n % 3, 9007199254740993 + n) for n in range(400)]
    document = {"amount": "0.10", "deep": {"list": [1, 2.5, None]}, "text": "é'\"\\n"}
    assert [row[3] for row in rows if row[3] is not None] == []
    assert [row[2] for row in rows if json.loads(row[2]) != document] == []
    assert [row[4] for row in rows] == ["l1"] * 200 + ["l2"] * 200


def test_a_changed_row_replaces_its_key_and_history_keeps_both(settings: Settings) -> None:
    first = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
    second = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "0.0001"}, "90, 110", "l2", landed_at="2024-01-02")
    with opened(settings) as (connection, destination):
        destination.load_packages("oltp", [land(connection, settings, PRODUCT, "l1", first)], {"n": 1}, quiet)
        destination.load_packages("oltp", [land(connection, settings, PRODUCT, "l2", second)], {"n": 2}, quiet)
        assert destination.read_state("oltp") == {"n": 2}
        assert local_totals(connection, "product") == (110, 110, prices(90) + 20 * Decimal("0.0001"))
        assert local_totals(connection, "product_history")[:2] == (120, 110)
    assert totals(settings, "product") == (110, 110, prices(90) + 20 * Decimal("0.0001"))
    assert totals(settings, "product_history") == (120, 110, prices(100) + 20 * Decimal("0.0001"))


def test_the_version_that_landed_last_wins_within_a_package(settings: Settings) -> None:
    newer = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "2"}, "50", "l1", landed_at="2024-01-02")
    older = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "1"}, "50", "l1", landed_at="2024-01-01")
    with opened(settings) as (connection, destination):
        destination.load_packages("oltp", [land(connection, settings, PRODUCT, "l1", newer, older)], {}, quiet)
    assert totals(settings, "product") == (50, 50, Decimal(100))
    assert totals(settings, "product_history") == (100, 50, Decimal(150))


def test_a_load_that_is_in_the_ledger_is_not_loaded_again(settings: Settings) -> None:
    with opened(settings) as (connection, destination):
        landed = land(connection, settings, PRODUCT, "l1", rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1"))
        destination.load_packages("oltp", [landed], {"n": 1}, quiet)
        assert destination.load_packages("oltp", [landed], {"n": 1}, quiet).dlt_load_id is None
        again = destination.load_packages("oltp", [landed], {"n": 2}, quiet)
        assert (again.rows, destination.read_state("oltp")) == ({}, {"n": 2})
    assert totals(settings, "product_history")[:2] == (10, 10)


def test_states_of_sources_are_apart_and_survive_a_lost_home(settings: Settings, tmp_path: Path) -> None:
    state = {"customer": {"cursor": "2024-01-01T00:00:00Z"}, "offsets": [1, 2], "none": None, "text": "it's"}
    with opened(settings) as (_, destination):
        assert destination.read_state("oltp") == {}
        destination.load_packages("oltp", [], state, quiet)
    elsewhere = settings.model_copy(update={"warehouse_home": tmp_path / "other"})
    create_missing_keys(elsewhere)
    with open_warehouse(elsewhere) as connection:
        create_raw_tables(connection)
    with opened(elsewhere) as (_, destination):
        assert destination.read_state("oltp") == state
        assert destination.read_state("mongodb") == {}


def test_what_a_run_wrote_down_is_brought_over_once(settings: Settings) -> None:
    with opened(settings) as (connection, destination):
        for run in ("r1", "r2"):
            connection.execute(
                "insert into raw_ops.load_manifest (load_id, run_id, source, table_name, finished_at, amount_sum) "
                "values (?, ?, 'oltp', 'product', now(), 12.3456)",
                [f"l-{run}", run],
            )
            connection.execute(
                "insert into raw_ops.quarantine "
                "values (?, 'oltp', 'product', null, 'amount', '{\"a\": 1}', now(), null)",
                [f"l-{run}"],
            )
            destination.store_operations()
            destination.store_operations()
        connection.execute("update raw_ops.quarantine set resolved_at = now() where load_id = 'l-r1'")
        destination.store_operations()
    assert asked(settings, "select run_id, amount_sum from raw_ops.load_manifest order by run_id") == [
        ("r1", Decimal("12.3456")),
        ("r2", Decimal("12.3456")),
    ]
    assert asked(settings, "select load_id, resolved_at is null from raw_ops.quarantine order by load_id") == [
        ("l-r1", False),
        ("l-r2", True),
    ]


def test_history_that_comes_late_is_brought_over_too(settings: Settings) -> None:
    """Snowflake writes its views hours late: older events land after newer ones, and each arrives once."""
    with opened(settings) as (connection, destination):
        record(settings, Activity.QUERY, actor=Actor.current(), outcome="success", resources=[])
        assert land_own(connection, settings) == 1
        destination.store_operations()
        assert land_snowflake(connection, HISTORY) == 4
        for _ in range(2):
            destination.store_operations()
        assert (
            land_snowflake(connection, [HISTORY[0] | {"EVENT_ID": 6, "EVENT_TIMESTAMP": "2023-01-01T00:00:00Z"}]) == 1
        )
        destination.store_operations()
    found = asked(
        settings, "select event_system, event_code, count(*) from raw_ops.access_audit group by 1, 2 order by 1, 2"
    )
    assert found == [("snowflake", "login", 2), ("snowflake", "query", 3), ("warehouse", "query", 1)]


def test_a_table_of_an_earlier_release_gains_its_columns(settings: Settings) -> None:
    with opened(settings):
        pass  # makes what is missing
    asked(settings, "alter table raw_ops.load_manifest drop column unknown_events")
    with opened(settings) as (connection, destination):
        connection.execute(
            "insert into raw_ops.load_manifest (load_id, run_id, source, table_name, finished_at, unknown_events) "
            "values ('l', 'r', 'stream', 'payments_transactions', now(), 7)"
        )
        destination.store_operations()
    assert asked(settings, "select load_id, unknown_events from raw_ops.load_manifest") == [("l", 7)]


# -- a landing run -----------------------------------------------------------------------------------------------


def test_a_landing_run_loads_snowflake_and_lands_nothing_twice(settings: Settings) -> None:
    """The whole of `ingest`, over the source that needs no server: a file dropped, and the same rows dropped again."""
    settings = settings.model_copy(update={"drops_uri": None, "drops_settle_seconds": 0})
    header = b"currency_code,numeric_code,currency_name,minor_unit,updated_at\n"
    euro, yen = b"EUR,978,Euro,2,2024-01-01 00:00:00+00\n", b"JPY,392,Yen,0,2024-01-01 00:00:00+00\n"
    landed = []
    for run, content in enumerate((header + euro, header + euro + yen, header + yen + euro)):
        drop(settings, f"oltp/currency/day{run}.csv", content)
        landed.append(ingest(settings, NOWHERE, run_id=f"r{run}", sources=("files",)).landed_rows)
    assert landed == [1, 1, 0]
    assert asked(settings, "select currency_code, numeric_code, minor_unit from raw_oltp.currency order by 1") == [
        ("EUR", "978", 2),
        ("JPY", "392", 0),
    ]
    assert asked(settings, "select run_id, source_rows, landed_rows from raw_ops.load_manifest order by run_id") == [
        ("r0", 1, 1),
        ("r1", 2, 1),
        ("r2", 2, 0),
    ]
    assert asked(settings, "select count(*), count(distinct load_id) from raw_ops.landed_loads") == [(2, 2)]
    assert not (settings.warehouse_home / "warehouse.duckdb").exists()


# -- a run that dies ---------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process is gone: no statement of this session reaches Snowflake any more."""


def dying(monkeypatch: pytest.MonkeyPatch, at: tuple[str, int], *, after: bool) -> list[str]:
    """Let the process die at a statement, before it is sent or after it was executed; gives what was sent."""
    sent: list[str] = []
    dead = False
    begins, which = at
    run = Session.run

    def watched(self: Session, statement: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        nonlocal dead
        if dead:
            raise Died
        dead = statement.startswith(begins) and sum(text.startswith(begins) for text in sent) == which
        if dead and not after:
            raise Died
        sent.append(statement)
        rows = run(self, statement, parameters, **options)
        if dead:
            raise Died
        return rows

    monkeypatch.setattr(Session, "run", watched)
    return sent


def packages(
    connection: duckdb.DuckDBPyConnection, settings: Settings, load_id: str, landed_at: str
) -> list[LandedTable]:
    """Rows 90 to 110 of products with a new price, and two currencies."""
    changed = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "0.0001"}, "90, 110", load_id, landed_at=landed_at)
    return [
        land(connection, settings, PRODUCT, load_id, changed),
        land(connection, settings, CURRENCY, load_id, rows_sql(CURRENCY, CURRENCY_ROWS, "2", load_id)),
    ]


@pytest.fixture
def loaded(settings: Settings) -> Settings:
    """A hundred products are in, with the position {"n": 1}."""
    with opened(settings) as (connection, destination):
        first = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
        destination.load_packages("oltp", [land(connection, settings, PRODUCT, "l1", first)], {"n": 1}, quiet)
    return settings


KILL_POINTS = {
    "before anything": ("merge into", 0),
    "before the first file is sent": ("put", 0),
    "before the second table is copied": ("copy into", 1),
    "before the transaction": ("begin", 0),
    "before the position moves": ("update", 0),
    "before current rows are deleted": ("delete from", 0),
    "before current rows are inserted": ('insert into "RAW_OLTP"."PRODUCT"', 0),
    "before history is appended": ('insert into "RAW_OLTP"."PRODUCT_HISTORY"', 0),
    "before the ledger": ('insert into "RAW_OPS"."LANDED_LOADS"', 0),
    "before the second table": ("delete from", 1),
    "before the commit": ("commit", 0),
    "before tidying up": ("drop table", 0),
    "before the local tables follow": ('select "TABLE_NAME"', 1),
}
"""When → the statement (how it begins, and which of its kind) at which the process dies; also right after it."""


SAMPLE = {("before the position moves", True), ("before history is appended", False), ("before the commit", True)}


def kills() -> Iterator[Any]:
    """Every kill point, before and after its statement; those outside the sample are slow."""
    for point in KILL_POINTS:
        for after in (False, True):
            marks = [] if (point, after) in SAMPLE else [pytest.mark.slow]
            yield pytest.param(point, after, marks=marks, id=f"{point}, {'unanswered' if after else 'unsent'}")


@pytest.mark.parametrize(("point", "after"), list(kills()))
def test_killed_at_a_statement_the_next_run_ends_exact(
    loaded: Settings, monkeypatch: pytest.MonkeyPatch, point: str, after: bool
) -> None:
    cheap = 20 * Decimal("0.0001")
    without = {"product": (100, 100, prices(100)), "product_history": (100, 100, prices(100))}
    whole = {"product": (110, 110, prices(90) + cheap), "product_history": (120, 110, prices(100) + cheap)}
    with opened(loaded) as (connection, destination), monkeypatch.context() as patched:
        landed = packages(connection, loaded, "l2", "2024-01-02")
        dying(patched, KILL_POINTS[point], after=after)
        with pytest.raises(Died):
            destination.load_packages("oltp", landed, {"n": 2}, quiet)
    with opened(loaded) as (connection, destination):
        destination.drain_pending("oltp", quiet)
        in_whole = destination.read_state("oltp") == {"n": 2}
        expected = whole if in_whole else without
        for name in raw_table_names(PRODUCT):
            # rows and position are there together or not at all, and landing compares with the same rows
            assert totals(loaded, name) == local_totals(connection, name) == expected[name]
        if not in_whole:
            destination.load_packages("oltp", packages(connection, loaded, "l3", "2024-01-02"), {"n": 3}, quiet)
        for name in raw_table_names(PRODUCT):
            assert totals(loaded, name) == local_totals(connection, name) == whole[name]
        assert asked(loaded, "select count(*) from raw_oltp.currency") == [(2,)]
        assert destination.read_state("oltp") == ({"n": 2} if in_whole else {"n": 3})
    committed = ("before the commit", True), ("before tidying up", False), ("before tidying up", True)
    local = ("before the local tables follow", False), ("before the local tables follow", True)
    assert in_whole == ((point, after) in committed + local)


def test_a_second_writer_is_refused_whole(loaded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(loaded) as (connection, destination):
        landed = packages(connection, loaded, "l2", "2024-01-02")
        committed = destination._committed

        def overtaken(source: Any) -> Any:
            position = committed(source)
            with snowflake_session(loaded) as session:
                session.run("update raw_ops.landed_state set package_id = 'other'", step="the other writer")
            return position

        monkeypatch.setattr(destination, "_committed", overtaken)
        with pytest.raises(LoadIncomplete, match="another writer"):
            destination.load_packages("oltp", landed, {"n": 2}, quiet)
    assert totals(loaded, "product") == (100, 100, prices(100))
    assert asked(loaded, "select count(*) from raw_ops.landed_loads") == [(1,)]


def test_what_snowflake_lost_is_landed_again(loaded: Settings) -> None:
    """Set back in time, Snowflake lacks rows that the local tables hold: they must not count as unchanged."""
    with opened(loaded) as (connection, destination):
        destination.load_packages("oltp", packages(connection, loaded, "l2", "2024-01-02"), {"n": 2}, quiet)
        assert local_totals(connection, "product")[0] == 110
    asked(loaded, "delete from raw_ops.landed_loads where load_id = 'l2'")
    with opened(loaded) as (connection, destination):
        assert destination.drain_pending("oltp", quiet)
        assert local_totals(connection, "product") == (100, 100, prices(100))
        assert not destination.drain_pending("oltp", quiet)


def test_a_lost_landing_file_is_built_again_from_the_lake(loaded: Settings) -> None:
    Home.of(loaded).warehouse.unlink()
    with open_warehouse(loaded) as connection:
        create_raw_tables(connection)
    with opened(loaded) as (connection, destination):
        assert destination.drain_pending("oltp", quiet)
        assert local_totals(connection, "product") == (100, 100, prices(100))


def test_a_lake_that_lacks_a_load_is_refused(loaded: Settings) -> None:
    shutil.rmtree(Lake(loaded).load_folder("oltp", "product", "l1"))
    with opened(loaded) as (connection, destination):
        connection.execute("delete from raw_ops.compared_loads")
        with pytest.raises(LoadIncomplete, match="this lake does not have"):
            destination.drain_pending("oltp", quiet)
        assert local_totals(connection, "product")[0] == 100


def test_damaged_or_miscounted_files_are_refused(loaded: Settings) -> None:
    with opened(loaded) as (connection, destination):
        landed = land(connection, loaded, PRODUCT, "l2", rows_sql(PRODUCT, PRODUCT_ROWS, "5", "l2"))
        more = LandedTable(PRODUCT, "l2", landed.files, 6)
        with pytest.raises(LoadIncomplete, match="do not hold the rows"):
            destination.load_packages("oltp", [more], {"n": 2}, quiet)
        landed.files[0].unlink()
        with pytest.raises(LoadIncomplete, match="missing"):
            destination.load_packages("oltp", [landed], {"n": 2}, quiet)
        assert destination.read_state("oltp") == {"n": 1}


# -- secrets -----------------------------------------------------------------------------------------------------


def test_no_value_and_no_key_reaches_a_statement_a_log_or_the_disk(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with opened(settings) as (connection, destination):
        sent = dying(monkeypatch, ("nothing begins like this", 0), after=True)
        rows = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "load-id-1")
        landed = land(connection, settings, PRODUCT, "load-id-1", rows)
        destination.load_packages("oltp", [landed], {"cursor": "planted-position-91"}, quiet)
    assert len(sent) > 10
    for text in (*sent, caplog.text):
        for secret in (PLANTED, "planted-position-91", "load-id-1", PASSPHRASE, "PRIVATE KEY"):
            assert secret not in text
    assert hits(settings.warehouse_home, PLANTED, "planted-position-91", PASSPHRASE) == []


def test_a_refused_statement_names_the_step_and_no_value(settings: Settings) -> None:
    with snowflake_session(settings) as session, pytest.raises(LoadIncomplete) as refused:
        session.run("select cast(? as number(5,0))", ("planted-value-13",), step="loading raw_oltp.product")
    assert "loading raw_oltp.product" in refused.value.what
    assert "planted-value-13" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_connection_errors_carry_no_secret(settings: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "broken.p8"
    broken.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nplanted-key-55\n-----END ENCRYPTED PRIVATE KEY-----\n")
    cases: dict[str, dict[str, Any]] = {
        "SNOWFLAKE_USER": {"snowflake_user": None},
        "SNOWFLAKE_PRIVATE_KEY_PATH": {"snowflake_private_key_path": broken},
        "PASSPHRASE": {"dbt_env_secret_snowflake_passphrase": None},
    }
    for told, change in cases.items():
        with (
            pytest.raises(ConfigurationError, match=told) as refused,
            snowflake_session(settings.model_copy(update=change)),
        ):
            pass
        assert "planted" not in str(refused.value)


def test_an_address_without_tls_is_refused(make_settings: Any, tmp_path: Path) -> None:
    for url in ("http://snowflake.example.org", "ftp://127.0.0.1", "127.0.0.1:80"):
        with pytest.raises(ConfigurationError, match="SNOWFLAKE_URL"):
            load_settings(warehouse_home=tmp_path, snowflake_url=url)
    with pytest.raises(ConfigurationError, match="SNOWFLAKE_LAKE_STAGE"):
        load_settings(warehouse_home=tmp_path, snowflake_lake_stage="x; drop table y")


def test_a_server_that_does_not_answer_is_said_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = snowflake.snowflake.connector.connect
    monkeypatch.setattr(
        snowflake.snowflake.connector, "connect", lambda **options: connect(**options | {"login_timeout": 2})
    )
    silent = settings.model_copy(update={"snowflake_url": "http://127.0.0.1:9"})
    with pytest.raises(WarehouseError, match="does not answer"), snowflake_session(silent):
        pass


# -- statements that fakesnow cannot judge -----------------------------------------------------------------------


def every_statement() -> list[str]:
    """One of each statement for each pinned table."""
    statements = [
        *snowflake_sql.BOOKKEEPING_DDL.values(),
        snowflake_sql.FIRST_STATE,
        snowflake_sql.READ_STATE,
        snowflake_sql.MOVE_STATE,
        snowflake_sql.READ_LEDGER,
        snowflake_sql.ADD_TO_LEDGER,
        snowflake_sql.EXISTING_TABLES,
        snowflake_sql.add_column("raw_ops", "quarantine", "resolved_at", "timestamp with time zone"),
    ]
    for table in all_tables():
        staging = snowflake_sql.staging_name(table.raw_schema, table.name)
        columns = table.landed_columns
        statements += [
            snowflake_sql.create_schema(table.raw_schema),
            snowflake_sql.create_table(table.raw_schema, table.name, columns),
            *snowflake_sql.create_staging(staging, columns),
            snowflake_sql.put(staging, 0),
            snowflake_sql.copy(staging, columns),
            snowflake_sql.copy(staging, columns, location="LAKE/x/", files=["part-00000.parquet"]),
            snowflake_sql.count(staging),
            snowflake_sql.drop_staging(staging),
            *(statement for statement, _ in snowflake_sql.replace_current(table, staging)),
            *(statement for statement, _ in snowflake_sql.append_history(table, staging)),
        ]
    statements.append(snowflake_sql.digest_of_quarantine(snowflake.REPLACED))
    statements += snowflake_sql.replace_operations(snowflake.REPLACED, (("payload", "json"),), "S")
    for name, (moment, unit) in snowflake.APPENDED.items():
        statements.append(snowflake_sql.newest_operation(name, moment))
        statements.append(snowflake_sql.add_operations(name, (("run_id", "varchar"), ("detail", "json")), unit, "S"))
    return statements


def test_every_statement_is_snowflake_sql() -> None:
    statements = every_statement()
    assert len(statements) > 100
    for statement in statements:
        (parsed,) = sqlglot.parse(statement, read="snowflake")
        assert parsed is not None and not isinstance(parsed, exp.Command), statement


def test_every_pinned_type_has_a_snowflake_type() -> None:
    with duckdb.connect() as connection:
        for name, columns in OPS_TABLES.items():
            connection.execute(f"create table {name} ({columns})")
        ops = {row[1].lower() for name in OPS_TABLES for row in connection.execute(f"describe {name}").fetchall()}
    pinned = {sql_type for table in all_tables() for _, sql_type in table.landed_columns}
    for sql_type in pinned | ops:
        assert snowflake_sql.column_type(sql_type)
    assert snowflake_sql.column_type("decimal(18,4)") == "NUMBER(18,4)"
    assert snowflake_sql.column_type("timestamp with time zone") == "TIMESTAMP_TZ(6)"
    with pytest.raises(ValueError, match="no Snowflake type"):
        snowflake_sql.column_type("integer[]")


def test_copy_reads_typed_columns_and_removes_only_what_was_sent() -> None:
    columns = (("amount", "decimal(18,4)"), ("at", "timestamp with time zone"), ("document", "json"))
    own = snowflake_sql.copy("STAGED", columns)
    assert own == (
        'copy into "STAGED" ("AMOUNT", "AT", "DOCUMENT") from (select $1:"amount"::NUMBER(18,4), '
        '$1:"at"::TIMESTAMP_TZ(6), $1:"document"::VARCHAR from @STAGED) '
        "file_format = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) on_error = abort_statement force = true purge = true"
    )
    lake = snowflake_sql.copy("STAGED", columns, location="DB.S.LAKE/oltp/product/l1/", files=["part-00000.parquet"])
    assert "from @DB.S.LAKE/oltp/product/l1/)" in lake
    assert "files = ('part-00000.parquet')" in lake
    assert "purge" not in lake


def test_a_lake_on_s3_is_read_where_it_lies(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """fakesnow reads no folder of a stage: the statements are recorded, and answered as Snowflake would."""
    sent: list[str] = []

    def recorded(self: Session, statement: str, parameters: Any = (), **options: Any) -> list[tuple[Any, ...]]:
        sent.append(statement)
        return [(5,)] if statement.startswith("select count(*)") else []

    with opened(settings) as (connection, _):
        landed = land(connection, settings, PRODUCT, "l1", rows_sql(PRODUCT, PRODUCT_ROWS, "5", "l1"))
        with snowflake_session(settings) as session:
            on_s3 = settings.model_copy(update={"snowflake_lake_stage": "RAW_OPS.LAKE"})
            destination = snowflake.SnowflakeDestination(session, connection, on_s3)
            monkeypatch.setattr(Session, "run", recorded)
            destination._stage(landed)
    assert [statement.split()[0] for statement in sent] == ["create", "copy", "select"]
    assert "from @RAW_OPS.LAKE/oltp/product/l1/) files = ('part-00000.parquet')" in sent[1]


def test_parts_are_parquet_in_memory_and_lose_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snowflake, "PART_BYTES", 10_000)
    with blank_connection(settings) as connection:
        query = "select range as n, ('{\"n\": ' || range || '}')::json as document from range(50000)"
        parts = list(snowflake._parts(connection, query))
    assert len(parts) > 1
    tables = [pyarrow.parquet.read_table(part) for part, _ in parts]
    assert [table.num_rows for table in tables] == [rows for _, rows in parts]
    assert [n for table in tables for n in table.column("n").to_pylist()] == list(range(50000))
    assert {str(table.schema.field("document").type) for table in tables} == {"string"}
