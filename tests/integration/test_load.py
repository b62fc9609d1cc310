"""Loading lake files through dlt: exact, once, encrypted, and finished after a kill at any step."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.connection_string_credentials import ConnectionStringCredentials
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.destinations.job_client_impl import ModelLoadJob, SqlJobClientBase
from dlt.load import Load
from dlt.pipeline.pipeline import Pipeline

from ingestion.lake import Lake, write_part
from ingestion.load import LandedTable, LoadResult, _pipeline, drain_pending, load_packages, read_state
from ingestion.raw import create_raw_tables
from ingestion.schema import Table, tables
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError, LoadIncomplete
from warehouse.core.keys import create_missing_keys, warehouse_key
from warehouse.core.paths import Home
from warehouse.core.settings import Settings

PRODUCT = tables("oltp")["product"]
CURRENCY = tables("oltp")["currency"]
EVENTS = tables("stream")["payments_transactions"]
PLANTED = "planted-name-5d41"

PRODUCT_ROWS = {
    "product_id": "'p' || range",
    "product_name": f"'{PLANTED}'",
    "unit_price": "99999999999999.9999 - range::decimal(10,0) * 0.0001",
    "currency_code": "'EUR'",
    "is_active": "range % 2 = 0",
    "updated_at": "timestamptz '2024-03-31 01:59:59.999999+01' + to_microseconds(range)",
}
CURRENCY_ROWS = {
    "currency_code": "'C' || range",
    "currency_name": f"'{PLANTED}'",
    "minor_unit": "range % 5",
    "updated_at": "timestamptz '2024-01-01 00:00:00+00'",
}
EVENT_ROWS = {
    "kafka_topic": "'payments.transactions'",
    "kafka_partition": "range % 3",
    "kafka_offset": "9007199254740993 + range",
    "produced_at": "timestamptz '2024-01-01 00:00:00.000001+00'",
    "document": """'{"amount": "0.10", "deep": {"list": [1, 2.50, null]}, "text": "é''\\"\\\\n"}'""",
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, make_settings: Callable[..., Settings]) -> Settings:
    """A home with keys and empty raw tables, to be copied."""
    settings = make_settings(tmp_path_factory.mktemp("empty") / "home", lake_uri=None)
    with open_warehouse(settings) as connection:
        create_raw_tables(connection)
    return settings


@pytest.fixture
def settings(tmp_path: Path, empty: Settings) -> Settings:
    home = tmp_path / "home"
    shutil.copytree(empty.warehouse_home, home)
    return empty.model_copy(update={"warehouse_home": home})


@pytest.fixture
def connection(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(settings) as connection:
        yield connection


def rows_sql(table: Table, values: dict[str, str], span: str, load_id: str, landed_at: str = "2024-01-01") -> str:
    """A query giving rows of the pinned shape; columns without a value are null."""
    values = {
        "_row_hash": f"md5(range::varchar || '{load_id}')",
        "_landed_at": f"timestamptz '{landed_at} 00:00:00+00'",
        "_load_id": f"'{load_id}'",
        **values,
    }
    columns = (f'({values.get(name, "null")})::{sql_type} as "{name}"' for name, sql_type in table.landed_columns)
    return f"select {', '.join(columns)} from range({span})"


def land(
    connection: duckdb.DuckDBPyConnection, settings: Settings, table: Table, load_id: str, *selects: str
) -> LandedTable:
    """Write and seal one file per query."""
    lake = Lake(settings)
    rows, files = {}, []
    for number, select in enumerate(selects):
        path = lake.part_path(table.source, table.name, load_id, number)
        rows[path.name] = write_part(connection, select, path)
        files.append(path)
    lake.seal(table.source, table.name, load_id, {"rows": rows})
    return LandedTable(table, load_id, tuple(files), sum(rows.values()))


def load(
    connection: duckdb.DuckDBPyConnection, settings: Settings, state: dict[str, Any], *landed: LandedTable
) -> LoadResult:
    source = landed[0].table.source if landed else "oltp"
    return load_packages(connection, settings, source, landed, state, lambda message: None)


def drain(connection: duckdb.DuckDBPyConnection, settings: Settings) -> bool:
    return drain_pending(connection, settings, "oltp", lambda message: None)


def assert_holds(connection: duckdb.DuckDBPyConnection, name: str, expected: str) -> None:
    """The raw table `name` holds the rows of the query `expected`, each as often, dlt's column aside."""
    found = f"select * exclude (_dlt_load_id) from {name}"
    surplus = connection.execute(
        f"select (select count(*) from (({found}) except all ({expected}))), "
        f"(select count(*) from (({expected}) except all ({found})))"
    ).fetchone()
    assert surplus == (0, 0), f"{name}: {surplus} rows are surplus, missing"


def hits(folder: Path, *needles: str) -> list[Path]:
    """Files below `folder` that hold one of the texts anywhere in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(needle.encode() in path.read_bytes() for needle in needles)]


def test_rows_arrive_exactly_as_they_were_landed(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    products = rows_sql(PRODUCT, PRODUCT_ROWS, "2500", "l1")
    currencies = rows_sql(CURRENCY, CURRENCY_ROWS, "7", "l1")
    before = connection.execute("describe raw_oltp.product").fetchall()
    result = load(
        connection,
        settings,
        {"cursor": "2024-01-01"},
        land(connection, settings, PRODUCT, "l1", products),
        land(connection, settings, CURRENCY, "l1", currencies),
    )
    assert result.rows == {"product": 2500, "currency": 7}
    assert_holds(connection, "raw_oltp.product", products)
    assert_holds(connection, "raw_oltp.product_history", products)
    assert_holds(connection, "raw_oltp.currency", currencies)
    assert connection.execute("select distinct _dlt_load_id from raw_oltp.product").fetchall() == [
        (result.dlt_load_id,)
    ]
    assert connection.execute("describe raw_oltp.product").fetchall() == before
    staged = "select table_name from duckdb_tables() where schema_name like '%staging' and table_name not like '_dlt%'"
    assert connection.execute(staged).fetchall() == []


def test_documents_and_compound_keys_arrive_exactly(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    events = rows_sql(EVENTS, EVENT_ROWS, "300", "l1")
    again = rows_sql(EVENTS, EVENT_ROWS, "200, 400", "l1")
    load(connection, settings, {}, land(connection, settings, EVENTS, "l1", events))
    load(connection, settings, {}, land(connection, settings, EVENTS, "l2", again))
    assert_holds(connection, "raw_stream.payments_transactions", rows_sql(EVENTS, EVENT_ROWS, "400", "l1"))
    kind = "select distinct json_type(document, '$.amount'), typeof(document) from raw_stream.payments_transactions"
    assert connection.execute(kind).fetchall() == [("VARCHAR", "JSON")]


def test_a_changed_row_replaces_its_key_and_history_keeps_both(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    first = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
    second = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "0.0001"}, "90, 110", "l2")
    load(connection, settings, {"n": 1}, land(connection, settings, PRODUCT, "l1", first))
    load(connection, settings, {"n": 2}, land(connection, settings, PRODUCT, "l2", second))
    kept = rows_sql(PRODUCT, PRODUCT_ROWS, "90", "l1")
    assert_holds(connection, "raw_oltp.product", f"{kept} union all {second}")
    assert_holds(connection, "raw_oltp.product_history", f"{first} union all {second}")
    assert read_state(connection, settings, "oltp") == {"n": 2}


def test_the_version_that_landed_last_wins_within_a_package(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    newer = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "2"}, "50", "l1", landed_at="2024-01-02")
    older = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "1"}, "50", "l1", landed_at="2024-01-01")
    load(connection, settings, {}, land(connection, settings, PRODUCT, "l1", newer, older))
    assert_holds(connection, "raw_oltp.product", newer)
    assert_holds(connection, "raw_oltp.product_history", f"{newer} union all {older}")


def test_the_same_files_loaded_twice_double_neither_current_rows_nor_history(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    products = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
    landed = land(connection, settings, PRODUCT, "l1", products)
    load(connection, settings, {}, landed)
    load(connection, settings, {}, landed)
    assert_holds(connection, "raw_oltp.product", products)
    assert_holds(connection, "raw_oltp.product_history", products)


def test_a_state_without_rows_is_stored_and_an_unchanged_one_is_not(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    assert read_state(connection, settings, "oltp") == {}
    assert load(connection, settings, {}).dlt_load_id is None
    state = {"customer": {"cursor": "2024-01-01T00:00:00Z"}, "offsets": [1, 2], "none": None}
    assert load(connection, settings, state).dlt_load_id is not None
    assert read_state(connection, settings, "oltp") == state
    assert load(connection, settings, state).dlt_load_id is None
    assert load(connection, settings, {"customer": {}}).dlt_load_id is not None
    assert read_state(connection, settings, "oltp") == {"customer": {}}
    assert read_state(connection, settings, "mongodb") == {}


def test_a_package_of_some_tables_leaves_the_others_alone(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> None:
    products = rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1")
    currencies = rows_sql(CURRENCY, CURRENCY_ROWS, "5", "l2")
    load(connection, settings, {"n": 1}, land(connection, settings, PRODUCT, "l1", products))
    load(connection, settings, {"n": 2}, land(connection, settings, CURRENCY, "l2", currencies))
    load(connection, settings, {"n": 3}, land(connection, settings, PRODUCT, "l3", products))
    assert_holds(connection, "raw_oltp.product", products)
    assert_holds(connection, "raw_oltp.currency", currencies)


# -- a run that dies ---------------------------------------------------------------------------------------------

KILL_POINTS: dict[str, tuple[type, str, bool]] = {
    "before it is a package": (Pipeline, "extract", False),
    "before normalizing": (Pipeline, "normalize", False),
    "before loading": (Pipeline, "load", False),
    "between insert and marker": (ModelLoadJob, "run", True),
    "before the commit": (SqlJobClientBase, "complete_load", False),
    "between commit and tidying up": (SqlJobClientBase, "complete_load", True),
    "after the package": (Load, "complete_package", True),
}
"""Step → (class, method, whether the step itself happens before the kill)."""


def _load_and_die(settings: Settings, point: str, state: dict[str, Any], landed: list[LandedTable]) -> None:
    owner, name, after = KILL_POINTS[point]
    original = getattr(owner, name)

    def killed(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)
    with open_warehouse(settings) as connection:
        load(connection, settings, state, *landed)


def die_loading(settings: Settings, point: str, state: dict[str, Any], *landed: LandedTable) -> None:
    context = multiprocessing.get_context("forkserver")  # imports once, has no open database to fork
    context.set_forkserver_preload([__name__, "pandas"])
    process = context.Process(target=_load_and_die, args=(settings, point, state, list(landed)))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("point", list(KILL_POINTS)[1:])
def test_a_killed_load_is_finished_by_the_next_run(settings: Settings, point: str) -> None:
    first = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
    second = rows_sql(PRODUCT, PRODUCT_ROWS | {"unit_price": "1"}, "90, 110", "l2")
    currencies = rows_sql(CURRENCY, CURRENCY_ROWS, "5", "l2")
    with open_warehouse(settings) as connection:
        load(connection, settings, {"n": 1}, land(connection, settings, PRODUCT, "l1", first))
        landed = [
            land(connection, settings, PRODUCT, "l2", second),
            land(connection, settings, CURRENCY, "l2", currencies),
        ]
    die_loading(settings, point, {"n": 2}, *landed)
    key = warehouse_key(settings)
    assert hits(settings.warehouse_home / "dlt", PLANTED, key) == []
    with open_warehouse(settings) as connection:
        committed = point in ("between commit and tidying up", "after the package")
        assert read_state(connection, settings, "oltp") == {"n": 2 if committed else 1}
        assert drain(connection, settings) is (point != "after the package")
        assert read_state(connection, settings, "oltp") == {"n": 2}
        kept = rows_sql(PRODUCT, PRODUCT_ROWS, "90", "l1")
        assert_holds(connection, "raw_oltp.product", f"{kept} union all {second}")
        assert_holds(connection, "raw_oltp.currency", currencies)
        assert_holds(connection, "raw_oltp.product_history", f"{first} union all {second}")
        assert drain(connection, settings) is False
        assert load(connection, settings, {"n": 3}, *landed).rows == {"product": 20, "currency": 5}
        assert_holds(connection, "raw_oltp.product", f"{kept} union all {second}")


def test_a_load_killed_before_it_was_a_package_leaves_nothing_behind(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        products = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
        landed = land(connection, settings, PRODUCT, "l1", products)
    die_loading(settings, "before it is a package", {"n": 1}, landed)
    with open_warehouse(settings) as connection:
        assert drain(connection, settings) is False
        assert read_state(connection, settings, "oltp") == {}
        load(connection, settings, {"n": 1}, landed)
        assert_holds(connection, "raw_oltp.product", products)
        assert_holds(connection, "raw_oltp.product_history", products)


def test_a_new_load_finishes_the_interrupted_one_first(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        products = rows_sql(PRODUCT, PRODUCT_ROWS, "100", "l1")
        landed = land(connection, settings, PRODUCT, "l1", products)
        currencies = rows_sql(CURRENCY, CURRENCY_ROWS, "5", "l2")
        later = land(connection, settings, CURRENCY, "l2", currencies)
    die_loading(settings, "before loading", {"n": 1}, landed)
    with open_warehouse(settings) as connection:
        load(connection, settings, {"n": 2}, later)
        assert_holds(connection, "raw_oltp.product", products)
        assert_holds(connection, "raw_oltp.currency", currencies)
        assert read_state(connection, settings, "oltp") == {"n": 2}


def test_a_package_that_does_not_follow_the_warehouse_is_discarded(settings: Settings, tmp_path: Path) -> None:
    """A restored backup must be filled from where it ends, not from where dlt's folder ends."""
    home = Home.of(settings)
    backup = tmp_path / "backup.duckdb"
    parts = [rows_sql(PRODUCT, PRODUCT_ROWS, f"{start}, {start + 10}", "l") for start in (0, 10, 20)]
    with open_warehouse(settings) as connection:
        landed = [land(connection, settings, PRODUCT, f"l{number}", part) for number, part in enumerate(parts)]
        load(connection, settings, {"upto": 10}, landed[0])
    shutil.copy(home.warehouse, backup)
    with open_warehouse(settings) as connection:
        load(connection, settings, {"upto": 20}, landed[1])
    die_loading(settings, "before loading", {"upto": 30}, landed[2])
    home.warehouse.with_name(home.warehouse.name + ".wal").unlink(missing_ok=True)
    shutil.copy(backup, home.warehouse)
    messages: list[str] = []
    with open_warehouse(settings) as connection:
        assert drain_pending(connection, settings, "oltp", messages.append) is False
        assert "does not follow" in messages[0]
        assert read_state(connection, settings, "oltp") == {"upto": 10}
        assert_holds(connection, "raw_oltp.product", parts[0])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_a_load_need_not_wait(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """dlt keeps what is no `Exception` for itself and waits for the job: Ctrl-C would be heard the second time."""

    def stopped(job: ModelLoadJob) -> None:
        raise stop

    products = rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1")
    with open_warehouse(settings) as connection:
        landed = land(connection, settings, PRODUCT, "l1", products)
        with monkeypatch.context() as patch, pytest.raises(stop):
            patch.setattr(ModelLoadJob, "run", stopped)
            load(connection, settings, {"n": 1}, landed)
        assert drain(connection, settings) is True
        assert read_state(connection, settings, "oltp") == {"n": 1}
        assert_holds(connection, "raw_oltp.product", products)


@pytest.mark.parametrize("loss", ["folder deleted", "older folder", "newer folder"])
def test_the_warehouse_alone_knows_where_the_source_was_read_to(settings: Settings, tmp_path: Path, loss: str) -> None:
    home = Home.of(settings)
    with open_warehouse(settings) as connection:
        first = rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1")
        second = rows_sql(PRODUCT, PRODUCT_ROWS, "10, 20", "l2")
        load(connection, settings, {"n": 1}, land(connection, settings, PRODUCT, "l1", first))
        with _pipeline(connection, settings, "oltp", "live"):  # there is a folder only while a pipeline is open
            shutil.copytree(home.dlt, tmp_path / "older")
        if loss == "older folder":
            load(connection, settings, {"n": 1, "x": 1})
            load(connection, settings, {"n": 1})
        shutil.rmtree(home.dlt)
        if loss != "folder deleted":
            shutil.copytree(tmp_path / "older", home.dlt)
        if loss == "newer folder":
            _claim_progress(home.dlt / "oltp" / "state.json")
        assert read_state(connection, settings, "oltp") == {"n": 1}
        assert drain(connection, settings) is False
        load(connection, settings, {"n": 2}, land(connection, settings, PRODUCT, "l2", second))
        assert read_state(connection, settings, "oltp") == {"n": 2}
        assert_holds(connection, "raw_oltp.product", f"{first} union all {second}")


def _claim_progress(state_file: Path) -> None:
    """A state file that says it is a thousand versions ahead of the warehouse."""
    state = json.loads(state_file.read_text())
    state["_state_version"] += 1000
    state["sources"] = {"oltp": {"position": {"n": 99}, "after": "9999999999.0"}}
    state_file.write_text(json.dumps(state))


# -- what must not happen ----------------------------------------------------------------------------------------


def test_nothing_on_disk_holds_a_value_or_a_key(settings: Settings) -> None:
    with open_warehouse(settings) as connection:
        products = rows_sql(PRODUCT, PRODUCT_ROWS, "2500", "l1")
        load(connection, settings, {}, land(connection, settings, PRODUCT, "l1", products))
        found = connection.execute(f"select count(*) from raw_oltp.product where product_name = '{PLANTED}'")
        assert found.fetchone() == (2500,)
    home = settings.warehouse_home
    assert hits(home, PLANTED, warehouse_key(settings)) == []
    lake_key = (home / "keys" / "lake.key").read_text().strip()
    assert hits(home, lake_key) == [home / "keys" / "lake.key"]
    assert [path for path in (home / "dlt").rglob("*") if path.is_file()] == []


def test_a_wrong_lake_key_is_a_clear_error_and_changes_nothing(
    settings: Settings, connection: duckdb.DuckDBPyConnection
) -> None:
    landed = land(connection, settings, PRODUCT, "l1", rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1"))
    connection.close()
    key_file = settings.warehouse_home / "keys" / "lake.key"
    key_file.unlink()
    create_missing_keys(settings)
    with open_warehouse(settings) as other:
        with pytest.raises(ConfigurationError, match=r"raw_oltp\.product.*do not open with this lake key") as caught:
            load(other, settings, {"n": 1}, landed)
        assert key_file.read_text().strip() not in str(caught.value)
        assert read_state(other, settings, "oltp") == {}
        assert drain(other, settings) is False
        assert other.execute("select count(*) from raw_oltp.product").fetchone() == (0,)


def test_a_failing_table_is_named_without_its_values_and_loads_once_the_cause_is_gone(
    settings: Settings, connection: duckdb.DuckDBPyConnection
) -> None:
    products = rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1")
    currencies = rows_sql(CURRENCY, CURRENCY_ROWS, "5", "l1")
    landed = [
        land(connection, settings, PRODUCT, "l1", products),
        land(connection, settings, CURRENCY, "l1", currencies),
    ]
    # DuckDB quotes the value it cannot convert
    connection.execute("alter table raw_oltp.currency alter currency_name type integer")
    with pytest.raises(LoadIncomplete, match="oltp: currency could not be loaded") as caught:
        load(connection, settings, {"n": 1}, *landed)
    assert PLANTED not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "stays pending" in caught.value.kept
    assert hits(settings.warehouse_home, PLANTED) == []
    assert read_state(connection, settings, "oltp") == {}
    with pytest.raises(LoadIncomplete, match="currency"):
        drain(connection, settings)
    connection.execute("alter table raw_oltp.currency alter currency_name type varchar")
    assert drain(connection, settings) is True
    assert_holds(connection, "raw_oltp.product", products)
    assert_holds(connection, "raw_oltp.currency", currencies)
    assert read_state(connection, settings, "oltp") == {"n": 1}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rows": 11}, "rows that were counted"),
        ({"files": ("gone.parquet",)}, "1 of 1 lake files are missing"),
        ({"files": ("double.parquet",)}, "not of the pinned shape in unit_price"),
        ({"files": ("short.parquet",)}, "not of the pinned shape in is_active"),
        ({"files": ("damaged.parquet",)}, "cannot be read|do not open"),
    ],
)
def test_files_that_are_not_what_was_landed_are_refused(
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    change: dict[str, Any],
    problem: str,
) -> None:
    select = rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1")
    landed = land(connection, settings, PRODUCT, "l1", select)
    write_part(connection, f"select * replace (1.5::double as unit_price) from ({select})", tmp_path / "double.parquet")
    write_part(connection, f"select * exclude (is_active) from ({select})", tmp_path / "short.parquet")
    (tmp_path / "damaged.parquet").write_bytes(landed.files[0].read_bytes()[:-40])
    files = tuple(tmp_path / name for name in change.get("files", ())) or landed.files
    wrong = LandedTable(PRODUCT, "l1", files, change.get("rows", landed.rows))
    with pytest.raises((LoadIncomplete, ConfigurationError), match=problem):
        load(connection, settings, {"n": 1}, wrong)
    assert connection.execute("select count(*) from raw_oltp.product").fetchone() == (0,)
    assert read_state(connection, settings, "oltp") == {}


def test_dlt_neither_reads_nor_changes_its_surroundings(
    settings: Settings, connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = tmp_path / "stray"
    stray.mkdir()
    for name in ("HOME", "XDG_DATA_HOME", "DLT_DATA_DIR", "DLT_PROJECT_DIR", "DLT_LOCAL_DIR"):
        monkeypatch.setenv(name, str(stray))
    monkeypatch.setenv("DATASET_NAME", "elsewhere")
    monkeypatch.setenv("SCHEMA__NAMING", "sql_ci_v1")
    monkeypatch.setenv("LOAD__WORKERS", "many")
    monkeypatch.chdir(stray)
    environment = dict(os.environ)
    threshold = connection.execute("select current_setting('checkpoint_threshold')").fetchone()
    products = rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1")
    load(connection, settings, {}, land(connection, settings, PRODUCT, "l1", products))
    assert dict(os.environ) == environment
    assert list(stray.iterdir()) == []
    assert PluggableRunContext not in Container()
    assert connection.execute("select current_setting('checkpoint_threshold')").fetchone() == threshold
    assert_holds(connection, "raw_oltp.product", products)


def test_dlt_needs_no_sqlalchemy_to_say_where_it_loaded(
    settings: Settings, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would import it for an address that a held connection does not have: half a second of every run."""

    def refused(credentials: ConnectionStringCredentials) -> None:
        raise AssertionError(f"{type(credentials).__name__} was asked for an address")

    monkeypatch.setattr(ConnectionStringCredentials, "__str__", refused)
    load(
        connection, settings, {}, land(connection, settings, PRODUCT, "l1", rows_sql(PRODUCT, PRODUCT_ROWS, "10", "l1"))
    )
