"""Retention by class: what is too old goes from everywhere and stays out; what is younger, or held, stays."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from bson import json_util
from pymongo import MongoClient
from typer.testing import CliRunner

from expectations import run_landing, run_publishing
from ingestion.compaction import compact
from ingestion.lake import Lake
from ingestion.reconcile import reconcile
from ingestion.replay import SUFFIX, replay
from ingestion.run import ingest
from ingestion.schema import all_tables, tables
from ingestion.versions import loads_sql
from tests.conftest import MakeSettings
from tests.integration.landed_home import NOWHERE, copy_home, drop, drop_reference, query
from tests.security.kills import Moment, killed
from warehouse import refresh, retention
from warehouse.cli import context
from warehouse.cli.app import app
from warehouse.core.database import open_warehouse
from warehouse.core.errors import ConfigurationError
from warehouse.core.paths import Home
from warehouse.core.progress import silent
from warehouse.core.settings import Settings
from warehouse.dbt import DbtResult, run_dbt
from warehouse.deleted_rows import rewrite_if_due
from warehouse.erasure import erase
from warehouse.privacy.audit import tail
from warehouse.privacy.holds import add_hold, release_hold
from warehouse.privacy.matcher import Needle
from warehouse.privacy.scan_home import scan_home
from warehouse.privacy.subjects import canonical_subject
from warehouse.privacy.tokens import install, token_key
from warehouse.privacy.vault import open_vault, subject_entries
from warehouse.publish import publish
from warehouse.retention import apply_retention, overdue

YEARS = 10
"""Every class of the tests; the reference data set is younger, and `OLD` is older for decades."""
OLD, OLDER = "2001-02-03T04:05:06Z", "1999-02-03T04:05:06Z"
CUSTOMER, OTHER = "CUST003", "CUST001"
RETAINED = [table for table in all_tables() if table.retention is not None]
DOCUMENTS: dict[str, Callable[[str, str, str], dict[str, Any]]] = {
    "transactions": lambda name, who, when: {
        "transaction_id": name, "customer_id": who, "merchant_id": "MERCH003", "amount": 7,
        "date": {"created": {"$date": when}, "updated": {"$date": when}}, "location": {"ip": "203.0.113.77"},
    },
    "customer_feedback": lambda name, who, when: {
        "customer_id": who, "transaction_id": name, "comment": f"marker-{name}", "created_at": {"$date": when},
    },
    "user_interactions": lambda name, who, when: {
        "customer_id": who, "session_id": f"session-{name}", "event": "view", "device": {"ip": "203.0.113.78"},
        "occurred_at": {"$date": when},
    },
    "error_logs": lambda name, who, when: {
        "service": "checkout", "message": f"marker-{name}", "context": {"customer_id": who, "transaction_id": name},
        "occurred_at": {"$date": when},
    },
}  # fmt: skip
"""Collection → a document of this name about a customer, of that time."""
TRANSACTION = (
    "transaction_id,merchant_id,customer_id,payment_method_id,product_id,quantity,device_id,location_id,currency_code,"
    "amount,tax,status_code,created_at,updated_at"
)
ROWS = [("PAYOLD1", OTHER, OLD), ("PAYOLD2", CUSTOMER, OLD), ("PAYNEW1", OTHER, "2024-01-02T03:04:05Z")]


def leave_drops(settings: Settings, rows: list[tuple[str, str, str]] = ROWS, file: str = "rows") -> None:
    """In every table with a class, a row of each name, customer and time."""
    for table, made in DOCUMENTS.items():
        lines = [json.dumps({"_id": f"{name}-{table}", **made(name, who, when)}) for name, who, when in rows]
        drop(settings, f"mongodb/{table}/{file}.jsonl", "\n".join(lines).encode())
    lines = [
        f"{name},MERCHANT003,{canonical_subject(who)},PM003,PRODUCT002,1,DEV003,LOC003,EUR,7.0000,1.0000,captured,"
        f"{when},{when}"
        for name, who, when in rows
    ]
    drop(settings, f"oltp/transaction/{file}.csv", "\n".join([TRANSACTION, *lines, ""]).encode())
    messages = [
        json.dumps({"topic": "payments.transactions", "partition": 1, "offset": int.from_bytes(name.encode()[-6:]),
                    "ts": when_ms(when), "payload": json.dumps({
                        "schema_version": 1, "event_id": name, "event_type": "payment.captured",
                        "transaction_id": name, "occurred_at": when, "amount": "7.00", "currency_code": "EUR"})})
        for name, _, when in rows
    ]  # fmt: skip
    drop(settings, f"stream/payments_transactions/{file}.jsonl", "\n".join(messages).encode())


def when_ms(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)


@pytest.fixture(autouse=True)
def ten_years(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every class may be kept for ten years."""
    seed = tmp_path_factory.mktemp("seed") / "retention_classes.csv"
    with retention.RETENTION_SEED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with seed.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([row | {"retention_months": str(12 * YEARS)} for row in rows])
    monkeypatch.setattr(retention, "RETENTION_SEED", seed)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, landed_reference: Settings) -> Settings:
    settings = copy_home(landed_reference, tmp_path_factory.mktemp("retained") / "home")
    leave_drops(settings)
    ingest(settings, NOWHERE, run_id="rows", sources=("files",))
    return settings


@pytest.fixture
def landed(base: Settings, tmp_path: Path) -> Settings:
    return copy_home(base, tmp_path / "home")


def present(settings: Settings, name: str) -> dict[str, set[str]]:
    """Place → the tables that hold a row of this name: raw, history, lake, vault."""
    found: dict[str, set[str]] = {"raw": set(), "history": set(), "lake": set(), "vault": set()}
    lake = Lake(settings)
    with open_warehouse(settings, read_only=True) as connection:
        for table in RETAINED:
            places = {"raw": f"{table.raw_schema}.{table.name}"}
            places["lake"] = f"({loads_sql(connection, table, lake.sealed_loads(table.source, table.name))})"
            if table.history:
                places["history"] = f"{table.raw_schema}.{table.name}_history"
            text = "document::varchar || _id" if table.source == "mongodb" else "document::varchar"
            text = text if table.is_document else "transaction_id"
            for place, relation in places.items():
                row = connection.execute(f"select count(*) from {relation} where contains({text}, '{name}')").fetchone()
                if row and row[0]:
                    found[place].add(table.qualified)
    with open_vault(settings) as vault:
        rows = vault.execute(
            "select distinct 'raw_' || source || '.' || table_name from vault.main.sealed_entry "
            "where contains(row_key, $1)", [name]
        ).fetchall()  # fmt: skip
    found["vault"] = {table for (table,) in rows}
    return found


EVERYWHERE = {
    "raw": {table.qualified for table in RETAINED},
    "history": {table.qualified for table in RETAINED if table.history},
    "lake": {table.qualified for table in RETAINED},
    "vault": {f"raw_mongodb.{name}" for name in DOCUMENTS},
}
NOWHERE_LEFT: dict[str, set[str]] = {place: set() for place in EVERYWHERE}


def contents(settings: Settings) -> list[list[Any]]:
    with open_warehouse(settings, read_only=True) as connection:
        return [
            connection.execute(
                f"select * exclude (_dlt_load_id) from {table.qualified}{ending} order by all"
            ).fetchall()
            for table in all_tables()
            for ending in ("", *(("_history",) if table.history else ()))
        ]


def forget_files(settings: Settings) -> None:
    """So that a file with the same bytes lands again."""
    with open_warehouse(settings) as connection:
        connection.execute("delete from raw_ops.landed_files")
    shutil.rmtree(Home.of(settings).drops, ignore_errors=True)


def test_what_is_too_old_goes_from_everywhere_and_the_rest_stays(landed: Settings) -> None:
    assert present(landed, "PAYOLD1") == EVERYWHERE, "there is something to drop"
    before = {row["table"]: row for row in overdue(landed)}
    assert {table: row["overdue"] for table, row in before.items()} == {table.qualified: 2 for table in RETAINED}
    others = query(landed, "select * from raw_oltp.customer order by all")
    needles = [Needle("marker", value) for value in ("marker-PAYOLD1", "session-PAYOLD1", "PAYOLD1")]
    assert scan_home(landed, needles, patterns=False, project=landed.warehouse_home / "none").findings
    with open_vault(landed) as vault:
        keys = vault.execute("select count(*) from vault.subject_key").fetchone()

    report = apply_retention(landed)

    assert {item.table: (item.rows, item.lake_rows, item.loads) for item in report.tables} == {
        table.qualified: (2, 2, 1) for table in RETAINED
    }
    assert {item.table for item in report.tables if item.history_rows == 2} == EVERYWHERE["history"]
    assert {item.table for item in report.tables if item.vault_values} == EVERYWHERE["vault"]
    for name in ("PAYOLD1", "PAYOLD2"):
        assert present(landed, name) == NOWHERE_LEFT
    assert present(landed, "PAYNEW1") == EVERYWHERE
    assert all(row["overdue"] == 0 and row["applied_to"] for row in overdue(landed))
    found = scan_home(landed, needles, patterns=False, project=landed.warehouse_home / "none")
    assert not found.unopened
    assert [str(item) for item in found.findings] == []
    assert query(landed, "select * from raw_oltp.customer order by all") == others
    with open_vault(landed) as vault:
        left = vault.execute("select count(*) from vault.subject_key").fetchone()
        assert left == vault.execute("select count(distinct owner) from vault.sealed_entry").fetchone()
    assert keys is not None and left is not None and 0 < left[0] <= keys[0]
    assert "marker-PAYNEW1" in {entry.value for entry in subject_entries(landed, OTHER)}
    assert not Home.of(landed).build_state.exists()


def test_the_files_are_written_anew(landed: Settings) -> None:
    """A row that is only deleted stays readable in a database's file."""
    files = (Home.of(landed).warehouse, Home.of(landed).vault)
    before = [path.stat().st_ino for path in files]
    apply_retention(landed)
    assert all(path.stat().st_ino != old for path, old in zip(files, before, strict=True))


def test_the_next_build_writes_the_warehouse_anew_once(landed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the models held of it is not left in the room of their old tables."""
    apply_retention(landed)
    built: list[str] = []
    monkeypatch.setattr(refresh, "run_dbt", lambda *given, **_: built.append(" ".join(given[1])) or DbtResult("build"))
    monkeypatch.setattr(refresh, "build_in_parts", lambda *_, **__: built.append("in parts") or DbtResult("build"))
    monkeypatch.setattr(refresh, "classify_compiled", lambda _: Mock())
    path, before = Home.of(landed).warehouse, contents(landed)
    files = [path.stat().st_ino]
    for _ in range(2):
        refresh._build(landed, {}, refresh._build_state(landed), unchanged=False, full=False, progress=silent)
        files.append(path.stat().st_ino)
    assert built == ["build --full-refresh", "in parts"]
    assert files[0] != files[1] == files[2]
    assert contents(landed) == before
    assert not Home.of(landed).rewrite_due.exists()


def test_a_second_time_there_is_nothing_to_do(landed: Settings) -> None:
    apply_retention(landed)
    files = {path: path.stat().st_ino for path in landed.warehouse_home.rglob("*") if path.is_file()}
    before, cutoffs = contents(landed), query(landed, "select * from raw_ops.retention_cutoff order by all")
    assert apply_retention(landed).total == 0
    assert contents(landed) == before
    assert query(landed, "select * from raw_ops.retention_cutoff order by all") == cutoffs
    kept = {path: inode for path, inode in files.items() if path.suffix in {".duckdb", ".parquet"}}
    assert {path: path.stat().st_ino for path in kept} == kept


def test_neither_replay_nor_a_drop_nor_housekeeping_brings_it_back(landed: Settings) -> None:
    apply_retention(landed)
    before = contents(landed)
    replay(landed)
    assert contents(landed) == before
    forget_files(landed)
    drop_reference(landed)
    leave_drops(landed)
    leave_drops(landed, [("PAYOLD3", OTHER, OLD), ("PAYNEW3", OTHER, "2024-05-06T07:08:09Z")], "more")
    report = ingest(landed, NOWHERE, run_id="again", sources=("files",))
    assert report.landed_rows == len(RETAINED), "one new row in each table"
    for name in ("PAYOLD1", "PAYOLD2", "PAYOLD3"):
        assert present(landed, name) == NOWHERE_LEFT
    assert present(landed, "PAYNEW3") == EVERYWHERE
    compact(landed, min_loads=2)
    replay(landed)
    assert present(landed, "PAYNEW3") == EVERYWHERE
    assert present(landed, "PAYOLD1") == NOWHERE_LEFT


def test_a_lake_that_still_holds_it_gives_none_of_it(landed: Settings) -> None:
    """Killed between the cutoffs and the lake, a replay and a compaction obey already."""
    with open_warehouse(landed, memory_limit=landed.memory_limit) as connection:
        install(connection, token_key(landed))
        retention.record_cutoffs(connection, frozenset())
    replay(landed)
    found = present(landed, "PAYOLD1")
    assert found["raw"] == found["history"] == set()
    assert found["lake"] == EVERYWHERE["lake"]
    compact(landed, min_loads=2)
    assert present(landed, "PAYOLD1")["lake"] == set()


def test_a_cutoff_never_moves_back(landed: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apply_retention(landed)
    before = query(landed, "select source, table_name, cutoff from raw_ops.retention_cutoff order by all")
    seed = tmp_path / "longer.csv"
    seed.write_text(retention.RETENTION_SEED.read_text().replace(str(12 * YEARS), str(12 * 90)))
    monkeypatch.setattr(retention, "RETENTION_SEED", seed)
    assert apply_retention(landed).total == 0
    assert query(landed, "select source, table_name, cutoff from raw_ops.retention_cutoff order by all") == before


KILLS: tuple[tuple[str, Moment], ...] = (
    ("record_cutoffs", "after"),
    ("replace_loads", "after"),
    ("drop_from_lake", "before"),
    ("drop_from_warehouse", "before"),
    ("rewrite", "before"),
    ("rewrite", "after"),
    ("drop_from_vault", "before"),
)
"""Each kill meets what the one before left: function of `warehouse.retention`, moment."""


def test_killed_anywhere_the_same_call_finishes(landed: Settings) -> None:
    Home.of(landed).build_state.write_text("{}")
    for name, moment in KILLS:
        with killed(retention, name, moment):
            apply_retention(landed)
    apply_retention(landed)
    for name in ("PAYOLD1", "PAYOLD2"):
        assert present(landed, name) == NOWHERE_LEFT
    assert present(landed, "PAYNEW1") == EVERYWHERE
    assert not Home.of(landed).build_state.exists()
    assert Home.of(landed).rewrite_due.exists()


def test_what_a_killed_replay_left_goes_too(landed: Settings) -> None:
    with open_warehouse(landed) as connection:
        connection.execute(f"create table raw_oltp.transaction{SUFFIX} as from raw_oltp.transaction")
    apply_retention(landed)
    assert query(landed, f"select 1 from duckdb_tables() where table_name like '%{SUFFIX}'") == []


def test_rows_of_a_held_subject_stay_until_it_is_released(landed: Settings) -> None:
    """Their payments' events and errors, too, which name the payment and not the person."""
    add_hold(landed, CUSTOMER, "aml", "AML-7")
    report = apply_retention(landed)
    assert all((item.rows, item.held_rows) == (1, 1) for item in report.tables)
    assert present(landed, "PAYOLD1") == NOWHERE_LEFT
    assert present(landed, "PAYOLD2") == EVERYWHERE
    ledger = str(query(landed, "select * from raw_ops.retention_held"))
    assert "CUST" not in ledger and "PAYOLD" not in ledger, "the ledger tells nobody"
    before = contents(landed)
    assert apply_retention(landed).total == 0
    replay(landed)
    assert contents(landed) == before
    forget_files(landed)
    leave_drops(landed)
    assert ingest(landed, NOWHERE, run_id="again", sources=("files",)).landed_rows == 0
    assert contents(landed) == before
    release_hold(landed, CUSTOMER, "aml", "AML-7")
    released = apply_retention(landed)
    assert all((item.rows, item.held_rows) == (1, 0) for item in released.tables)
    assert present(landed, "PAYOLD2") == NOWHERE_LEFT
    assert query(landed, "select * from raw_ops.retention_held") == []


def test_a_hold_on_a_shop_keeps_its_payments(landed: Settings) -> None:
    add_hold(landed, "MERCHANT003", "litigation", "LIT-1")
    apply_retention(landed)
    kept = present(landed, "PAYOLD1")
    assert {"raw_oltp.transaction", "raw_mongodb.transactions", "raw_stream.payments_transactions"} <= kept["raw"]
    assert "raw_mongodb.user_interactions" not in kept["raw"]


def test_a_hold_brings_nothing_back_that_was_dropped_before(landed: Settings) -> None:
    """A source that still has it would land it, and a reconciliation would miss it."""
    apply_retention(landed)
    add_hold(landed, CUSTOMER, "aml", "AML-7")
    apply_retention(landed)
    forget_files(landed)
    leave_drops(landed)
    assert ingest(landed, NOWHERE, run_id="again", sources=("files",)).landed_rows == 0
    assert present(landed, "PAYOLD2") == NOWHERE_LEFT


def test_a_newer_version_stays_when_an_older_one_goes(landed: Settings) -> None:
    leave_drops(landed, [("PAYNEW1", OTHER, OLDER)], "older")
    for table in RETAINED:
        if not table.history:  # of those, a version that lands later takes the place of the one before
            shutil.rmtree(Home.of(landed).drops / table.source / table.name)
    ingest(landed, NOWHERE, run_id="older", sources=("files",))
    report = {item.table: item for item in apply_retention(landed).tables}
    assert report["raw_oltp.transaction"].history_rows == 3
    assert present(landed, "PAYNEW1") == EVERYWHERE
    assert query(landed, "select updated_at::date::varchar from raw_oltp.transaction_history "
                         "where transaction_id = 'PAYNEW1'") == [("2024-01-02",)]  # fmt: skip


def test_an_erased_payment_goes_in_its_time(landed: Settings) -> None:
    """Erased, it stays without the person; too old, it goes whole: both rules hold for one table."""
    erase(landed, CUSTOMER, "DSR-1")
    assert "raw_oltp.transaction" in present(landed, "PAYOLD2")["raw"]
    apply_retention(landed)
    assert present(landed, "PAYOLD2")["raw"] == set()
    before = contents(landed)
    replay(landed)
    assert contents(landed) == before
    forget_files(landed)
    drop_reference(landed)
    leave_drops(landed)
    assert ingest(landed, NOWHERE, run_id="again", sources=("files",)).landed_rows == 0
    assert contents(landed) == before


def test_a_live_source_that_still_has_it(landed: Settings, servers: tuple[Settings, Any]) -> None:
    """Nothing lands, in full or by keys, and reconciliation finds no difference and says what it left out."""
    _, endpoints = servers
    client: MongoClient[dict[str, Any]] = MongoClient(endpoints.mongodb_admin_uri)
    try:
        database = client["stripe_nosql"]
        for table in tables("mongodb").values():
            if table.origin not in database.list_collection_names():
                database.create_collection(table.origin)
        collection = database["customer_feedback"]
        for name, who, when in ROWS:
            text = json.dumps({"_id": f"{name}-live", **DOCUMENTS["customer_feedback"](name, who, when)})
            collection.insert_one(json_util.loads(text))
        settings = landed.model_copy(update={"warehouse_home": landed.warehouse_home.parent / "live"})
        shutil.copytree(landed.warehouse_home, settings.warehouse_home)
        ingest(settings, endpoints, run_id="live", sources=("mongodb",), full=True, accept_deletes=True)
        assert reconcile(settings, endpoints, sources=("mongodb",)).differences == 0
        (dropped,) = (item for item in apply_retention(settings).tables if item.table.endswith("customer_feedback"))
        assert dropped.rows >= 2
        for full in (True, False):
            report = ingest(settings, endpoints, run_id="again", sources=("mongodb",), full=full)
            assert report.landed_rows == 0
        compared = reconcile(settings, endpoints, sources=("mongodb",))
        assert [item for item in compared.tables if item.differences] == []
        (feedback,) = (item for item in compared.tables if item.table == "customer_feedback")
        assert (feedback.left_out_rows, feedback.source_rows) == (2, 1)
    finally:
        client.drop_database("stripe_nosql")
        client.close()


def test_the_command_shows_drops_and_records(landed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "get_settings", lambda: landed)
    run = CliRunner()
    shown = run.invoke(app, ["privacy", "retention"])
    assert shown.exit_code == 0, shown.output
    assert present(landed, "PAYOLD1") == EVERYWHERE, "showing drops nothing"
    done = run.invoke(app, ["privacy", "retention", "--apply", "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["dropped"] > 0
    assert {item["table"]: item["rows"] for item in printed["tables"]} == {table.qualified: 2 for table in RETAINED}
    events = [item["record"] for item in tail(landed, 10) if item["record"]["metadata"]["event_code"] == "retention"]
    assert [event["status"] for event in events] == ["Started", "Success"]
    assert {"raw_oltp.transaction", "vault"} <= {item["name"] for item in events[-1]["resources"]}
    again = run.invoke(app, ["privacy", "retention", "--apply"])
    assert again.exit_code == 0, again.output
    assert "nothing was older" in again.output


def test_where_it_cannot_be_applied_it_says_so(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home")
    with pytest.raises(ConfigurationError, match="no vault"):
        apply_retention(settings)
    with pytest.raises(ConfigurationError, match="DuckDB"):
        apply_retention(settings.model_copy(update={"dbt_target": "snowflake"}))


@pytest.mark.slow
def test_models_are_built_without_it(company: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every feedback, visit and error of a refreshed company is too old: all tests and expectations hold without."""
    seed = tmp_path / "shorter.csv"
    text = retention.RETENTION_SEED.read_text().splitlines()
    short = [line if line.startswith("payments") else line.replace(f",{12 * YEARS},", ",1,") for line in text]
    seed.write_text("\n".join(short) + "\n")
    monkeypatch.setattr(retention, "RETENTION_SEED", seed)
    home = tmp_path / "home"
    shutil.copytree(
        company.warehouse_home, home, ignore=shutil.ignore_patterns("servers", "spill"), ignore_dangling_symlinks=True
    )
    settings = company.model_copy(update={"warehouse_home": home})
    facts = "select currency_code, count(*), sum(amount) from public.fct_sales group by all order by all"
    totals = query(settings, facts)
    ((session,),) = query(settings, "select min(session_id) from public.fct_interaction")
    report = {item.table: item.rows for item in apply_retention(settings).tables}
    assert report["raw_mongodb.user_interactions"] > 0
    assert run_landing(settings).failed == ()
    run_dbt(settings, ["build", "--full-refresh", "--exclude-resource-type", "unit_test"])
    assert rewrite_if_due(settings)
    assert not rewrite_if_due(settings)
    for table in ("fct_feedback", "fct_interaction", "fct_error"):
        assert query(settings, f"select count(*) from public.{table}") == [(0,)]
    assert query(settings, facts) == totals
    assert run_publishing(settings).failed == ()
    publish(settings)
    needles = [Needle("session", session)]
    found = scan_home(settings, needles, patterns=False, project=settings.warehouse_home / "none")
    assert [item for item in found.findings if "export" not in str(item)] == []
