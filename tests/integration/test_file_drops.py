"""File drops: what partners leave lands as the live source would land it, once, or stays and is named."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import bson
import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bson import json_util
from confluent_kafka import Consumer, TopicPartition
from pymongo import MongoClient
from typer.testing import CliRunner

from ingestion.compaction import compact
from ingestion.destinations import choice
from ingestion.reconcile import reconcile
from ingestion.replay import replay
from ingestion.run import IngestReport, ingest
from ingestion.schema import Table, all_tables, tables
from ingestion.sources.files import drops as drop_folder
from ingestion.sources.files import landing as file_landing
from ingestion.sources.stream.reader import consumer_config
from tests.conftest import MakeSettings
from tests.integration.landed_home import NOWHERE, REFERENCE, drop, query
from warehouse import servers, simulation
from warehouse.cli.app import app
from warehouse.core.database import open_warehouse
from warehouse.core.endpoints import Endpoints
from warehouse.core.errors import ConfigurationError, LoadIncomplete, WarehouseError
from warehouse.core.paths import Home
from warehouse.core.settings import Settings, get_settings

CURRENCIES = b"currency_code,numeric_code,currency_name,minor_unit,updated_at\n"
EURO = b"EUR,978,Euro,2,2024-01-01 00:00:00+00\n"
DOLLAR = b'USD,840,"US ""Dollar"", or\nso",2,2024-01-01 00:00:00.000001+00\n'
BOMB = pa.compress(CURRENCIES + EURO * 2_000_000, codec="zstd", asbytes=True)
"""80 MB in a few kilobytes."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Settings:
    """A home with keys and empty raw tables, to be copied."""
    home = tmp_path_factory.mktemp("empty") / "home"
    settings = make_settings(home, lake_uri=None, drops_uri=None, drops_settle_seconds=0)
    land(settings)
    return settings


@pytest.fixture
def settings(tmp_path: Path, empty: Settings) -> Settings:
    home = tmp_path / "home"
    shutil.copytree(empty.warehouse_home, home)
    return empty.model_copy(update={"warehouse_home": home})


def land(settings: Settings) -> IngestReport:
    return ingest(settings, NOWHERE, run_id="drops", sources=("files",))


def refused(settings: Settings, reason: str) -> LoadIncomplete:
    with pytest.raises(LoadIncomplete, match=reason) as caught:
        land(settings)
    assert caught.value.kept and caught.value.todo
    return caught.value


def left(settings: Settings) -> list[str]:
    folder = Home.of(settings).drops
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_csv_as_postgresql_writes_it_lands_and_leaves(settings: Settings) -> None:
    drop(settings, "oltp/currency/day1.csv", CURRENCIES + EURO + DOLLAR + b'XXX,,"",0,2024-01-01 00:00:00+00\n')
    report = land(settings)
    assert report.sources[0].tables["oltp.currency"].landed_rows == 3
    assert query(settings, "select currency_code, numeric_code, currency_name from raw_oltp.currency order by 1") == [
        ("EUR", "978", "Euro"),
        ("USD", "840", 'US "Dollar", or\nso'),
        ("XXX", None, ""),
    ]
    assert left(settings) == []
    assert query(settings, "select mode, source_rows, landed_rows from raw_ops.load_manifest") == [("drop", 3, 3)]


def test_a_file_lands_once_by_its_content(settings: Settings) -> None:
    drop(settings, "oltp/currency/day1.csv", CURRENCIES + EURO)
    land(settings)
    drop(settings, "oltp/currency/day2.csv", CURRENCIES + EURO.replace(b"Euro", b"EURO"))
    land(settings)
    drop(settings, "oltp/currency/day1-again.csv", CURRENCIES + EURO)
    report = land(settings)
    assert report.sources[0].alerts == ["oltp/currency/day1-again.csv has landed before and was removed"]
    assert report.landed_rows == 0
    assert query(settings, "select currency_name from raw_oltp.currency") == [("EURO",)]
    assert query(settings, "select count(*), count(distinct sha256) from raw_ops.landed_files") == [(2, 2)]
    assert left(settings) == []


def test_files_of_one_table_land_in_the_order_of_their_names(settings: Settings) -> None:
    for day, name in ((2, b"Two"), (3, b"Three"), (1, b"One")):
        drop(settings, f"oltp/currency/day{day}.csv", CURRENCIES + EURO.replace(b"Euro", name))
    land(settings)
    assert query(settings, "select currency_name from raw_oltp.currency") == [("Three",)]


def test_a_file_that_fails_stays_and_the_others_land(settings: Settings) -> None:
    drop(settings, "oltp/currency/a.csv", b"currency_code,minor_unit\nplanted-secret,2\n")
    drop(settings, "oltp/currency/b.csv", CURRENCIES + EURO)
    drop(settings, "oltp/status/s.csv", (REFERENCE / "oltp" / "status.csv").read_bytes())
    error = refused(settings, r"1 dropped files did not land: oltp/currency/a\.csv lacks the columns numeric_code")
    assert "planted-secret" not in str(error)
    assert left(settings) == ["oltp/currency/a.csv"]
    assert query(settings, "select currency_code from raw_oltp.currency") == [("EUR",)]
    assert query(settings, "select count(*) > 0 from raw_oltp.status") == [(True,)]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.csv", "\ufeff".encode("utf-16"), "UTF-16"),
        ("x.csv", "currency_code".encode("utf-16-le"), "UTF-16"),
        ("x.csv", b"", "does not begin with a line of column names"),
        ("x.csv", b"a,a\n1,2\n", "does not begin with a line of column names"),
        ("x.csv", CURRENCIES, "holds no row"),
        ("x.csv", CURRENCIES + EURO[:-1], "does not end with a line end"),
        ("x.csv.gz", gzip.compress(CURRENCIES + EURO, mtime=0)[:-9], "is cut off, damaged"),
        ("x.csv.gz", CURRENCIES + EURO, "is cut off, damaged"),
        ("x.csv.zst", pa.compress(CURRENCIES + EURO, codec="zstd", asbytes=True)[:-3], "is cut off, damaged"),
        ("x.csv.zst", BOMB, "far more than a file of its size should"),
        ("x.parquet", b"PAR1 not really PAR1", "is cut off, damaged"),
        ("x.xlsx", b"PK", "ends in none of .csv, .parquet"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(settings: Settings, name: str, data: bytes, reason: str) -> None:
    drop(settings, f"oltp/currency/{name}", data)
    refused(settings, reason)
    assert left(settings) == [f"oltp/currency/{name}"]
    assert query(settings, "select count(*) from raw_ops.landed_files") == [(0,)]
    assert not list(Home.of(settings).lake.rglob("*.parquet"))


@pytest.mark.parametrize("name", ["x.bson", "x.bson.gz"])
def test_bson_that_is_cut_off_is_refused(settings: Settings, name: str) -> None:
    data = bson.encode({"_id": 1, "alpha2": "DE"}) + bson.encode({"_id": 2, "alpha2": "FR"})[:-4]
    drop(settings, f"mongodb/country_region_codes/{name}", gzip.compress(data) if name.endswith("gz") else data)
    refused(settings, "cut off in the middle of a document")


def test_a_byte_order_mark_is_not_part_of_a_name(settings: Settings) -> None:
    drop(settings, "oltp/currency/bom.csv", b"\xef\xbb\xbf" + CURRENCIES + EURO)
    assert land(settings).landed_rows == 1


def test_rows_that_do_not_fit_go_to_the_quarantine_and_their_file_is_kept_aside(settings: Settings) -> None:
    rows = [
        EURO,
        b"USD,840,planted-\xff-name,2,2024-01-01 00:00:00+00\n",
        b"too,few\n",
        b"GBP,826,Pound,2.5,2024-01-01 00:00:00+00\n",
        b"JPY,392,Yen,0,2024-01-01 00:00:00\n",
        b",999,planted-nobody,0,2024-01-01 00:00:00+00\n",
        b"CHF,756,Old,2,2024-01-01 00:00:00+00\n",
        b"CHF,756,Franc,2,2024-01-01 00:00:00+00\n",
    ]
    drop(settings, "oltp/currency/bad.csv", CURRENCIES + b"".join(rows))
    report = land(settings)
    counts = report.sources[0].tables["oltp.currency"]
    assert (counts.source_rows, counts.landed_rows, counts.quarantined_rows) == (8, 2, 6)
    found = query(settings, "select position, reason from raw_ops.quarantine order by 1")
    assert [(position.partition(" row ")[2], reason) for position, reason in found] == [
        ("2", "not UTF-8: currency_name"),
        ("3", "number of columns"),
        ("4", "type: minor_unit"),
        ("5", "type: updated_at"),
        ("6", "missing: currency_code"),
        ("7", "repeated: a later row of the file has this key"),
    ]
    assert query(settings, "select currency_code, currency_name from raw_oltp.currency order by 1") == [
        ("CHF", "Franc"),
        ("EUR", "Euro"),
    ]
    (aside,) = left(settings)
    assert aside.startswith("_quarantined/oltp/currency/") and aside.endswith("-bad.csv.sealed")
    sealed = Home.of(settings).drops / aside
    assert b"Franc" not in sealed.read_bytes() and b"currency_code" not in sealed.read_bytes()
    assert sealed.stat().st_mode & 0o077 == 0
    with open_warehouse(settings, read_only=True) as connection:
        content = b"".join(drop_folder.unseal(connection, sealed))
        assert hashlib.sha256(content).hexdigest().startswith(sealed.name[:12]) and b"Franc" in content
        other = settings.warehouse_home / "other"
        other.write_bytes(content)
        with pytest.raises(ConfigurationError, match="does not open with this lake key"):
            list(drop_folder.unseal(connection, other))
    assert "planted" not in str(query(settings, "select payload from raw_ops.quarantine"))
    assert land(settings).landed_rows == 0


def test_names_of_files_that_are_being_written_are_ignored(settings: Settings) -> None:
    names = ["a.csv.part", "b.csv.tmp", "_c.csv", ".d.csv", "e.metadata.json", "f.csv.manifest.json"]
    for name in names:
        drop(settings, f"oltp/currency/{name}", CURRENCIES + EURO)
    assert land(settings).landed_rows == 0
    assert len(left(settings)) == len(names)


def test_a_file_that_grows_between_two_looks_waits(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings.model_copy(update={"drops_settle_seconds": 3600})
    path = drop(settings, "oltp/currency/slow.csv", CURRENCIES)

    def grow(_: float) -> None:
        with path.open("ab") as file:
            file.write(EURO)

    monkeypatch.setattr(drop_folder.time, "sleep", grow)
    assert land(settings).landed_rows == 0
    assert left(settings) == ["oltp/currency/slow.csv"]
    monkeypatch.setattr(drop_folder.time, "sleep", lambda _: None)
    assert land(settings).landed_rows == 1


def test_a_file_that_changes_while_it_is_read_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drop(settings, "oltp/currency/busy.csv", CURRENCIES + EURO)
    digest = drop_folder.digest

    def changed(found: drop_folder.Drop) -> str:
        sha256 = digest(found)
        path.write_bytes(CURRENCIES + EURO + DOLLAR)
        return sha256

    monkeypatch.setattr(drop_folder, "digest", changed)
    refused(settings, "changed while it was read")
    monkeypatch.setattr(drop_folder, "digest", digest)
    assert land(settings).landed_rows == 2


def test_links_and_strange_places_are_refused(settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(CURRENCIES + EURO)
    place = Home.of(settings).drops / "oltp" / "currency"
    place.mkdir(parents=True)
    (place / "soft.csv").symlink_to(secret)
    (place / "hard.csv").hardlink_to(secret)
    os.mkfifo(place / "pipe.csv")
    (place / "folder.csv").mkdir()
    (Home.of(settings).drops / "oltp" / "status").symlink_to(tmp_path)
    drop(settings, "oltp/no_such_table/x.csv", EURO)
    drop(settings, "files/currency/x.csv", EURO)
    drop(settings, "loose.csv", EURO)
    error = refused(settings, "8 dropped files did not land")
    for name in ("soft", "hard", "pipe", "folder"):
        assert f"oltp/currency/{name}.csv is a link or no file" in error.what
    assert "oltp/status is a link" in error.what
    assert query(settings, "select count(*) from raw_oltp.currency") == [(0,)]
    assert secret.exists()


def test_a_manifest_must_agree(settings: Settings) -> None:
    names = (
        "transaction_id,merchant_id,customer_id,payment_method_id,product_id,quantity,device_id,location_id,"
        "currency_code,amount,tax,status_code,created_at,updated_at"
    )
    columns = [leaf.name for leaf in tables("oltp")["transaction"].columns]
    values = dict.fromkeys(columns, "") | {
        "amount": "10.0100", "tax": "0", "updated_at": "2024-01-01 00:00:00+00", "created_at": "2024-01-01 00:00:00+00",
        "quantity": "1",
    }  # fmt: skip
    assert set(names.split(",")) <= set(columns)
    lines = [",".join((values | {"transaction_id": f"T{n}"})[name] for name in columns) for n in range(3)]
    data = (",".join(columns) + "\n" + "\n".join(lines) + "\n").encode()
    stated: dict[str, Any]
    for stated, reason in (
        ({"rows": 4}, "does not hold the rows"),
        ({"rows": 3, "sum": "30.04"}, "does not hold the sum"),
        ({"sum": "30.03"}, "has a manifest that is not"),
    ):
        drop(settings, "oltp/transaction/t.csv", data)
        drop(settings, "oltp/transaction/t.csv.manifest.json", json.dumps(stated).encode())
        refused(settings, reason)
    drop(settings, "oltp/transaction/t.csv.manifest.json", b'{"rows": 3, "sum": "30.03"}')
    assert land(settings).sources[0].tables["oltp.transaction"].source_rows == 3
    assert left(settings) == []


def test_parquet_lands_and_a_double_where_a_decimal_belongs_is_refused(settings: Settings) -> None:
    names = [leaf.name for leaf in tables("oltp")["currency"].columns]
    columns = {name: pa.array([None], pa.string()) for name in names} | {
        "currency_code": pa.array(["EUR"]),
        "minor_unit": pa.array([2], pa.int64()),
        "updated_at": pa.array([0], pa.timestamp("us", tz="Europe/Berlin")),
        "more": pa.array([1]),
    }
    for kind, reason in ((pa.float64(), "holds column minor_unit as double"), (pa.int64(), "")):
        sink = io.BytesIO()
        pq.write_table(pa.table(columns | {"minor_unit": pa.array([2], kind)}), sink)
        drop(settings, "oltp/currency/c.parquet", sink.getvalue())
        if reason:
            refused(settings, reason)
    report = land(settings)
    assert report.landed_rows == 1
    assert report.sources[0].alerts == ["oltp/currency/c.parquet: 1 columns are not pinned and do not land"]
    assert query(settings, "select minor_unit, updated_at::varchar from raw_oltp.currency") == [
        (2, "1970-01-01 00:00:00+00")
    ]


def test_messages_as_kcat_writes_them(settings: Settings) -> None:
    def line(**changes: object) -> bytes:
        message = {"topic": "payments.transactions", "partition": 0, "offset": 7, "ts": 1700000000123, "key": "TXN1"}
        return json.dumps(message | {"payload": '{"event_id": "E1"}'} | changes).encode() + b"\n"

    data = (
        line(payload='{"event_id": "E0"}')
        + line()
        + line(offset=8, payload=None)
        + line(offset=9, payload="{nonsense")
        + line(topic="another")
        + line(offset=-1)
        + b'{"event_id": "planted"}\n'
        + b"\xff\n"
    )
    drop(settings, "stream/payments_transactions/m.jsonl.zst", pa.compress(data, codec="zstd", asbytes=True))
    counts = land(settings).sources[0].tables["stream.payments_transactions"]
    assert (counts.source_rows, counts.landed_rows, counts.quarantined_rows) == (8, 2, 6)
    rows = "select kafka_offset, produced_at::varchar, document ->> 'event_id' from raw_stream.payments_transactions"
    assert query(settings, rows + " order by 1") == [
        (7, "2023-11-14 22:13:20.123+00", "E1"),
        (8, "2023-11-14 22:13:20.123+00", None),
    ]


def test_an_array_of_documents_is_refused(settings: Settings) -> None:
    drop(settings, "mongodb/country_region_codes/a.json", b'[{"_id": 1}]\n')
    refused(settings, "one JSON array")


def test_drops_and_lake_must_lie_apart(settings: Settings) -> None:
    inside = settings.model_copy(update={"drops_uri": (Home.of(settings).lake / "drops").as_uri()})
    with pytest.raises(ConfigurationError, match="lie in one folder"):
        land(inside)


STEPS: dict[str, tuple[str, bool]] = {
    "before the load": ("DuckDBDestination.load_packages", False),
    "after the load": ("DuckDBDestination.load_packages", True),
    "before the list": ("_Channel._remember_committed", False),
    "before the file goes": ("_Channel._clear", False),
    "after the file went": ("_Channel._clear", True),
}


def _land_and_die(settings: Settings, step: str) -> None:
    name, after = STEPS[step]
    owner: Any = choice if name.startswith("DuckDBDestination") else file_landing
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, last)
    calls = 0

    def killed(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        first = step == "before the list" and calls == 1  # the one at the start, which looks for older packages
        if after or first:
            original(*args, **kwargs)
        if not first:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, last, killed)
    land(settings)


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_landing_neither_loses_nor_doubles_a_file(settings: Settings, step: str) -> None:
    drop(settings, "oltp/product/p1.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    process = get_context("forkserver").Process(target=_land_and_die, args=(settings, step))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    land(settings)
    expected = len((REFERENCE / "oltp" / "product.csv").read_text().splitlines()) - 1
    assert query(settings, "select count(*), count(distinct product_id) from raw_oltp.product") == [
        (expected, expected)
    ]
    assert query(settings, "select count(distinct (product_id, _row_hash)) from raw_oltp.product_history") == [
        (expected,)
    ]
    assert query(settings, "select count(*) from raw_ops.landed_files") == [(1,)]
    assert left(settings) == []
    held = sum(1 for _ in (Home.of(settings).lake / "oltp" / "product").glob("*/_loaded"))
    assert held == sum(1 for _ in (Home.of(settings).lake / "oltp" / "product").iterdir()) == 1


def test_a_pending_file_package_can_be_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ingest files --discard-pending`: a package that cannot be loaded goes, the file is there and lands."""
    drop(settings, "oltp/product/p1.csv", (REFERENCE / "oltp" / "product.csv").read_bytes())
    process = get_context("forkserver").Process(target=_die_before_the_load, args=(settings,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    (load,) = (Home.of(settings).lake / "oltp" / "product").iterdir()
    for part in load.glob("*.parquet"):
        part.write_bytes(b"not parquet")
    with pytest.raises(WarehouseError, match="could not be loaded") as caught:
        land(settings)
    assert "--discard-pending" in caught.value.todo
    monkeypatch.setenv("DBT_ENV_SECRET_WAREHOUSE_KEY", str(secret(settings)))
    monkeypatch.setenv("WAREHOUSE_HOME", str(settings.warehouse_home))
    monkeypatch.setenv("DROPS_SETTLE_SECONDS", "0")
    get_settings.cache_clear()
    try:
        done = CliRunner().invoke(app, ["ingest", "files", "--discard-pending"])
        assert done.exit_code == 0, done.output
        assert CliRunner().invoke(app, ["ingest", "files", "--reconcile"]).exit_code == 0
    finally:
        get_settings.cache_clear()
    assert not load.exists()
    expected = len((REFERENCE / "oltp" / "product.csv").read_text().splitlines()) - 1
    assert query(settings, "select count(*), count(distinct product_id) from raw_oltp.product") == [
        (expected, expected)
    ]
    assert query(settings, "select count(*) from raw_ops.load_manifest") == [(1,)]
    assert left(settings) == []


def secret(settings: Settings) -> str:
    assert settings.dbt_env_secret_warehouse_key is not None
    return settings.dbt_env_secret_warehouse_key.get_secret_value()


def _die_before_the_load(settings: Settings) -> None:
    from dlt.pipeline.pipeline import Pipeline

    def killed(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Pipeline.load = killed
    land(settings)


def test_files_are_reconciled_by_their_hash(settings: Settings) -> None:
    drop(settings, "oltp/currency/a.csv", CURRENCIES + EURO)
    assert [table.problems for table in reconcile(settings, NOWHERE, sources=("files",)).tables] == [
        ("oltp/currency/a.csv has not landed",)
    ]
    land(settings)
    (table,) = reconcile(settings, NOWHERE, sources=("files",)).tables
    assert (table.table, table.source_rows, table.warehouse_rows, table.differences) == ("oltp.currency", 1, 1, 0)
    (part,) = (Home.of(settings).lake / "oltp" / "currency").glob("*/*.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert reconcile(settings, NOWHERE, sources=("files",)).differences == 1
    for statement, differences in (
        ("update raw_ops.load_manifest set source_rows = 3", 3),
        ("delete from raw_ops.load_manifest", 1),
    ):
        with open_warehouse(settings) as connection:
            connection.execute(statement)
        assert reconcile(settings, NOWHERE, sources=("files",)).differences == differences


def test_an_older_export_becomes_history(settings: Settings) -> None:
    """By the rows' own time of change, whatever the order of the files; replay and compaction agree."""
    text = (REFERENCE / "oltp" / "product.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    first, second = rows[0]["product_id"], rows[1]["product_id"]

    drop(settings, "oltp/product/new.csv", export_text(rows[:2], "new", "2030-01-02 00:00:00+00"))
    land(settings)
    drop(settings, "oltp/product/newest.csv", export_text(rows[:1], "newest", "2030-01-03 00:00:00+00"))
    land(settings)
    drop(settings, "oltp/product/old.csv", export_text(rows[:2], "old", "2030-01-02 12:00:00+00"))
    alerts = land(settings).sources[0].alerts
    assert alerts == ["oltp/product/old.csv: 1 rows are older than what has landed; they are history"]
    current = "select product_id, product_name from raw_oltp.product order by product_id"
    expected = sorted([(first, "newest"), (second, "old")])
    assert query(settings, current) == expected
    versions = "select product_id, product_name, _load_id from raw_oltp.product_history order by all"
    history = query(settings, versions)
    assert len(history) == 5
    assert query(settings, "select landed_rows from raw_ops.load_manifest order by finished_at") == [(2,), (1,), (2,)]
    replay(settings)
    assert (query(settings, current), query(settings, versions)) == (expected, history)
    compact(settings, min_loads=2)
    replay(settings)
    assert (query(settings, current), query(settings, versions)) == (expected, history)
    assert reconcile(settings, NOWHERE, sources=("files",)).differences == 0


def export_text(rows: list[dict[str, str]], name: str, at: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "product_name": name, "updated_at": at} for row in rows)
    return out.getvalue().encode()


# -- as the live sources ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, make_settings: MakeSettings) -> Iterator[tuple[Settings, Endpoints]]:
    """The reference data set on servers of its own, landed from them."""
    settings = make_settings(tmp_path_factory.mktemp("live"), dataset="reference", lake_uri=None, drops_uri=None)
    try:
        endpoints = servers.up(settings)
        simulation.fill(settings, endpoints)
        ingest(settings, endpoints, run_id="live")
        yield settings, endpoints
    except servers.ServerMissing as error:
        pytest.skip(error.what)
    finally:
        servers.down(settings)


def test_drops_land_as_their_live_source_does(live: tuple[Settings, Endpoints], settings: Settings) -> None:
    """Export what the servers hold, in every format, and land it elsewhere: the raw rows are the same."""
    reference, endpoints = live
    token = Home.of(reference).keys / "token_v1.key"
    (Home.of(settings).keys / "token_v1.key").write_text(token.read_text())
    export_postgresql(settings, str(endpoints.postgres_uri))
    client: MongoClient[dict[str, Any]] = MongoClient(str(endpoints.mongodb_uri))
    for number, table in enumerate(tables("mongodb").values()):
        documents = list(client["stripe_nosql"][table.origin].find_raw_batches())
        if number % 2:
            drop(settings, f"mongodb/{table.name}/d.bson.gz", gzip.compress(b"".join(documents)))
        else:
            found = [document for batch in documents for document in bson.decode_all(batch)]
            mode = json_util.CANONICAL_JSON_OPTIONS if number % 4 else json_util.RELAXED_JSON_OPTIONS
            text = "\n".join(json_util.dumps(document, json_options=mode) for document in found)
            drop(settings, f"mongodb/{table.name}/d.json", text.encode())
    client.close()
    export_kafka(settings, consumer_config(reference, str(endpoints.kafka_bootstrap)))
    report = land(settings)
    assert report.landed_rows > 500
    assert left(settings) == []
    for table in all_tables():
        assert rows_of(settings, table) == rows_of(reference, table), table.qualified


def rows_of(settings: Settings, table: Table) -> list[Any]:
    columns = ", ".join(f'"{name}"' for name, _ in table.landed_columns if name not in ("_landed_at", "_load_id"))
    return query(settings, f"select {columns} from {table.qualified} where _deleted_at is null order by all")


def export_postgresql(settings: Settings, uri: str) -> None:
    with psycopg.connect(uri) as connection:
        for table in tables("oltp").values():
            with connection.cursor().copy(f'copy "{table.origin}" to stdout (format csv, header)'.encode()) as copy:
                drop(settings, f"oltp/{table.name}/t.csv", b"".join(bytes(block) for block in copy))


def export_kafka(settings: Settings, config: dict[str, Any]) -> None:
    consumer = Consumer(config)
    (table,) = tables("stream").values()
    lines = []
    for partition in consumer.list_topics(timeout=10).topics[table.origin].partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(table.origin, partition), timeout=10)
        consumer.assign([TopicPartition(table.origin, partition, low)])
        while low < high:
            for message in consumer.consume(high - low, timeout=10):
                low = message.offset() + 1
                lines.append(
                    json.dumps(
                        {
                            "topic": message.topic(),
                            "partition": message.partition(),
                            "offset": message.offset(),
                            "ts": message.timestamp()[1],
                            "key": message.key().decode() if message.key() else None,
                            "payload": message.value().decode() if message.value() else None,
                        }
                    )
                )
    consumer.close()
    drop(settings, f"stream/{table.name}/m.jsonl.gz", gzip.compress("\n".join(lines).encode() + b"\n"))


def test_a_failing_boundary_costs_its_file_only(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the database in the middle of a file: nothing of the file is left in the load."""
    drop(settings, "oltp/currency/a.csv", CURRENCIES + EURO)
    drop(settings, "oltp/status/s.csv", (REFERENCE / "oltp" / "status.csv").read_bytes())
    add = file_landing.TableLanding.add

    def failing(self: Any, relation: str) -> None:
        add(self, relation)
        if self.table.name == "currency":
            raise duckdb.ConversionException("planted-value")

    monkeypatch.setattr(file_landing.TableLanding, "add", failing)
    with pytest.raises(WarehouseError) as caught:
        land(settings)
    assert "planted-value" not in str(caught.value)
    assert query(settings, "select count(*) from raw_oltp.currency") == [(0,)]
    assert query(settings, "select count(*) > 0 from raw_oltp.status") == [(True,)]
    monkeypatch.setattr(file_landing.TableLanding, "add", add)
    assert land(settings).landed_rows == 1
